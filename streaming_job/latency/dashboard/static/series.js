// The columns the charts draw, for one range: never more points than the range has steps.

const GAP_STEPS_MAX = 5;

export class Series {
  constructor(answer) {
    this.step = answer.step_s;
    this.range = answer.range_s;
    this.at = answer.at_s;
    this.columns = answer.columns;
    this.#trim();
  }

  get points() {
    return this.range / this.step;
  }

  get end() {
    return this.at.length ? this.at[this.at.length - 1] : null;
  }

  /** Take the newest step in; false when too many are missing in between and all must be fetched anew. */
  take(point) {
    const at = point.at_s[0];
    if (at === undefined || (this.end !== null && at < this.end)) return true;
    if (this.end !== null && at - this.end > GAP_STEPS_MAX * this.step) return false;
    while (this.end !== null && this.end < at - this.step) this.#push(this.end + this.step, () => null);
    if (this.end === at) this.#drop();
    this.#push(at, (name) => point.columns[name][0]);
    this.#trim();
    return true;
  }

  #push(at, value) {
    this.at.push(at);
    for (const name of Object.keys(this.columns)) this.columns[name].push(value(name));
  }

  #drop() {
    this.at.pop();
    for (const column of Object.values(this.columns)) column.pop();
  }

  #trim() {
    const extra = this.at.length - this.points;
    if (extra <= 0) return;
    this.at.splice(0, extra);
    for (const column of Object.values(this.columns)) column.splice(0, extra);
  }
}

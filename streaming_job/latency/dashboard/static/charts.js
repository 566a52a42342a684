// The charts: what each draws, and the figure around it - legend with the values under the cursor, table in its place.

import uPlot from "/static/vendor/uPlot.esm.js";
import { data, make, setText } from "/static/dom.js";
import { duration, moment, number, rate, roundDuration, shortTime, time } from "/static/format.js";
import { colour } from "/static/theme.js";

const TABLE_ROWS = 40;
const DASH = [5, 4];
const NARROW = 480;
const WHOLE_STEPS = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000, 100_000, 1_000_000];

export const HOPS = [
  { name: "origin_to_bridge", label: "DynamoDB to bridge", colour: "hop-1" },
  { name: "bridge", label: "in the bridge", colour: "hop-2" },
  { name: "bridge_to_kinesis", label: "bridge to Kinesis", colour: "hop-3" },
  { name: "kinesis_to_batch", label: "waiting in Kinesis", colour: "hop-4" },
  { name: "batch_to_commit", label: "batch to commit", colour: "hop-5" },
];

export const CHARTS = [
  {
    id: "chart-freshness",
    title: "Freshness",
    about: "from a change's origin until it can be queried",
    height: 250,
    say: duration,
    floor: 1_000,
    target: true,
    lines: [
      { column: "p99_ms", label: "p99", colour: "p99", width: 1.5 },
      { column: "p95_ms", label: "p95", colour: "p95", width: 2 },
      { column: "p50_ms", label: "p50", colour: "p50", width: 2 },
      { column: "waiting_ms", label: "oldest change waiting", colour: "waiting", width: 1.5, dash: DASH },
    ],
  },
  {
    id: "chart-hops",
    title: "Where the time goes",
    about: "mean of each hop, stacked: the top edge is the whole way",
    height: 220,
    say: duration,
    floor: 1_000,
    stacked: true,
    lines: HOPS.map((hop) => ({ column: `${hop.name}_ms`, label: hop.label, colour: hop.colour, width: 1 })),
  },
  {
    id: "chart-throughput",
    title: "Throughput",
    about: "changes a second",
    height: 180,
    say: rate,
    floor: 10,
    lines: [
      { column: "in_per_s", label: "into the stream", colour: "in", width: 1.5, dash: DASH },
      { column: "out_per_s", label: "committed", colour: "out", width: 2 },
    ],
  },
  {
    id: "chart-backlog",
    title: "Backlog",
    about: "what is known to wait",
    height: 180,
    say: duration,
    floor: 1_000,
    lines: [
      { column: "behind_ms", label: "Kinesis, furthest shard behind", colour: "waiting", width: 2 },
      { column: "backlog", label: "changes in the mapping's hands", colour: "in", width: 1.5, axis: "count", say: number },
    ],
  },
];

export class Chart {
  #spec;
  #series = null;
  #plot = null;
  #shown = "chart";
  #targetMs = null;
  #legend = [];

  constructor(spec) {
    this.#spec = spec;
    this.figure = document.getElementById(spec.id);
    this.toggle = make("button", { type: "button", class: "quiet", "aria-pressed": "false" }, "Table");
    this.toggle.addEventListener("click", () => this.#turn());
    this.legend = make("ul", { class: "legend", role: "list", "data-shape": spec.stacked ? "area" : "line" });
    this.box = make("div", { class: "plot", tabindex: "0", role: "img", "aria-label": spec.title });
    this.blank = make("p", { class: "blank" }, "Nothing yet");
    this.rows = make("div", { class: "rows", tabindex: "0", role: "region", "aria-label": `${spec.title}, as a table`, hidden: "" });
    this.figure.append(
      make("div", { class: "chart-head" }, make("h2", {}, spec.title), make("p", {}, spec.about), this.toggle),
      this.legend,
      this.box,
      this.rows,
    );
    this.#fillLegend();
    this.box.addEventListener("keydown", (event) => this.#move(event));
    new ResizeObserver(() => this.#resize()).observe(this.box);
  }

  set targetMs(value) {
    this.#targetMs = value;
  }

  /** Anew: another range, another theme. */
  build(series) {
    this.#series = series;
    this.#plot?.destroy();
    this.#plot = new uPlot(this.#options(), this.#data(), this.box);
    this.box.append(this.blank);
    this.update();
  }

  update() {
    if (!this.#plot) return;
    const values = this.#data();
    const empty = !values.slice(1).some((column) => column.some((value) => value !== null));
    this.blank.hidden = !empty;
    if (this.#shown === "chart") this.#plot.setData(values);
    else this.#fillTable();
    this.#say(this.#plot.cursor.idx);
    this.box.setAttribute("aria-label", this.#summary());
  }

  #data() {
    const { at, columns } = this.#series;
    const lines = this.#spec.lines.map((line) => columns[line.column]);
    if (!this.#spec.stacked) return [at, ...lines];
    const sums = lines.map(() => new Array(at.length).fill(null));
    for (let i = 0; i < at.length; i++) {
      let sum = 0;
      for (let k = 0; k < lines.length; k++) {
        if (lines[k][i] === null) break;
        sum += lines[k][i];
        sums[k][i] = sum;
      }
    }
    return [at, ...sums];
  }

  #options() {
    const spec = this.#spec;
    const lines = spec.lines.map((line, k) => ({
      label: line.label,
      scale: line.axis ?? "y",
      stroke: colour(line.colour),
      width: line.width,
      dash: line.dash,
      points: { show: false },
      fill: spec.stacked ? colour(line.colour) : undefined,
      // A single missing second is how batches fall, not a gap in what is known.
      gaps: (plot, seriesIndex, from, to, gaps) => gaps.filter(([a, b]) => b - a > this.#gapPixels(plot)),
      index: k,
    }));
    const ink = colour("faint");
    const axis = { stroke: ink, grid: { stroke: colour("grid"), width: 1 }, ticks: { show: false }, font: "12px Inter, sans-serif" };
    const more = spec.lines.some((line) => line.axis);
    const narrow = this.box.clientWidth < NARROW;
    return {
      width: Math.max(200, this.box.clientWidth),
      height: spec.height,
      legend: { show: false },
      padding: [8, more ? 4 : 12, 0, 0],
      cursor: { y: false, drag: { x: false, y: false }, points: { size: 6 } },
      scales: {
        x: { time: true, range: () => this.#window() },
        y: { range: (plot, low, high) => [0, ceiling(Math.max(high ?? 0, spec.floor))] },
        count: { range: (plot, low, high) => [0, ceiling(Math.max(high ?? 0, 10))] },
      },
      axes: [
        { ...axis, size: 30, space: narrow ? 46 : 80, values: (plot, splits) => splits.map((s) => this.#tick(s)) },
        { ...axis, size: 58, space: 32, values: (plot, splits) => splits.map((value) => (value ? (spec.say === duration ? roundDuration : spec.say)(value) : "0")) },
        ...(more ? [{ ...axis, side: 1, size: 46, scale: "count", incrs: WHOLE_STEPS, grid: { show: false }, values: (plot, splits) => splits.map(number) }] : []),
      ],
      series: [{}, ...lines],
      bands: spec.stacked ? spec.lines.slice(1).map((line, k) => ({ series: [k + 2, k + 1], fill: colour(line.colour) })) : [],
      hooks: { setCursor: [(plot) => this.#say(plot.cursor.idx)], drawAxes: [(plot) => this.#drawTarget(plot)] },
    };
  }

  #window() {
    const end = this.#series.end ?? Math.floor(Date.now() / 1000);
    return [end - this.#series.range, end];
  }

  #gapPixels(plot) {
    return (3.5 * this.#series.step * plot.bbox.width) / this.#series.range;
  }

  #tick(s) {
    return this.#series.range <= 300 && this.box.clientWidth >= NARROW ? time(s) : shortTime(s);
  }

  #drawTarget(plot) {
    if (!this.#spec.target || !this.#targetMs) return;
    const y = plot.valToPos(this.#targetMs, "y", true);
    const { left, top, width } = plot.bbox;
    if (y < top) return;
    const ctx = plot.ctx;
    ctx.save();
    ctx.strokeStyle = colour("faint");
    ctx.fillStyle = colour("faint");
    ctx.lineWidth = devicePixelRatio;
    ctx.setLineDash([2 * devicePixelRatio, 4 * devicePixelRatio]);
    ctx.beginPath();
    ctx.moveTo(left, y);
    ctx.lineTo(left + width, y);
    ctx.stroke();
    ctx.font = `${11 * devicePixelRatio}px Inter, sans-serif`;
    ctx.textAlign = "left";
    ctx.fillText(`target ${roundDuration(this.#targetMs)}`, left + 6 * devicePixelRatio, y - 5 * devicePixelRatio);
    ctx.restore();
  }

  #fillLegend() {
    this.#legend = this.#spec.lines.map((line) => {
      const value = make("b");
      const swatch = make("i");
      this.legend.append(make("li", {}, swatch, line.label, value));
      return { line, name: line.label, value, swatch };
    });
    this.at = make("li", { class: "at" });
    this.legend.append(this.at);
  }

  /** Where changes wait for the job: the lines say Kinesis until they are told otherwise. */
  waitsIn(place) {
    for (const { line, name } of this.#legend) {
      line.label = name.replace("Kinesis", place);
      this.legend.children[this.#spec.lines.indexOf(line)].childNodes[1].textContent = line.label;
    }
  }

  /** The legend's values: under the cursor, or the latest that are known. */
  #say(index) {
    const { at, columns } = this.#series;
    for (const { line, value, swatch } of this.#legend) {
      const column = columns[line.column] ?? [];
      const found = index ?? column.findLastIndex((v) => v !== null);
      setText(value, (line.say ?? this.#spec.say)(found >= 0 ? column[found] : null));
      swatch.style.background = colour(line.colour);
    }
    setText(this.at, index === null || index === undefined ? "" : time(at[index]));
  }

  #summary() {
    const said = this.#legend.map(({ line, value }) => `${line.label} ${value.textContent}`).join(", ");
    return `${this.#spec.title}, ${this.#spec.about}. Latest: ${said}. Arrow keys move along; the table shows the same.`;
  }

  #turn() {
    this.#shown = this.#shown === "chart" ? "table" : "chart";
    this.toggle.setAttribute("aria-pressed", String(this.#shown === "table"));
    this.box.hidden = this.#shown === "table";
    this.rows.hidden = this.#shown === "chart";
    this.update();
    this.#resize();
  }

  /** The newest first, thinned out so that the whole range fits into a table one can read. */
  #fillTable() {
    const { at, columns, range } = this.#series;
    const every = Math.max(1, Math.ceil(at.length / TABLE_ROWS));
    const body = make("tbody");
    for (let i = at.length - 1; i >= 0; i -= every) {
      const cells = this.#spec.lines.map((line) => {
        const value = columns[line.column][i];
        return make("td", { class: "n" }, data(value, (line.say ?? this.#spec.say)(value)));
      });
      body.append(make("tr", {}, make("th", { scope: "row" }, range > 3_600 ? moment(at[i]) : time(at[i])), ...cells));
    }
    const heads = this.#spec.lines.map((line) => make("th", { scope: "col", class: "n" }, line.label));
    this.rows.replaceChildren(
      make("table", {}, make("thead", {}, make("tr", {}, make("th", { scope: "col" }, "time"), ...heads)), body),
    );
  }

  #move(event) {
    const by = { ArrowLeft: -1, ArrowRight: 1, Home: -Infinity, End: Infinity }[event.key];
    if (!by || !this.#plot || !this.#series.at.length) return;
    event.preventDefault();
    const last = this.#series.at.length - 1;
    const index = Math.min(last, Math.max(0, (this.#plot.cursor.idx ?? last) + by));
    this.#plot.setCursor({ left: this.#plot.valToPos(this.#series.at[index], "x"), top: 0 });
  }

  #resize() {
    if (this.#plot && this.box.clientWidth) this.#plot.setSize({ width: this.box.clientWidth, height: this.#spec.height });
  }
}

/** A little air above the highest point. */
const ceiling = (value) => value * 1.08;

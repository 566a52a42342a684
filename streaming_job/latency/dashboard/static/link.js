// The stream of events, and whether it can be trusted: live, stale (nothing for a while), lost, and back again.

const STALE_AFTER_MS = 3_500;
const LOOK_EVERY_MS = 500;
const AGAIN_AFTER_MS = 2_000;

export class Link {
  #source = null;
  #heard = null;
  #failed = false;
  #state = "loading";

  constructor({ onSnapshot, onState }) {
    this.onSnapshot = onSnapshot;
    this.onState = onState;
    this.#open();
    setInterval(() => this.#look(), LOOK_EVERY_MS);
  }

  get silentMs() {
    return this.#heard === null ? null : performance.now() - this.#heard;
  }

  #open() {
    this.#source?.close();
    this.#source = new EventSource("/api/events");
    this.#source.onmessage = (event) => {
      this.#heard = performance.now();
      this.#failed = false;
      this.onSnapshot(JSON.parse(event.data), event.lastEventId);
      this.#look();
    };
    this.#source.onerror = () => {
      this.#failed = true;
      this.#look();
      // A refusal ends an EventSource for good; only a broken connection makes it try again by itself.
      if (this.#source.readyState === EventSource.CLOSED) setTimeout(() => this.#open(), AGAIN_AFTER_MS);
    };
  }

  #look() {
    const stale = this.#heard !== null && this.silentMs > STALE_AFTER_MS;
    const state = this.#failed ? "lost" : stale ? "stale" : this.#heard === null ? "loading" : "live";
    if (state !== this.#state || state === "stale" || state === "lost") {
      this.#state = state;
      this.onState(state);
    }
  }
}

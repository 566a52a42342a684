// How values are said. Every number on the page goes through here.

const count = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const few = new Intl.NumberFormat("en", { maximumFractionDigits: 1 });
const clock = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit", second: "2-digit" });
const shortClock = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit" });
const day = new Intl.DateTimeFormat("en-GB", { day: "numeric", month: "short", hour: "2-digit", minute: "2-digit" });

export const NOTHING = "–";

/** A duration as [number, unit], with as many digits as one would say aloud. */
export function durationParts(ms) {
  if (ms === null || ms === undefined) return [NOTHING, ""];
  const size = Math.abs(ms);
  if (size < 0.5) return ["0", "ms"];
  if (size < 99.5) return [count.format(ms), "ms"];
  if (size < 9_995) return [(ms / 1000).toFixed(2), "s"];
  if (size < 99_950) return [(ms / 1000).toFixed(1), "s"];
  const s = Math.round(ms / 1000);
  if (size < 3_600_000) return [`${Math.floor(s / 60)}:${String(s % 60).padStart(2, "0")}`, "min"];
  const minutes = Math.round(s / 60);
  return [`${Math.floor(minutes / 60)}:${String(minutes % 60).padStart(2, "0")}`, "h"];
}

export const duration = (ms) => durationParts(ms).join(" ").trim();

/** Of an axis or a target, where "2 s" says it all. */
export const roundDuration = (ms) => duration(ms).replace(/\.0+ s$/, " s").replace(/(\.\d)0 s$/, "$1 s");

export const number = (value) => (value === null || value === undefined ? NOTHING : count.format(value));

export const rate = (value) => (value === null || value === undefined ? NOTHING : `${few.format(value)}/s`);

export const time = (s) => clock.format(new Date(s * 1000));

export const shortTime = (s) => shortClock.format(new Date(s * 1000));

export const moment = (s) => day.format(new Date(s * 1000));

export function ago(seconds) {
  const s = Math.max(0, Math.round(seconds));
  if (s < 100) return `${s} s ago`;
  if (s < 6_000) return `${Math.round(s / 60)} min ago`;
  if (s < 172_800) return `${Math.round(s / 3_600)} h ago`;
  return `${Math.round(s / 86_400)} days ago`;
}

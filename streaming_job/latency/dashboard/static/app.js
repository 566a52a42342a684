// The page: takes each snapshot to where it is shown, and says honestly when no snapshot comes.

import { CHARTS, Chart } from "/static/charts.js";
import { byId, setData, setText, sign } from "/static/dom.js";
import { NOTHING, ago, durationParts, roundDuration, time } from "/static/format.js";
import { Link } from "/static/link.js";
import { showFacts, showProblems, showTables } from "/static/panels.js";
import { Series } from "/static/series.js";
import { setUpTheme } from "/static/theme.js";

const root = document.documentElement;
const charts = CHARTS.map((spec) => new Chart(spec));
const SAYS = { loading: "connecting", live: "live", stale: "no news", lost: "disconnected" };

let series = null;
let fetching = 0;

const range = () => Number(document.querySelector("input[name=range]:checked").value);

async function fetchSeries() {
  const mine = ++fetching;
  try {
    const response = await fetch(`/api/series?range_s=${range()}`);
    if (!response.ok || mine !== fetching) return;
    const answer = await response.json();
    // A range chosen while this was on its way has its own answer coming.
    if (mine !== fetching) return;
    series = new Series({ ...answer, columns: withNames(answer.columns) });
    for (const chart of charts) chart.build(series);
  } catch {
    // The link says that the server is gone; the next snapshot fetches again.
    series = null;
  }
}

/** Charts ask for their columns by name, also when nothing is known yet. */
function withNames(columns) {
  const names = CHARTS.flatMap((spec) => spec.lines.map((line) => line.column));
  return { ...Object.fromEntries(names.map((name) => [name, []])), ...columns };
}

function takePoints(points) {
  if (series === null) {
    fetchSeries();
    return;
  }
  const point = points.find((candidate) => candidate.step_s === series.step);
  if (!point || !series.take(point)) {
    series = null;
    fetchSeries();
    return;
  }
  for (const chart of charts) chart.update();
}

function showVerdict({ verdict, title, at_s: at, target_ms: target }) {
  showLevel(verdict.level);
  root.dataset.state = verdict.state;
  setText(byId("sentence"), verdict.sentence);
  setText(byId("detail"), verdict.detail);
  const [value, unit] = durationParts(verdict.number_ms);
  const shown = byId("number");
  setData(shown, verdict.number_ms, value);
  if (unit) {
    const small = document.createElement("small");
    small.textContent = unit;
    shown.append(small);
  }
  setText(byId("number-says"), verdict.number_says);
  setText(byId("subject"), title);
  setText(byId("as-of"), `As of ${time(at)}. Fresh means: 95 of 100 changes within ${roundDuration(target)}.`);
  document.title = `${verdict.sentence.replace(/\.$/, "")}${verdict.number_ms === null ? "" : ` · ${value} ${unit}`} – lakestream`;
}

/** In the tab, and before the sentence. */
function showLevel(level) {
  if (root.dataset.level === level && byId("sign").childElementCount) return;
  root.dataset.level = level;
  byId("sign").replaceChildren(sign(level));
  byId("icon").setAttribute("href", `/static/icons/${level}.svg`);
}

function onSnapshot(taken, number) {
  for (const chart of charts) chart.targetMs = taken.target_ms;
  showVerdict(taken);
  showProblems(taken.problems);
  showFacts(taken, taken.at_s);
  for (const chart of charts) chart.waitsIn(taken.waits_in);
  showTables(taken);
  takePoints(taken.points);
  root.dataset.number = number;
}

function onState(state) {
  root.dataset.link = state;
  setText(byId("link-says"), SAYS[state]);
  if (state !== "stale" && state !== "lost") return;
  showLevel("unknown");
  setText(byId("sentence"), state === "lost" ? "The page has lost its server." : "No news from the page's server.");
  const old = link.silentMs === null ? "Nothing was ever heard." : `What is shown is the last that was heard, ${ago(link.silentMs / 1000)}.`;
  setText(byId("detail"), `${old} The pipeline itself may be well; the page tries again by itself.`);
  setData(byId("number"), null, NOTHING);
  setText(byId("number-says"), "freshness is not known now");
  document.title = "Disconnected – lakestream";
}

for (const input of document.querySelectorAll("input[name=range]")) input.addEventListener("change", fetchSeries);
setUpTheme(byId("theme"), () => {
  if (series) for (const chart of charts) chart.build(series);
});
const link = new Link({ onSnapshot, onState });

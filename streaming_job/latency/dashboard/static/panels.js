// Everything that is not a chart: counts and proofs, problems, and the tables of what holds right now.

import { HOPS } from "/static/charts.js";
import { byId, data, make, setText, sign } from "/static/dom.js";
import { NOTHING, ago, duration, moment, number } from "/static/format.js";

const STEP_NAMES = {
  decode: "decode", rejects: "set rejects aside", duplicates: "drop duplicates", claim_checks: "fetch claim checks",
  history: "write history", newest: "newest per key", flatten: "flatten", schema: "add columns",
  current: "merge into current", latency: "record latency", park: "park a failing table", drain: "drain parked changes",
};
const COARSE = {
  origin_to_stream: "origin to stream (to whole seconds)",
  stream_to_bridge: "stream to bridge (to whole seconds)",
  stream_to_commit: "stream to queryable (to whole seconds)",
};
const HOP_LABELS = { ...Object.fromEntries(HOPS.map((hop) => [hop.name, hop.label])), origin_to_commit: "origin to queryable", ...COARSE };
const HOP_ORDER = Object.keys(HOP_LABELS);
const SOURCE_STATES = { answers: "answers", silent: "does not answer", never: "has not answered yet" };

const quiet = (value) => (value ? "bad" : value === 0 ? "good" : "none");

function facts({ figures, lately, verify, probe }, now) {
  const recent = (total, count) => (total === null ? "not published here" : count ? `${number(count)} in 10 minutes` : "none in 10 minutes");
  return [
    { id: "changes", label: "Changes committed", value: figures.changes, note: `${number(figures.duplicates)} duplicates left out` },
    { id: "rejects", label: "Rejects", value: figures.rejects, note: recent(figures.rejects, lately.rejects), level: figures.rejects ? "watch" : quiet(figures.rejects) },
    { id: "dead_letters", label: "Dead letters", value: figures.dead_letters, note: recent(figures.dead_letters, lately.dead_letters), level: figures.dead_letters ? "watch" : quiet(figures.dead_letters) },
    { id: "parked", label: "Parked", value: figures.parked, note: "changes of failing tables", level: quiet(figures.parked) },
    { id: "rescued", label: "Rescued", value: figures.rescued, note: "rows with a value that did not fit" },
    { id: "archived", label: "Archived", value: figures.archived, note: "records in the raw archive" },
    verifyFact(verify, now),
    probeFact(probe),
  ];
}

function verifyFact(verify, now) {
  if (!verify) return { id: "verify", label: "Last verify", text: "never", note: "run lakestream verify", level: "none" };
  const level = { equal: "good", different: "bad", unproven: "watch" }[verify.verdict];
  const differences = verify.missing + verify.extra + verify.stale + verify.different;
  const note = { equal: `${number(verify.lake_rows)} rows`, different: `${number(differences)} differences`, unproven: `${number(verify.unproven)} unproven` }[verify.verdict];
  return { id: "verify", label: "Last verify", text: verify.verdict, note: `${note}, ${ago(now - verify.at_s)}`, level };
}

function probeFact(probe) {
  if (!probe) return { id: "probe", label: "Probe", text: "not running", note: "no probe reports here", level: "none" };
  const { records_total: records = null, gaps_total: gaps = null, older_after_newer_total: older = 0 } = probe;
  const [text, level] = gaps === null ? ["gaps not known", "none"] : gaps ? [`${number(gaps)} gaps`, "bad"] : ["no gaps", "good"];
  return {
    id: "probe", label: "Probe", text, level,
    note: `${number(records)} records, ${number(older)} resent`,
  };
}

export function showFacts(snapshot, now) {
  const list = byId("facts");
  for (const fact of facts(snapshot, now)) {
    let cell = byId(`fact-${fact.id}`);
    if (!cell) {
      cell = make("div", { id: `fact-${fact.id}` }, make("dt", {}, fact.label), make("dd", { class: "value" }, make("data")), make("dd", { class: "note" }));
      list.append(cell);
    }
    cell.dataset.level = fact.level ?? (fact.value === null ? "none" : "plain");
    const value = cell.querySelector("data");
    value.setAttribute("value", fact.value ?? fact.text ?? "");
    setText(value, fact.text ?? number(fact.value));
    setText(cell.querySelector(".note"), fact.note);
  }
}

export function showProblems(problems) {
  byId("problems").hidden = !problems.length;
  const list = byId("problem-list");
  const said = JSON.stringify(problems);
  if (list.dataset.said === said) return;
  list.dataset.said = said;
  list.replaceChildren(
    ...problems.map((problem) => make("li", { "data-level": problem.level }, sign(problem.level), make("strong", {}, problem.what), make("span", {}, ...withCode(problem.do)))),
  );
}

/** What stands between backticks is a command to type. */
const withCode = (text) => text.split("`").map((part, k) => (k % 2 ? make("code", {}, part) : part));

/** `columns`: [heading, of a row: a cell's content, is it a number]. Rows are drawn anew; focus never rests in them. */
function table(panel, title, about, columns, rows, empty) {
  const head = columns.map(([name, , numeric]) => make("th", { scope: "col", class: numeric ? "n" : null }, name));
  const body = rows.map((row) =>
    make("tr", { "data-level": row.level ?? null, class: row.coarse ? "coarse" : null }, ...columns.map(([, content, numeric], k) =>
      k === 0 ? make("th", { scope: "row" }, content(row)) : make("td", { class: numeric ? "n" : null }, content(row)))));
  const below = rows.length
    ? make("table", {}, make("caption", { class: "unseen" }, title), make("thead", {}, make("tr", {}, ...head)), make("tbody", {}, ...body))
    : make("p", { class: "blank" }, empty);
  byId(panel).replaceChildren(make("div", { class: "chart-head" }, make("h2", {}, title), make("p", {}, about)), below);
}

const ms = (field) => [(row) => data(row[field], duration(row[field])), true];
const n = (field) => [(row) => data(row[field], number(row[field])), true];

/** Without the stream's name, which is the same for all, and the zeros; the whole name is one hover away. */
function shardName(name) {
  const short = name.split("/").at(-1).replace(/-0+(?=\d)/, "-");
  return make("span", { title: name }, short.replace(/-(\d{10})\d+-/, "-$1…-"));
}

function bar(value, most, high) {
  const attributes = { min: 0, max: most || 1, value: value ?? 0, "aria-hidden": "true" };
  return make("meter", high === undefined ? attributes : { ...attributes, low: high, high, optimum: 0 });
}

export function showTables(snapshot) {
  const { figures, steps, sources, target_ms: target, waits_in: waitsIn } = snapshot;
  const hops = figures.hops.map((hop) => ({ ...hop, coarse: hop.hop in COARSE })).sort((a, b) => HOP_ORDER.indexOf(a.hop) - HOP_ORDER.indexOf(b.hop));
  table("panel-hops", "Hops", "last minute", [
    ["hop", (row) => HOP_LABELS[row.hop]?.replace("Kinesis", waitsIn) ?? row.hop], ["p50", ...ms("p50_ms")], ["p95", ...ms("p95_ms")], ["p99", ...ms("p99_ms")],
    ["below zero", ...n("negative")],
  ], hops, "No change was committed in the last minute.");

  const most = Math.max(...steps.map((step) => step.mean_ms ?? 0));
  table("panel-steps", "A batch, step by step", "mean of the last minute", [
    ["step", (row) => STEP_NAMES[row.step] ?? row.step], ["time", ...ms("mean_ms")], ["", (row) => bar(row.mean_ms, most)],
    ["times, in all", ...n("total_times")],
  ], steps, "No batch yet.");

  const behind = Math.max(target, ...figures.shards.map((shard) => shard.behind_ms));
  table("panel-shards", "Shards", "lag of each, furthest behind first", [
    ["shard", (row) => shardName(row.shard)], ["of", (row) => (row.of === "stream" ? waitsIn : "table")],
    ["behind", ...ms("behind_ms")], ["", (row) => bar(row.behind_ms, behind, target)], ["in hand", ...n("backlog")],
  ], figures.shards, "No shard is known yet.");

  table("panel-tables", "Tables", "totals since the job started, percentiles of the last minute", [
    ["table", (row) => row.table], ["changes", ...n("changes")], ["p50", ...ms("p50_ms")], ["p95", ...ms("p95_ms")], ["p99", ...ms("p99_ms")],
    ["duplicates", ...n("duplicates")], ["rescued", ...n("rescued")], ["parked", ...n("parked")], ["new columns", ...n("columns_added")],
  ], figures.tables, "No change was committed yet.");

  table("panel-sources", "Processes", "asked every second", [
    ["process", (row) => row.name], ["state", (row) => SOURCE_STATES[row.state]], ["why", (row) => row.failure ?? NOTHING],
    ["last answer", (row) => (row.answered_at_s ? moment(row.answered_at_s) : NOTHING)],
  ], sources.map((source) => ({ ...source, level: source.state === "silent" ? "bad" : null })), "");
}

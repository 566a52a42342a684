"""How fresh the lake is, beside what a user would otherwise run: `python -m tests.bench.bench_freshness`.

The whole embedded stack and its load on this machine: telemetry of some twenty signals, 80 % new, 15 % updates, 5 %
deletes. Each way has a stack and a job of its own under the same load, one after the other; its first load warms it up
and does not count. Prints percentiles from the producer's time to the commit, hop by hop, and medians of each step of a
batch. `--ways without` takes the improvements away, one at a time.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import yaml

from tests.bench.rig import FLUSHED_WITHIN_S, OURS, ROOT, JobRun, Stack, running_stack, wait_until
from tests.bench.without import IMPROVEMENTS

_IDLE_S: Final = 15.0
_SPARK_DEFAULTS: Final = {
    "spark.sql.shuffle.partitions": "200",
    "spark.sql.adaptive.enabled": "true",
    "spark.databricks.delta.snapshotPartitions": "50",
    "spark.sql.sources.parallelPartitionDiscovery.parallelism": "10000",
    "spark.hadoop.fs.file.impl": "org.apache.hadoop.fs.LocalFileSystem",
}
_SPARK_ENGINE: Final = {"tables_dir": "spark-engine"}


@dataclass(frozen=True)
class Way:
    """A job beside ours: other settings, or our own without something."""

    said: str
    changes: Mapping[str, Any] = field(default_factory=dict)
    command: Sequence[str] = OURS


WAYS: Final[Mapping[str, Way]] = {
    "polling": Way("as delivered"),
    "fan-out": Way(
        "enhanced fan-out in place of polling", {"source": {"consumer_mode": "efo", "consumer_name": "bench"}}
    ),
    "spark": Way("engine spark in place of rust, tuned", _SPARK_ENGINE),
    "defaults": Way("engine spark, Spark's and Delta's default settings", {**_SPARK_ENGINE, "spark": _SPARK_DEFAULTS}),
    "files": Way(
        "objects that landed in S3, read every 30 s",
        {"source": {"connector": "files"}, "trigger": {"interval_ms": 30_000}},
    ),
    "one second trigger": Way("a batch a second in place of one after the other", {"trigger": {"interval_ms": 1_000}}),
}
WITHOUT: Final[Mapping[str, Way]] = {
    f"without: {name}": Way(improvement.instead, command=(sys.executable, "-m", "tests.bench.without", name))
    for name, improvement in IMPROVEMENTS.items()
}


def measured(stack: Stack, way: Way, *, rate: float, warm_s: float, seconds: float) -> dict[str, Any]:
    changes = dict(way.changes)
    if changes.get("tables_dir"):
        changes["tables_dir"] = str(_spark_tables(stack.folder))
    with stack.job("job", changes, way.command) as job:
        ready_s = time.monotonic() - job.began
        idle_cpu = job.usage()[0]
        time.sleep(_IDLE_S)
        idle_cpu = job.usage()[0] - idle_cpu
        warm = stack.load(rate=rate, seconds=warm_s, seed=1)
        _arrived(job, warm["sent_total"])
        before, batches_before, cpu_before = job.hops(), len(job.batches()), job.usage()[0]
        longest_warm_ms, triggers_before = max(job.triggers_ms()[1:]), len(job.triggers_ms())
        sent = stack.load(rate=rate, seconds=seconds, seed=2)
        _arrived(job, warm["sent_total"] + sent["sent_total"])
        cpu, resident = job.usage()
        hops = {name: hop.since(before.get(name)) for name, hop in job.hops().items()}
        batches = job.batches()[batches_before:]
        longest_ms = max(job.triggers_ms()[triggers_before:])
    steps = sorted({step for batch in batches for step in batch["steps_ms"]})
    return {
        **hops["origin_to_commit"].as_dict(),
        "late_writes": sent["late"],
        "ready_s": round(ready_s, 1),
        "longest_batch_ms": {"from ready on": longest_warm_ms, "after the first load": longest_ms},
        "idle_cores": round(idle_cpu / _IDLE_S, 2),
        "cores": round((cpu - cpu_before) / seconds, 2),
        "resident_mb": resident // 2**20,
        "hops": {name: hop.as_dict() for name, hop in hops.items()},
        "batches": len(batches),
        "steps_ms": {step: statistics.median(b["steps_ms"].get(step, 0.0) for b in batches) for step in steps},
    }


def _arrived(job: JobRun, changes: int) -> None:
    """Every change is in the figures; `stream_to_commit` counts deletes too, which have no producer's time."""

    def count() -> int:
        hop = job.hops().get("stream_to_commit")
        return 0 if hop is None else hop.count

    wait_until(lambda: count() >= changes, within_s=300 + FLUSHED_WITHIN_S, what=f"{changes} changes are committed")


def _spark_tables(folder: Path) -> Path:
    """The rules of the tables, engine spark."""
    target = folder / "spark-engine"
    target.mkdir(exist_ok=True)
    for file in (ROOT / "config" / "tables").iterdir():
        text = file.read_text(encoding="utf-8")
        if file.suffix == ".yaml":
            rules = yaml.safe_load(text)
            rules["lake"]["engine"] = "spark"
            text = yaml.safe_dump(rules)
        (target / file.name).write_text(text, encoding="utf-8")
    return target


def run(names: Sequence[str], *, rate: float, warm_s: float, seconds: float, runs: int = 1) -> dict[str, Any]:
    """Of several runs of a way the one in the middle, by its median."""
    found: dict[str, Any] = {}
    for name in names:
        way = {**WAYS, **WITHOUT}[name]
        results = [_run_once(name, way, rate=rate, warm_s=warm_s, seconds=seconds) for _ in range(runs)]
        done = sorted((result for result in results if "failed" not in result), key=lambda result: result["p50_ms"])
        found[name] = {**done[len(done) // 2], "runs": [_quantiles_of(each) for each in done]} if done else results[0]
    return found


def _run_once(name: str, way: Way, *, rate: float, warm_s: float, seconds: float) -> dict[str, Any]:
    try:
        with TemporaryDirectory(prefix="lakestream-bench-") as folder, running_stack(Path(folder)) as stack:
            result = measured(stack, way, rate=rate, warm_s=warm_s, seconds=seconds)
    except (RuntimeError, TimeoutError) as error:
        result = {"failed": str(error)}
    show(name, way, result)
    return result


def _quantiles_of(result: Mapping[str, Any]) -> dict[str, Any]:
    return {name: result[name] for name in ("p50_ms", "p95_ms", "p99_ms")}


def show(name: str, way: Way, result: Mapping[str, Any]) -> None:
    print(f"\n{name} ({way.said})")
    if "failed" in result:
        print(f"  {result['failed']}")
        return
    print(f"  {'origin to queryable':<24} {_quantiles(result)}")
    for hop, durations in result["hops"].items():
        if not hop.startswith("stream") and hop not in ("origin_to_commit", "origin_to_stream"):
            print(f"    {hop:<22} {_quantiles(durations)}")
    steps = "  ".join(f"{step} {ms:.0f}" for step, ms in result["steps_ms"].items() if ms >= 1)
    print(f"  {result['batches']} batches, median ms: {steps}")
    longest = ", ".join(f"{when} {ms} ms" for when, ms in result["longest_batch_ms"].items())
    print(f"  ready after {result['ready_s']} s; longest batch {longest}")
    print(
        f"  idle {result['idle_cores']} cores, then {result['cores']}; {result['resident_mb']} MB resident", flush=True
    )


def _quantiles(hop: Mapping[str, Any]) -> str:
    return "  ".join(f"{name} {hop[f'{name}_ms']:>8.0f}" for name in ("p50", "p95", "p99")) + " ms"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ways", default=",".join(WAYS), help=f"of {', '.join(WAYS)}; or: without")
    parser.add_argument("--rate", type=float, default=100)
    parser.add_argument("--warm", type=float, default=30, help="seconds of load that do not count")
    parser.add_argument("--seconds", type=float, default=180)
    parser.add_argument("--runs", type=int, default=1, help="of each way")
    options = parser.parse_args()
    names = list(WITHOUT) if options.ways == "without" else options.ways.split(",")
    run(names, rate=options.rate, warm_s=options.warm, seconds=options.seconds, runs=options.runs)


if __name__ == "__main__":
    main()

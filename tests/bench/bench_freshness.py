"""How fresh the lake is, beside what a user would otherwise run: `python -m tests.bench.bench_freshness`.

The whole embedded stack and its load on this machine: telemetry of some twenty signals, 80 % new, 15 % updates, 5 %
deletes. Each way is a job of its own under the same load, one after the other; its first load warms it up and does not
count. Prints percentiles from the producer's time to the commit, hop by hop, and medians of each step of a batch.
"""

import argparse
import statistics
import time
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import yaml

from tests.bench.rig import FLUSHED_WITHIN_S, ROOT, JobRun, Stack, running_stack, wait_until

_SPARK_DEFAULTS: Final = {
    "spark.sql.shuffle.partitions": "200",
    "spark.sql.adaptive.enabled": "true",
    "spark.databricks.delta.snapshotPartitions": "50",
    "spark.sql.sources.parallelPartitionDiscovery.parallelism": "10000",
    "spark.hadoop.fs.file.impl": "org.apache.hadoop.fs.LocalFileSystem",
}
_SPARK_ENGINE: Final = {"tables_dir": "spark-engine"}
WAYS: Final[Mapping[str, Mapping[str, Any]]] = {
    "polling": {},
    "fan-out": {"source": {"consumer_mode": "efo", "consumer_name": "bench"}},
    "spark": _SPARK_ENGINE,
    "defaults": {**_SPARK_ENGINE, "spark": _SPARK_DEFAULTS},
    "files": {"source": {"connector": "files"}, "trigger": {"interval_ms": 30_000}},
    "one second trigger": {"trigger": {"interval_ms": 1_000}},
}
SAID: Final[Mapping[str, str]] = {
    "polling": "as delivered",
    "fan-out": "enhanced fan-out in place of polling",
    "spark": "engine spark in place of rust, tuned",
    "defaults": "engine spark, Spark's and Delta's default settings",
    "files": "objects that landed in S3, read every 30 s",
    "one second trigger": "a batch a second in place of one after the other",
}


def measured(stack: Stack, way: str, *, rate: float, warm_s: float, seconds: float) -> dict[str, Any]:
    changes = dict(WAYS[way])
    if changes.get("tables_dir"):
        changes["tables_dir"] = str(_spark_tables(stack.folder))
    with stack.job(way.replace(" ", "-"), changes) as job:
        ready_s = time.monotonic() - job.began
        warm = stack.load(rate=rate, seconds=warm_s, seed=1)
        _arrived(job, warm["sent_total"])
        before, batches_before, cpu_before = job.hops(), len(job.batches()), job.usage()[0]
        sent = stack.load(rate=rate, seconds=seconds, seed=2)
        _arrived(job, warm["sent_total"] + sent["sent_total"])
        cpu, resident = job.usage()
        hops = {name: hop.since(before.get(name)) for name, hop in job.hops().items()}
        batches = job.batches()[batches_before:]
    steps = sorted({step for batch in batches for step in batch["steps_ms"]})
    return {
        **hops["origin_to_commit"].as_dict(),
        "late_writes": sent["late"],
        "ready_s": round(ready_s, 1),
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


def run(ways: list[str], *, rate: float, warm_s: float, seconds: float) -> dict[str, Any]:
    with TemporaryDirectory(prefix="lakestream-bench-") as folder, running_stack(Path(folder)) as stack:
        found: dict[str, Any] = {}
        for way in ways:
            try:
                found[way] = measured(stack, way, rate=rate, warm_s=warm_s, seconds=seconds)
            except (RuntimeError, TimeoutError) as error:
                found[way] = {"failed": str(error)}
            show(way, found[way])
    return found


def show(way: str, result: Mapping[str, Any]) -> None:
    print(f"\n{way} ({SAID[way]})")
    if "failed" in result:
        print(f"  {result['failed']}")
        return
    print(f"  {'origin to queryable':<24} {_quantiles(result)}")
    for name, hop in result["hops"].items():
        if not name.startswith("stream") and name not in ("origin_to_commit", "origin_to_stream"):
            print(f"    {name:<22} {_quantiles(hop)}")
    steps = "  ".join(f"{step} {ms:.0f}" for step, ms in result["steps_ms"].items() if ms >= 1)
    print(f"  {result['batches']} batches, median ms: {steps}")
    print(
        f"  ready after {result['ready_s']} s; {result['cores']} cores, {result['resident_mb']} MB resident", flush=True
    )


def _quantiles(hop: Mapping[str, Any]) -> str:
    return "  ".join(f"{name} {hop[f'{name}_ms']:>8.0f}" for name in ("p50", "p95", "p99")) + " ms"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ways", default=",".join(WAYS), help=f"of {', '.join(WAYS)}")
    parser.add_argument("--rate", type=float, default=100)
    parser.add_argument("--warm", type=float, default=30, help="seconds of load that do not count")
    parser.add_argument("--seconds", type=float, default=180)
    options = parser.parse_args()
    run(options.ways.split(","), rate=options.rate, warm_s=options.warm, seconds=options.seconds)


if __name__ == "__main__":
    main()

"""`make bench`: every benchmark whose figures the README shows, its tables printed, its figures in build/bench.json.

`python -m tests.bench --only freshness,growth` runs some; the others keep the figures they have. The machine should
have nothing else to do.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import psutil

from infra.local.home import write_json
from tests.bench import bench_drain, bench_floor, bench_freshness, bench_growth, bench_source, bench_ways
from tests.bench.rig import ROOT

OUT: Final = ROOT / "build" / "bench.json"


def bridge() -> dict[str, Any]:
    """In a process of its own: what it times may not share a heap with the others."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.bench.bench_bridge", "--json"],
        check=True,
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    figures = json.loads(done.stdout)
    speed, ratio = figures["warm_bridge_records_s"], figures["warm_times_the_usual"]
    print(f"{speed:,} records a second of processor time, {ratio} times the usual way")
    whole, whole_ratio = figures["invocations_bridge_in_lambda_records_s"], figures["invocations_times_the_usual"]
    print(f"{whole:,} of whole invocations, {whole_ratio} times the usual way")
    return {**figures, "records_per_s": speed, "ratio_to_usual": ratio}


_LOAD: Final = {"rate": 100, "warm_s": 30}


def freshness() -> dict[str, Any]:
    """What has targets as medians of three runs, then what a user would run instead."""
    ours = bench_freshness.run(["polling", "fan-out"], **_LOAD, seconds=180, runs=3)
    ways = ours | bench_freshness.run(["defaults", "files"], **_LOAD, seconds=180)
    return {
        **{name: ways["polling"].get(name) for name in ("p50_ms", "p95_ms", "p99_ms")},
        "ratio_to_defaults": _ratio(ways, "defaults", "polling"),
        "ratio_to_files": _ratio(ways, "files", "polling"),
        "ways": ways,
    }


def without() -> dict[str, Any]:
    """Ours beside the same with one improvement taken away, one at a time."""
    ways = bench_freshness.run(
        ["polling", "spark", "one second trigger", *bench_freshness.WITHOUT], **_LOAD, seconds=60
    )
    return {"ways": ways, "ratios": {way: _ratio(ways, way, "polling") for way in ways if way != "polling"}}


def _ratio(ways: Mapping[str, Any], way: str, to: str) -> float | None:
    return round(ways[way]["p50_ms"] / ways[to]["p50_ms"], 2) if "p50_ms" in ways[way] else None


def drain() -> dict[str, Any]:
    return bench_drain.run(500_000, [250, 500, 1000, 2000, 4000], 20)


def growth() -> dict[str, Any]:
    sizes, batches_of = [10_000, 1_000_000, 10_000_000], [100, 5_000]
    found = bench_growth.run(sizes, batches_of, 30, ["rust", "spark"])
    beside = bench_growth.run(sizes[:2], batches_of[:1], 10, ["rust, no index", "spark, files anew"])
    small, large = (found[bench_growth.named(size, "rust", "insert-mostly", 100)] for size in sizes[:2])
    return {"ratio_1m_to_10k": round(large["p50_ms"] / small["p50_ms"], 2), "merges": found | beside}


def source() -> dict[str, Any]:
    plan = bench_source.Plan(
        records=500_000, record_bytes=1024, shards=4, tip_seconds=30, tip_rate=50, idle_seconds=20, catch_up="30s"
    )
    found = bench_source.run(plan)
    print(json.dumps(found, indent=2))
    return {**found, "rows_per_s": found["read"]["rows_s"]}


def floor() -> dict[str, Any]:
    return bench_floor.run(100)


def ways() -> dict[str, Any]:
    return bench_ways.run(seconds=60, rate=20)


BENCHES: Final[Mapping[str, Callable[[], dict[str, Any]]]] = {
    "floor": floor,
    "bridge": bridge,
    "source": source,
    "growth": growth,
    "freshness": freshness,
    "without": without,
    "drain": drain,
    "ways": ways,
}


def machine() -> dict[str, Any]:
    return {
        "cores": os.cpu_count(),
        "memory_gb": round(psutil.virtual_memory().total / 2**30),
        "python": platform.python_version(),
        "load_before": round(os.getloadavg()[0], 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default=",".join(BENCHES), help=f"of {', '.join(BENCHES)}")
    names = parser.parse_args().only.split(",")
    unknown = [name for name in names if name not in BENCHES]
    if unknown:
        parser.error(f"no benchmark {', '.join(unknown)}: there are {', '.join(BENCHES)}")
    found: dict[str, Any] = json.loads(OUT.read_text(encoding="utf-8")) if OUT.exists() else {}
    for name in names:
        print(f"\n=== {name}", flush=True)
        where, began = machine(), time.monotonic()
        figures = BENCHES[name]()
        at = datetime.now(UTC).isoformat(timespec="seconds")
        found[name] = {**figures, "machine": where, "at": at, "took_s": round(time.monotonic() - began)}
        Path(OUT).parent.mkdir(exist_ok=True)
        write_json(OUT, found)
    print(f"\n{OUT}")


if __name__ == "__main__":
    main()

"""Benchmark of the Kinesis source on one machine, the emulator beside it.

`python -m tests.bench.bench_source [--records 500000] [--bytes 1024] [--shards 4] [--json build/bench-source.json]`;
`--records 0` measures the tip and the quiet alone.

Rows and MB a second from trim_horizon, three times: by a bare client that decodes nothing, the most that the emulator
gives (`floor`); by the source, of the emulator (`read`); and by the source of a server that answers at once, which is
the source's own limit (`read_alone`). Then at the tip, from a record's arrival to the start of the batch that holds it;
and CPU while nothing arrives. The emulator's own CPU is shown apart: it shares the cores.
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql.streaming.query import StreamingQuery

from streaming_job.kinesis import LakestreamKinesis
from streaming_job.spark import build_session, write_checkpoints_quickly
from tests.bench import quick_kinesis
from tests.bench.bare_client import read_to_the_tip
from tests.faults.kinesis_servers import CREDENTIALS, REGION, client, ministack, until

STREAM = "bench"
PUT_RECORDS = 500


@dataclass(frozen=True)
class Plan:
    records: int
    record_bytes: int
    shards: int
    tip_seconds: int
    tip_rate: int
    idle_seconds: int
    catch_up: str


def load(endpoint: str, first: int, count: int, record_bytes: int) -> None:
    kinesis = client(endpoint)
    for start in range(first, first + count, PUT_RECORDS):
        records = [
            {"Data": f"{n:012d}".encode().ljust(record_bytes, b"x"), "PartitionKey": f"key-{n % 997}"}
            for n in range(start, min(start + PUT_RECORDS, first + count))
        ]
        kinesis.put_records(StreamName=STREAM, Records=records)


def source(spark: SparkSession, endpoint: str, plan: Plan, **options: str) -> DataFrame:
    reader = spark.readStream.format("lakestream_kinesis").options(
        streamName=STREAM, region=REGION, endpointUrl=endpoint, catchUpThreshold=plan.catch_up, **options
    )
    return reader.load()


def floor(endpoint: str, plan: Plan) -> dict[str, float]:
    found = read_to_the_tip(endpoint, STREAM)
    return {
        "rows": found.rows,
        "rows_s": found.rows_per_s,
        "mb_s": round(found.rows * plan.record_bytes / found.seconds / 1e6, 1),
    }


def read_all(spark: SparkSession, endpoint: str, plan: Plan, folder: Path) -> dict[str, float]:
    """From trim_horizon to the tip, every column decoded by Spark, nothing written."""
    frame = source(spark, endpoint, plan, initialPosition="trim_horizon")
    began, before = time.monotonic(), cpu_seconds()
    query = (
        frame.writeStream.format("noop")
        .option("checkpointLocation", str(folder / f"read-{urlsplit(endpoint).port}"))
        .trigger(availableNow=True)
        .start()
    )
    query.awaitTermination()
    elapsed = time.monotonic() - began
    rows = sum(progress["numInputRows"] for progress in query.recentProgress)
    batches = [p for p in query.recentProgress if p["numInputRows"]]
    return {
        "rows": rows,
        "seconds": round(elapsed, 2),
        "rows_s": round(rows / elapsed),
        "mb_s": round(rows * plan.record_bytes / elapsed / 1e6, 1),
        "batches": len(batches),
        **{f"{name}_cpu_seconds": round(used - before[name], 1) for name, used in cpu_seconds().items()},
    }


def warm_up(spark: SparkSession, endpoint: str, folder: Path) -> None:
    """A first query, so that the figures are the source's and not the JVM's start."""
    client(endpoint).create_stream(StreamName="warm", ShardCount=1)
    client(endpoint).put_records(
        StreamName="warm", Records=[{"Data": b"x" * 1024, "PartitionKey": str(n)} for n in range(500)]
    )
    reader = spark.readStream.format("lakestream_kinesis").options(
        streamName="warm", region=REGION, endpointUrl=endpoint, initialPosition="trim_horizon", maxRecordsPerTrigger=100
    )
    writer = reader.load().writeStream.format("noop").option("checkpointLocation", str(folder / "warm"))
    writer.trigger(availableNow=True).start().awaitTermination()


@contextmanager
def running(frame: DataFrame, folder: Path, name: str, each: Any) -> Iterator[StreamingQuery]:
    query = frame.writeStream.foreachBatch(each).option("checkpointLocation", str(folder / name)).start()
    try:
        yield query
    finally:
        query.stop()


def tip(spark: SparkSession, endpoint: str, plan: Plan, folder: Path) -> dict[str, float]:
    delays: list[float] = []

    def each(frame: DataFrame, _batch: int) -> None:
        started = time.time()
        arrivals = frame.selectExpr("unix_millis(approximateArrivalTimestamp) AS ms").collect()
        delays.extend(started * 1000 - row.ms for row in arrivals)

    total = plan.tip_seconds * plan.tip_rate
    with running(source(spark, endpoint, plan, initialPosition="latest"), folder, "tip", each) as query:
        until(lambda: query.recentProgress, "the query runs")
        producer = client(endpoint)
        warm = 5 * plan.tip_rate
        for n in range(total + warm):
            began = time.monotonic()
            if n == warm:
                until(lambda: len(delays) >= warm, "the first rows")
                delays.clear()
            producer.put_record(StreamName=STREAM, Data=b"x" * plan.record_bytes, PartitionKey=f"tip-{n}")
            time.sleep(max(0.0, 1 / plan.tip_rate - (time.monotonic() - began)))
        until(lambda: len(delays) >= total, "all rows")
    ranks = statistics.quantiles(delays, n=100)
    return {"records": len(delays), "p50_ms": round(ranks[49]), "p95_ms": round(ranks[94]), "p99_ms": round(ranks[98])}


def idle(spark: SparkSession, endpoint: str, plan: Plan, folder: Path) -> dict[str, float]:
    """CPU of this process and all below it (the JVM, the source's Python), the emulator's left out."""
    with running(source(spark, endpoint, plan, initialPosition="latest"), folder, "idle", lambda *_: None) as query:
        until(lambda: query.recentProgress, "the query runs")
        time.sleep(5)  # the measured thing is a span of quiet, not a condition
        before = cpu_seconds()
        time.sleep(plan.idle_seconds)
        used = {name: cpu_seconds()[name] - spent for name, spent in before.items()}
    share = {f"{name}_percent_of_a_core": round(100 * s / plan.idle_seconds, 1) for name, s in used.items()}
    return {"seconds": plan.idle_seconds, **share}


def cpu_seconds() -> dict[str, float]:
    used = {"jvm": 0.0, "python": 0.0, "emulator": 0.0}
    for process in [psutil.Process(), *psutil.Process().children(recursive=True)]:
        try:
            times, command = process.cpu_times(), " ".join(process.cmdline())
        except (psutil.NoSuchProcess, psutil.ZombieProcess):
            continue
        name = "emulator" if "ministack" in command else "jvm" if "java" in command.split(" ")[0] else "python"
        used[name] += times.user + times.system
    return used


def run(plan: Plan) -> dict[str, Any]:
    os.environ.update(CREDENTIALS)
    with tempfile.TemporaryDirectory() as name, ministack(Path(name)) as endpoint:
        folder = Path(name)
        client(endpoint).create_stream(StreamName=STREAM, ShardCount=plan.shards)
        began = time.monotonic()
        load(endpoint, 0, plan.records, plan.record_bytes)
        loaded_s = time.monotonic() - began
        spark = build_session("bench-source")
        spark.sparkContext.setLogLevel("ERROR")
        spark.dataSource.register(LakestreamKinesis)
        write_checkpoints_quickly(spark, str(folder))  # as the job does
        result: dict[str, Any] = {}
        try:
            warm_up(spark, endpoint, folder)
            if plan.records:
                result |= {"load_seconds": round(loaded_s, 1), "floor": floor(endpoint, plan)}
                result["read"] = read_all(spark, endpoint, plan, folder)
                with quick_kinesis.serving(plan.record_bytes, plan.records, plan.shards) as alone:
                    result["read_alone"] = read_all(spark, alone, plan, folder)
            client(endpoint).delete_stream(StreamName=STREAM)
            client(endpoint).create_stream(StreamName=STREAM, ShardCount=plan.shards)
            result["tip"] = tip(spark, endpoint, plan, folder)
            result["idle"] = idle(spark, endpoint, plan, folder)
        finally:
            spark.stop()
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, default=500_000)
    parser.add_argument("--bytes", type=int, default=1024, dest="record_bytes")
    parser.add_argument("--shards", type=int, default=4)
    parser.add_argument("--tip-seconds", type=int, default=30)
    parser.add_argument("--tip-rate", type=int, default=50)
    parser.add_argument("--idle-seconds", type=int, default=20)
    parser.add_argument(
        "--catch-up", default="30s", help="catchUpThreshold: 1s reads on executors, 10000h on the driver"
    )
    parser.add_argument("--json", type=Path, default=Path("build/bench-source.json"), dest="out")
    given = parser.parse_args()
    out = given.out
    plan = Plan(**{name: value for name, value in vars(given).items() if name != "out"})
    result = run(plan)
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    sys.stdout.write(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()

"""How long a batch of telemetry takes, step by step, once warm: `python -m tests.bench.bench_batch --rows 30,100,500`.

80 % new items, 15 % updates, 5 % deletes, encoded by the bridge. Prints medians and the 95th percentile, and the
processor time a batch costs, which a busy machine does not stretch as it does the clock.
"""

import argparse
import random
import statistics
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory

import psutil
import pyarrow as pa

from bridge_lambda.envelope import encode_change
from bridge_lambda.masks import Mask
from bridge_lambda.rules import TableRules
from config.settings import AwsSettings, LakeSettings, Settings, SourceSettings
from config.tables import load_tables
from infra.local.telemetry import telemetry_item, to_dynamodb
from streaming_job.pipeline.batch import BatchReport, Pipeline
from streaming_job.spark import build_session
from streaming_job.warmup import warm_up

TABLE = "chargeminder-car-telemetry"
FIRST_SEQUENCE = 10**20
ARN = f"arn:aws:dynamodb:us-east-1:000000000000:table/{TABLE}/stream/2026-01-01T00:00:00.000"
RULES = {
    TABLE: TableRules(
        TABLE, "1", ("event_id",), Mask(), None, keep_old_image=True, filter=None, origin=(("meta", "deliveredAt"), 1)
    ),
}


class NoLatency:
    def record(self, clocks: pa.Table, *, table: str, batch: str, batch_start_ms: int, commit_ms: int) -> None:
        pass


_LIVE_MAX = 20_000
"""An older item is left as it is: in Python's objects one takes forty times its bytes."""


def changes(rng: random.Random) -> Iterator[bytes]:
    live: list[dict[str, object]] = []
    number = 0
    while True:
        number += 1
        op = rng.choices(("INSERT", "MODIFY", "REMOVE"), (80, 15, 5))[0] if len(live) > 20 else "INSERT"
        now = time.time()
        old = live.pop(rng.randrange(len(live))) if op != "INSERT" else None
        event_id = old["event_id"]["S"] if old else f"{rng.getrandbits(128):032x}"  # type: ignore[index]
        new = to_dynamodb(telemetry_item(rng, int(now * 1000), event_id=event_id)) if op != "REMOVE" else None
        if new is not None:
            live.append(new)
        if len(live) > _LIVE_MAX:
            live.pop(rng.randrange(len(live)))
        images = {"NewImage": new, "OldImage": old}
        record = {
            "eventID": str(number),
            "eventName": op,
            "eventSourceARN": ARN,
            "dynamodb": {
                "ApproximateCreationDateTime": int(now),
                "Keys": {"event_id": {"S": event_id}},
                "SequenceNumber": str(FIRST_SEQUENCE + number),
                **{name: image for name, image in images.items() if image is not None},
            },
        }
        change = encode_change(record, RULES, int(now * 1000), "bucket")
        assert change is not None
        yield change.line(int(now * 1000))


def frame_rows(source: Iterator[bytes], count: int, start: int) -> pa.Table:
    now = datetime.now(UTC)
    return pa.table(
        {
            "partitionKey": ["k"] * count,
            "data": [next(source) for _ in range(count)],
            "stream": ["s"] * count,
            "shardId": ["shard-0"] * count,
            "sequenceNumber": [str(start + number) for number in range(count)],
            "approximateArrivalTimestamp": [now] * count,
        }
    )


def cpu_s() -> float:
    process = psutil.Process()
    times = [member.cpu_times() for member in (process, *process.children(recursive=True))]
    return sum(time.user + time.system for time in times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", default="30,100,500")
    parser.add_argument("--batches", type=int, default=30)
    options = parser.parse_args()
    tables = {TABLE: load_tables(Path("config/tables"))[TABLE]}
    with TemporaryDirectory() as folder:
        settings = Settings(
            aws=AwsSettings(region="us-east-1"),
            source=SourceSettings(stream="s"),
            lake=LakeSettings(root=f"{folder}/lake", checkpoint=f"{folder}/checkpoint"),
            tables=(TABLE,),
        )
        began = time.perf_counter()
        spark = build_session("bench")
        spark.sparkContext.setLogLevel("ERROR")
        print(f"spark {time.perf_counter() - began:.1f} s")
        began = time.perf_counter()
        warm_up(spark, settings, tables)
        print(f"warm-up {time.perf_counter() - began:.1f} s")
        source = changes(random.Random(1))
        start = 1
        with Pipeline(spark, settings, tables, NoLatency()) as pipeline:
            for rows in map(int, options.rows.split(",")):
                reports: list[BatchReport] = []
                walls: list[float] = []
                cpus: list[float] = []
                for batch in range(options.batches):
                    arrow = frame_rows(source, rows, start)
                    start += rows
                    began, spent = time.perf_counter(), cpu_s()
                    reports.append(pipeline.process_batch(spark.createDataFrame(arrow), batch))
                    walls.append((time.perf_counter() - began) * 1000)
                    cpus.append((cpu_s() - spent) * 1000)
                    pipeline.between_batches()
                show(rows, reports, walls, cpus)
        spark.stop()


def show(rows: int, reports: list[BatchReport], walls: list[float], cpus: list[float]) -> None:
    print(
        f"\n{rows} rows: first {walls[0]:.0f} ms, median {statistics.median(walls):.0f} ms, "
        f"p95 {sorted(walls)[int(len(walls) * 0.95)]:.0f} ms, processor {statistics.median(cpus):.0f} ms a batch"
    )
    for step in reports[-1].steps_ms:
        values = [report.steps_ms.get(step, 0.0) for report in reports]
        print(f"  {step:<14} {statistics.median(values):7.1f} ms")


if __name__ == "__main__":
    main()

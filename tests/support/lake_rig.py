"""A pipeline over a temporary lake, and what stands in its tables afterwards."""

import os
import socket
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
from deltalake import DeltaTable, QueryBuilder
from envelopes import DAY_MS, Change
from pyspark.sql import DataFrame, SparkSession

from config.settings import Settings
from config.tables import TableConfig
from streaming_job.pipeline.batch import BatchReport, Pipeline
from streaming_job.pipeline.lease import Owner
from streaming_job.pipeline.steps import AfterStep, Step, go_on

SOURCE = pa.schema(
    [
        ("partitionKey", pa.string()),
        ("data", pa.binary()),
        ("stream", pa.string()),
        ("shardId", pa.string()),
        ("sequenceNumber", pa.string()),
        ("approximateArrivalTimestamp", pa.timestamp("us", "UTC")),
    ]
)


class KilledError(BaseException):
    """The process is gone: no `except Exception` may survive it."""


class CrashAfter:
    """Ends the process's work once, when the step is done for the n-th time."""

    def __init__(self, step: Step, nth: int = 1) -> None:
        self._step = step
        self._left = nth

    def __call__(self, step: Step) -> None:
        if step is self._step:
            self._left -= 1
            if self._left == 0:
                raise KilledError


@dataclass
class LatencyNotes:
    """Keeps what it is told."""

    notes: list[dict[str, Any]] = field(default_factory=list)

    def record(self, clocks: pa.Table, *, table: str, batch: str, batch_start_ms: int, commit_ms: int) -> None:
        self.notes.append({"table": table, "batch": batch, "rows": clocks.num_rows, "commit_ms": commit_ms})


class Clock:
    """Moves only when it is told to, and by a millisecond each time it is read."""

    def __init__(self, now_ms: int = DAY_MS) -> None:
        self.now_ms = now_ms

    def __call__(self) -> int:
        self.now_ms += 1
        return self.now_ms


def dead_process() -> Owner:
    """Who held a lease when it was killed."""
    gone = subprocess.Popen(["true"])
    gone.wait()
    return Owner("rig", socket.gethostname(), gone.pid)


def table_config(name: str = "things", **lake: Any) -> TableConfig:
    return TableConfig.model_validate(
        {"table": name, "version": 1, "key": [{"name": "id", "type": "S"}], "lake": {"name": name, **lake}}
    )


def settings_for(root: Path, tables: Iterable[str], **more: Any) -> Settings:
    given = {
        "aws": {"region": "us-east-1"},
        "source": {"stream": "lakestream"},
        "lake": {"root": str(root), "checkpoint": str(root / "checkpoint")},
        "tables": list(tables),
    }
    return Settings.model_validate(given | more)


class LakeRig:
    """`run` is a process of its own each time: a pipeline that is opened, gets its batches, and is closed or killed."""

    def __init__(self, spark: SparkSession, root: Path, *tables: TableConfig, **settings: Any) -> None:
        self.spark = spark
        self.root = root
        self.tables = {table.table: table for table in tables}
        self.settings = settings_for(root, self.tables, **settings)
        self.clock = Clock()
        self.latency = LatencyNotes()
        self._position = 0

    def pipeline(self, after_step: AfterStep = go_on, owner: Owner | None = None) -> Pipeline:
        owner = owner or Owner("rig", socket.gethostname(), os.getpid())
        return Pipeline(
            self.spark, self.settings, self.tables, self.latency, self.clock, owner=owner, after_step=after_step
        )

    def run(self, *batches: Iterable[Change | bytes], after_step: AfterStep = go_on) -> list[BatchReport]:
        frames = [self.frame(batch) for batch in batches]
        with self.pipeline(after_step) as pipeline:
            return [pipeline.process_batch(frame, number) for number, frame in enumerate(frames)]

    def idle(self, pipeline: Pipeline, pauses: int = 6) -> None:
        """A few minutes without a batch: time for all upkeep that is due."""
        for _ in range(pauses):
            self.clock.now_ms += 60_000
            pipeline.between_batches()

    def frame(self, batch: Iterable[Change | bytes]) -> DataFrame:
        """As the source hands over a batch."""
        rows = [
            {
                "partitionKey": "p",
                "data": change if isinstance(change, bytes) else change.line(),
                "stream": "lakestream",
                "shardId": "shardId-000000000000",
                "sequenceNumber": f"{self._position + offset:056d}",
                "approximateArrivalTimestamp": datetime.fromtimestamp(DAY_MS / 1000, UTC),
            }
            for offset, change in enumerate(batch, start=1)
        ]
        self._position += len(rows)
        return self.spark.createDataFrame(pa.Table.from_pylist(rows, schema=SOURCE))

    def path(self, name: str) -> str:
        return str(self.root / name)

    def rows(self, name: str, *columns: str, where: str = "true") -> list[dict[str, Any]]:
        """Of the table in this folder of the lake, sorted."""
        table = DeltaTable(self.path(name))
        names = columns or tuple(field.name for field in table.schema().fields)
        listed = ", ".join(f'"{column}"' for column in names)
        query = QueryBuilder().register("t", table).execute(f"SELECT {listed} FROM t WHERE {where}")  # noqa: S608 - a test's
        return sorted(pa.table(query.read_all()).to_pylist(), key=lambda row: [str(value) for value in row.values()])

    def everything(self) -> Mapping[str, list[dict[str, Any]]]:
        """All tables, without the times at which they were written."""
        names = [f"{config.lake.name}/{part}" for config in self.tables.values() for part in ("current", "history")]
        held = {name: self.rows(name) for name in [*names, "rejects", "schema_changes"]}
        return {
            name: sorted(
                ({k: v for k, v in sorted(row.items()) if k != "_ingest_ts"} for row in rows),
                key=lambda row: [str(value) for value in row.values()],
            )
            for name, rows in held.items()
        }

"""Spark's micro-batch loop without Spark: what it asks of a stream reader, in its order, through pickles and JSON text.

The same reader runs under Spark in test_kinesis_spark.py; here a batch costs milliseconds.
"""

import json
import pickle
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

from pyspark.sql.streaming.datasource import ReadLimit

from streaming_job.kinesis.options import parse_options
from streaming_job.kinesis.progress import ShardProgress, shard_progress
from streaming_job.kinesis.reader import KinesisStreamReader, RangePartition
from tests.faults.kinesis_servers import REGION

T = TypeVar("T")


@dataclass(frozen=True)
class Row:
    key: str
    data: bytes
    shard: str
    sequence: str
    batch: int


@dataclass
class MicroBatches:
    """A query with its checkpoint; `restart` is a new process on the same checkpoint."""

    endpoint: str
    stream: str
    options: dict[str, str] = field(default_factory=dict)
    available_now: bool = False
    rows: list[Row] = field(default_factory=list)
    log: list[str] = field(default_factory=list)
    """The offset log: the end of each batch. The last may not be committed."""
    committed: int = 0
    ranges: int = 0
    """Tasks that read Kinesis themselves, instead of carrying the driver's rows."""
    _reader: KinesisStreamReader | None = None

    @property
    def reader(self) -> KinesisStreamReader:
        if self._reader is None:
            given = {
                "streamName": self.stream,
                "region": REGION,
                "endpointUrl": self.endpoint,
                "initialPosition": "trim_horizon",
                "idleWait": "50ms",
                "shardFetchInterval": "1s",
                "awsAccessKey": "test",
                "awsSecretKey": "test",
            }
            self._reader = KinesisStreamReader(parse_options(given | self.options))
            if self.available_now:
                self._reader.prepareForTriggerAvailableNow()
            if self.committed < len(self.log):
                self._run(self.committed)
        return self._reader

    def step(self, limit: ReadLimit | None = None) -> list[Row] | None:
        """One trigger; None when there was nothing to do."""
        reader = self.reader
        start = json.loads(self.log[-1]) if self.log else reader.initialOffset()
        end = json.dumps(reader.latestOffset(start, limit or reader.getDefaultReadLimit()))
        if end == json.dumps(start):
            return None
        self.log.append(end)
        return self._run(len(self.log) - 1)

    def plan_and_crash(self) -> None:
        """The offset is in the log, the batch is not committed, the process is gone."""
        self.reader.latestOffset(json.loads(self.log[-1]), self.reader.getDefaultReadLimit())
        start = self.log[-1]
        while self.log[-1] == start:
            end = json.dumps(self.reader.latestOffset(json.loads(start), self.reader.getDefaultReadLimit()))
            if end != start:
                self.log.append(end)
        self.restart()

    def restart(self) -> None:
        if self._reader is not None:
            self._reader.stop()
            self._reader = None

    def until(self, condition: Callable[[list[Row]], bool], what: str, *, timeout_s: float = 60) -> None:
        deadline = time.monotonic() + timeout_s
        while not condition(self.rows):
            assert time.monotonic() < deadline, f"not within {timeout_s} s: {what}; {len(self.rows)} rows"
            self.step()

    def drain(self) -> None:
        """Available-now's loop."""
        while self.step() is not None:
            pass

    def data(self) -> list[bytes]:
        return [row.data for row in self.rows]

    def progress(self) -> list[ShardProgress]:
        return shard_progress(self.reader.reportLatestOffset())

    def _run(self, index: int) -> list[Row]:
        reader = self.reader
        start = json.loads(self.log[index - 1]) if index else reader.initialOffset()
        tasks = reader.partitions(start, json.loads(self.log[index]))
        batch: list[Row] = []
        for task in copied(list(tasks)):
            self.ranges += isinstance(task, RangePartition)
            worker = copied(reader)
            for record_batch in worker.read(task):
                batch += [_row(values, index) for values in record_batch.to_pylist()]
        self.rows += batch
        self.committed = index + 1
        reader.commit(json.loads(self.log[index]))
        return batch


def copied(value: T) -> T:
    """As Spark sends it to an executor."""
    sent: T = pickle.loads(pickle.dumps(value))  # noqa: S301 - our own bytes
    return sent


def _row(values: dict[str, Any], batch: int) -> Row:
    return Row(values["partitionKey"], values["data"], values["shardId"], values["sequenceNumber"], batch)

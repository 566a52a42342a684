"""The Kinesis source without threads: the real reader, plan, backlog and offsets; its tails take turns when told to."""

import json
import threading
from collections.abc import Callable, Iterator, Mapping
from random import Random
from typing import Any

from pyspark.sql.streaming.datasource import ReadAllAvailable, ReadLimit

from streaming_job.kinesis.fetch import Clock, KinesisApi
from streaming_job.kinesis.options import parse_options
from streaming_job.kinesis.prefetch import Prefetcher
from streaming_job.kinesis.reader import KinesisStreamReader
from streaming_job.kinesis.tail import Tail
from tests.simulation.clock import MachineClock
from tests.simulation.errors import KilledError
from tests.simulation.kinesis import STREAM
from tests.simulation.lake import Record

_TURNS_MAX = 40
"""Of waiting for everything."""


class SteppedPrefetcher(Prefetcher):
    """Its tails have no threads: they take turns while a plan waits for rows."""

    rng = Random(0)

    def clock_until(self, stopped: threading.Event) -> Clock:
        return self._clock

    def _begin(self, tail: Tail) -> None:
        """No thread."""

    def _wait_for_rows(self) -> None:
        if self.cutoff_ms is not None:
            self._wait_to_now()
            return
        for tail in self._in_any_order():
            for _ in range(self.rng.randrange(3)):
                self._turn(tail)
        if not any(tail.backlog.segments for tail in self.tails.values()):
            for tail in self._in_any_order():
                self._turn(tail)

    def _wait_to_now(self) -> None:
        for _ in range(_TURNS_MAX):
            if any(t.backlog.segments or t.error for t in self.tails.values()):
                return
            if all(tail.finished for tail in self.tails.values()):
                return
            for tail in self._in_any_order():
                self._turn(tail)

    def _wait_for_everything(self) -> None:
        asked_ms = self._clock.now_ms()
        self.wants_everything = True
        for _ in range(_TURNS_MAX):
            waiting = [t for t in self._in_any_order() if not (t.error or t.finished or t.backlog.tip_ms >= asked_ms)]
            for tail in waiting:
                self._turn(tail)
        for tail in self.tails.values():
            if self.rng.random() < 0.3:
                tail.backlog.shed()
        self.wants_everything = False

    def _turn(self, tail: Tail) -> None:
        if tail.error is None and not tail.finished and tail.has_room(self.held_bytes(), self.options.buffer_bytes_max):
            tail.turn()

    def _in_any_order(self) -> list[Tail]:
        tails = [self.tails[ref] for ref in sorted(self.tails)]
        self.rng.shuffle(tails)
        return tails


class SteppedReader(KinesisStreamReader):
    """The reader as Spark calls it, on our Kinesis and our clock."""

    prefetcher: type[SteppedPrefetcher] = SteppedPrefetcher

    def __init__(self, given: Mapping[str, str], api: KinesisApi, clock: MachineClock, rng: Random) -> None:
        super().__init__(parse_options({"streamName": STREAM, "initialPosition": "trim_horizon", **given}))
        self._rng = rng
        self.__dict__["_api"] = api
        self.__dict__["_clock"] = clock

    def _new_prefetcher(self, consumers: dict[str, str]) -> Prefetcher:
        made = self.prefetcher(self._api, self._options, self._catalog, consumers, clock=self._clock)
        made.rng = self._rng
        return made


Sink = Callable[[list[Record], int], None]


class Query:
    """Spark's micro-batch loop: plan, write the offset down, run the batch, write down that it is committed."""

    def __init__(self, open_reader: Callable[[], SteppedReader], sink: Sink) -> None:
        self.log: list[str] = []
        """Durable: the end of each batch. The last may not be committed."""
        self.committed = 0
        """Durable."""
        self._open_reader = open_reader
        self._sink = sink
        self._reader: SteppedReader | None = None
        self.ends_by_itself = False
        """Opened for what there is now, and no more."""

    def trigger(self, die_at: str = "", *, everything: bool = False) -> bool:
        """One batch, or what is left of one; False when there was nothing to do."""
        reader = self._opened()
        if self.committed < len(self.log):
            self._run(reader, die_at)
            return True
        start = json.loads(self.log[-1]) if self.log else reader.initialOffset()
        limit: ReadLimit = ReadAllAvailable() if everything else reader.getDefaultReadLimit()
        end = json.dumps(reader.latestOffset(start, limit))
        if die_at == "planned":
            raise KilledError
        if end == json.dumps(start):
            return False
        self.log.append(end)
        if die_at == "logged":
            raise KilledError
        self._run(reader, die_at)
        return True

    def stop(self) -> None:
        if self._reader is not None:
            self._reader.stop()
            self._reader = None

    def restore(self, batches: int, *, uncommitted: bool) -> None:
        """The checkpoint as it was some batches ago; the first one is the least there can be."""
        self.stop()
        kept = max(1, len(self.log) - batches)
        self.log = self.log[:kept]
        self.committed = min(self.committed, kept)
        if uncommitted and self.committed == kept > 1:
            self.committed -= 1

    def begin_anew(self) -> None:
        self.stop()
        self.log, self.committed = [], 0

    @property
    def offset(self) -> dict[str, Any] | None:
        """Of the last committed batch."""
        return json.loads(self.log[self.committed - 1]) if self.committed else None

    def _opened(self) -> SteppedReader:
        if self._reader is None:
            self._reader = self._open_reader()
            if self.ends_by_itself:
                self._reader.prepareForTriggerAvailableNow()
        return self._reader

    def _run(self, reader: SteppedReader, die_at: str) -> None:
        index = self.committed
        start = json.loads(self.log[index - 1]) if index else reader.initialOffset()
        end = json.loads(self.log[index])
        self._sink(list(self._read(reader, start, end)), index)
        if die_at == "sunk":
            raise KilledError
        self.committed = index + 1
        reader.commit(end)

    def _read(self, reader: SteppedReader, start: dict[str, Any], end: dict[str, Any]) -> Iterator[Record]:
        for partition in reader.partitions(start, end):
            for batch in reader.read(partition):
                columns = (batch.column(name).to_pylist() for name in ("shardId", "sequenceNumber", "data"))
                yield from (Record(*values) for values in zip(*columns, strict=True))

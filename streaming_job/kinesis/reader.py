"""The Spark data source: what Spark calls, and where it runs.

`LakestreamKinesis` is made in short-lived Python processes of the driver. `KinesisStreamReader` lives in one Python
process of the driver as long as the query does; its `read` runs on the executors, on a copy without threads.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import pyarrow as pa
from pyspark.sql.datasource import DataSource, DataSourceStreamReader, InputPartition
from pyspark.sql.streaming.datasource import ReadAllAvailable, ReadLimit, ReadMaxRows, SupportsTriggerAvailableNow
from pyspark.sql.types import StructType

from streaming_job.kinesis.aws import AwsKinesis, connect
from streaming_job.kinesis.backlog import runs
from streaming_job.kinesis.catalog import Catalog
from streaming_job.kinesis.clock import SystemClock
from streaming_job.kinesis.consumers import consumer_arns, deregister
from streaming_job.kinesis.errors import DataLossError, OffsetError, StreamMissingError
from streaming_job.kinesis.fetch import CLOCK_MARGIN_MS, Clock, ShardReader, read_through
from streaming_job.kinesis.offsets import Offset, Position, ShardRef
from streaming_job.kinesis.options import Options, parse_options
from streaming_job.kinesis.prefetch import Prefetcher, fetch_limits
from streaming_job.kinesis.progress import progress_of
from streaming_job.kinesis.rows import SCHEMA, from_ipc, get_ready, to_ipc
from streaming_job.kinesis.shards import StreamInfo, as_known, initial_offset, keeping
from streaming_job.kinesis.spool import Spool, SpooledPartition

START_MS_MAX = 600_000
"""From its beginning to its first look at a shard, a new query takes no longer; later, what was trimmed is a loss."""
assert START_MS_MAX > CLOCK_MARGIN_MS
PAYLOAD_BYTES_MAX = 8 * 1024 * 1024
"""Of one task: Spark sends tasks through its control channel, which refuses messages above 128 MB."""


class BufferedPartition(InputPartition):
    """Rows that the driver has read, as an Arrow stream."""

    def __init__(self, payload: bytes) -> None:
        super().__init__(None)
        self.payload = payload

    def __repr__(self) -> str:
        return f"BufferedPartition({len(self.payload)} bytes)"


@dataclass(repr=True)
class RangePartition(InputPartition):
    """Rows that an executor reads: exactly (start, end] of a shard."""

    ref: ShardRef
    start: Position
    end: Position
    info: StreamInfo
    expected: int = 0
    """About how many records; 0 where nobody knows."""


class KinesisStreamReader(DataSourceStreamReader, SupportsTriggerAvailableNow):
    def __init__(self, options: Options) -> None:
        self._options = options
        self._prefetcher: Prefetcher | None = None
        self._available_now = False

    # On the driver.

    def initialOffset(self) -> dict[str, Any]:  # noqa: N802 - Spark's name
        return self._initial_offset.to_json()

    def getDefaultReadLimit(self) -> ReadLimit:  # noqa: N802 - Spark's name
        return ReadMaxRows(self._options.batch_rows_max)

    def prepareForTriggerAvailableNow(self) -> None:  # noqa: N802 - Spark's name
        self._available_now = True

    def latestOffset(self, start: dict[str, Any], limit: ReadLimit) -> dict[str, Any]:  # noqa: N802 - Spark's name
        begin = Offset.from_json(start)
        accepted = self._accepted(begin)
        if accepted.fresh:
            get_ready()
            return accepted.written().to_json()
        planned = self._running().plan(accepted, self._limits(limit))
        return start if planned == begin else planned.to_json()

    def reportLatestOffset(self) -> dict[str, Any] | None:  # noqa: N802 - Spark's name
        """Not an offset: the one thing of a Python source that Spark shows in a query's progress."""
        return progress_of(self._prefetcher) if self._prefetcher else None

    def partitions(self, start: dict[str, Any], end: dict[str, Any]) -> Sequence[InputPartition]:
        begin, finish = self._accepted(Offset.from_json(start)), Offset.from_json(end)
        positions, infos = begin.positions(), as_known(self._catalog.infos(), begin)
        buffered: list[tuple[RangePartition, list[pa.RecordBatch]]] = []
        ranges: list[InputPartition] = []
        for ref, position in finish.positions().items():
            # A shard that the start does not know was born since: the plan that found it reads it from its beginning.
            before = positions.get(ref, Position.trim_horizon())
            if before.same_place(position) or position.is_unread or _ends_where_it_was(before, position):
                continue
            if self._is_of_another_stream(finish, ref.stream):
                continue
            info = infos[ref.stream]
            segments = self._prefetcher.segments(ref, before, position) if self._prefetcher else None
            if position.first:
                before = replace(before, seen_ms=0)  # the first record proves that none before it is missing
            if segments is None:
                ranges.append(RangePartition(ref, before, position, info))
                continue
            for run in runs(segments):
                range_ = RangePartition(ref, before, run[-1].end, info, sum(s.count for s in run))
                if run[0].rows is None:
                    ranges.append(range_)
                else:
                    buffered.append((range_, [s.rows.to_arrow(ref.stream, ref.shard) for s in run if s.rows]))
                before = run[-1].end
        if self._spool is not None and buffered and not ranges:
            path = self._spool.put([batch for _, batches in buffered for batch in batches])
            if path is not None:
                return [SpooledPartition(path, [range_ for range_, _ in buffered])]
        return [*_packed([batches for _, batches in buffered], self._options.shards_per_task), *ranges]

    def commit(self, end: dict[str, Any]) -> None:
        """The next plan starts at `end` and lets go of what lies before it; nothing to do here."""

    def stop(self) -> None:
        if self._prefetcher:
            self._prefetcher.stop()
            deregister(self._api, self._options, self._prefetcher.consumers.values(), self._clock)
        if self._spool:
            self._spool.close()

    # On the executors.

    def read(self, partition: InputPartition) -> Iterator[pa.RecordBatch]:
        if isinstance(partition, BufferedPartition):
            yield from from_ipc(partition.payload)
        elif isinstance(partition, SpooledPartition):
            for each in partition.ranges:
                yield from self.read(each)
        elif isinstance(partition, RangePartition):
            limits = fetch_limits(self._options, partition.info)
            reader = ShardReader(self._api, partition.ref, partition.start, limits, self._clock)
            try:
                for rows in read_through(reader, partition.end, partition.expected):
                    if rows:
                        yield rows.to_arrow(partition.ref.stream, partition.ref.shard)
            except StreamMissingError as error:
                # The driver has seen the stream as it made the partition: it is the shard that is gone.
                if self._options.fail_on_data_loss:
                    what = f"the shard is no longer in the stream, a planned batch reads it to {partition.end}"
                    raise DataLossError.of(str(partition.ref), what) from error

    # The parts.

    @cached_property
    def _api(self) -> AwsKinesis:
        return connect(self._options)

    @cached_property
    def _clock(self) -> Clock:
        return SystemClock()

    def _new_prefetcher(self, consumers: dict[str, str]) -> Prefetcher:
        return Prefetcher(self._api, self._options, self._catalog, consumers, clock=self._clock)

    @cached_property
    def _catalog(self) -> Catalog:
        options = self._options
        return Catalog(
            self._api,
            options.streams,
            self._clock,
            refresh_ms=options.shards_refresh_ms,
            retry_ms_max=options.retry_ms_max,
        )

    @cached_property
    def _spool(self) -> Spool | None:
        return Spool(self._options.spool_folder) if self._options.spool_folder else None

    @cached_property
    def _initial_offset(self) -> Offset:
        """Spark asks more than once, and `latest` must stay the same."""
        infos = self._catalog.infos()
        return initial_offset(infos.values(), self._catalog.listing(), self._initial_position(infos))

    def __getstate__(self) -> dict[str, Any]:
        """To the executors goes only what `read` needs."""
        return {"_options": self._options, "_prefetcher": None, "_available_now": False}

    def _running(self) -> Prefetcher:
        if self._prefetcher is None:
            consumers = consumer_arns(self._api, self._options, self._catalog.infos().values(), self._clock)
            self._prefetcher = self._new_prefetcher(consumers)
            get_ready()
            if self._available_now:
                self._prefetcher.read_until_now()
        return self._prefetcher

    def _limits(self, limit: ReadLimit) -> tuple[int, int] | None:
        if isinstance(limit, ReadMaxRows):
            return limit.max_rows, self._options.batch_bytes_max
        if isinstance(limit, ReadAllAvailable):
            return None
        return self._options.batch_rows_max, self._options.batch_bytes_max

    def _initial_position(self, infos: dict[str, StreamInfo]) -> Position:
        given, now_ms = self._options.initial_position, self._clock.now_ms()
        # A start before the retention is a wish for all there is. What is about to be trimmed is not asked for, or a
        # query could not begin without a loss.
        asked_from_ms = now_ms - min(info.retention_ms for info in infos.values()) + START_MS_MAX
        if given.kind == "trim_horizon":
            return Position.trim_horizon(seen_ms=asked_from_ms)
        at_ms = now_ms if given.kind == "latest" else given.at_ms
        return Position.at(at_ms, seen_ms=max(at_ms, asked_from_ms))

    def _is_of_another_stream(self, offset: Offset, name: str) -> bool:
        """A batch planned before the stream was made anew, run again after: accepted as lost, nothing to read."""
        return offset.streams[name].created_ms != self._catalog.infos()[name].created_ms

    def _accepted(self, offset: Offset) -> Offset:
        """The offset, if it is one of these streams as they are now."""
        infos = self._catalog.infos()
        unknown, unread = sorted(set(offset.streams) - set(infos)), sorted(set(infos) - set(offset.streams))
        if unknown or unread:
            raise OffsetError(
                f"the checkpoint belongs to {', '.join(sorted(offset.streams))}, "
                f"the option streamName names {', '.join(sorted(infos))}",
                hint="use the streams the checkpoint was made with, or a new checkpoint",
            )
        streams = dict(offset.streams)
        for name, stream in offset.streams.items():
            if stream.created_ms != infos[name].created_ms:
                if self._options.fail_on_data_loss:
                    raise DataLossError.of(
                        name,
                        f"the stream was made anew: the checkpoint is of the one created at {stream.created_ms} ms "
                        f"(since 1970), this one was created at {infos[name].created_ms} ms",
                    )
                anew = initial_offset([infos[name]], self._catalog.listing(), Position.trim_horizon())
                streams[name] = anew.streams[name]
        return keeping(replace(offset, streams=streams), infos, self._clock.now_ms())


def _ends_where_it_was(before: Position, position: Position) -> bool:
    """Closed without another record: there is nothing to read, and of a shard that Kinesis forgot nobody to ask."""
    return position.is_closed and position.sequence == before.sequence


def _packed(buffered: list[list[pa.RecordBatch]], shards_per_task: int) -> Iterator[BufferedPartition]:
    """Few tasks, as each costs more than a small batch's rows, but none with too much to carry."""
    for index in range(0, len(buffered), shards_per_task):
        held: list[pa.RecordBatch] = []
        size = 0
        for batch in (batch for batches in buffered[index : index + shards_per_task] for batch in _sliced(batches)):
            if held and size + batch.nbytes > PAYLOAD_BYTES_MAX:
                yield BufferedPartition(to_ipc(held))
                held, size = [], 0
            held.append(batch)
            size += batch.nbytes
        if held:
            yield BufferedPartition(to_ipc(held))


def _sliced(batches: list[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    for batch in batches:
        parts = max(1, -(-batch.nbytes // PAYLOAD_BYTES_MAX))
        rows = max(1, -(-batch.num_rows // parts))
        for begin in range(0, batch.num_rows, rows):
            yield batch.slice(begin, rows)


class LakestreamKinesis(DataSource):
    """`spark.dataSource.register(LakestreamKinesis)`, then `spark.readStream.format("lakestream_kinesis")`."""

    @classmethod
    def name(cls) -> str:
        return "lakestream_kinesis"

    def schema(self) -> str:
        parse_options(self.options)
        return SCHEMA

    def streamReader(self, schema: StructType) -> DataSourceStreamReader:  # noqa: N802, ARG002 - Spark's signature
        return KinesisStreamReader(parse_options(self.options))

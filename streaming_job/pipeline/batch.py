"""A batch from the source's rows to committed tables, in numbered steps. Each may be run again after a crash."""

import math
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from hashlib import sha256
from types import TracebackType
from typing import Any, Final, Protocol, Self

import pyarrow as pa
from pyspark.errors import PySparkException
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F  # noqa: N812 - as everybody calls it
from pyspark.sql.pandas.types import from_arrow_schema

from config.settings import Settings
from config.tables import TableConfig
from streaming_job.pipeline import dedupe, rejects
from streaming_job.pipeline.arrow import pc
from streaming_job.pipeline.assembly import Assembly
from streaming_job.pipeline.changes import SCHEMA, SOURCE
from streaming_job.pipeline.decode import Decoder
from streaming_job.pipeline.lane import TableReport
from streaming_job.pipeline.lease import Clock, Owner
from streaming_job.pipeline.steps import AfterStep, Step, Stopwatch, go_on
from streaming_job.pipeline.table_lanes import TableLanes

_NAME_CHARS_MAX: Final = 2_000


def now_ms() -> int:
    return time.time_ns() // 1_000_000


class LatencySink(Protocol):
    def record(self, clocks: pa.Table, *, table: str, batch: str, batch_start_ms: int, commit_ms: int) -> None:
        """One table's changes of one batch; `batch` names it by the positions it ends at.

        Changes with a `commit_ms` of their own could be queried from then on, the others when all were committed.
        """


@dataclass
class BatchReport:
    batch_id: int
    rows: int = 0
    rejects: int = 0
    steps_ms: dict[str, float] = field(default_factory=dict)
    tables: dict[str, TableReport] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        return asdict(replace(self, tables={name: replace(table, first=None) for name, table in self.tables.items()}))

    def spend(self, steps_ms: Mapping[str, float]) -> None:
        for step, spent in steps_ms.items():
            self.steps_ms[step] = round(self.steps_ms.get(step, 0.0) + spent, 1)


class Pipeline:
    """Every source table's lane, side by side. Enter it to open the tables and take their leases."""

    def __init__(
        self,
        spark: SparkSession,
        settings: Settings,
        tables: Mapping[str, TableConfig],
        latency: LatencySink,
        clock: Clock = now_ms,
        *,
        owner: Owner | None = None,
        after_step: AfterStep = go_on,
    ) -> None:
        self._settings = settings
        self._tables = dict(tables)
        self._latency = latency
        self._clock = clock
        self._after_step = after_step
        owner = owner or Owner.here(f"job {settings.lake.checkpoint}")
        self._assembly = Assembly(spark, settings, self._tables, owner=owner, clock=clock, after_step=after_step)
        self._lanes: dict[str, TableLanes] = {}
        self._pool = ThreadPoolExecutor(settings.pipeline.parallel_tables, thread_name_prefix="table")

    def __enter__(self) -> Self:
        for name, config in self._tables.items():
            self._lanes[name] = self._assembly.lanes(config)
        try:
            list(self._pool.map(TableLanes.open, self._lanes.values()))
        except BaseException:
            # A start that is refused leaves no lease behind with the tables it had opened.
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._pool.shutdown()
        for lane in self._lanes.values():
            lane.close()
        self._assembly.close()

    def process_batch(self, batch: DataFrame | pa.Table, batch_id: int, *, repair: bool = False) -> BatchReport:
        """Everything of this batch, rows of a source, into the tables; returns when all is committed or parked."""
        report = BatchReport(batch_id)
        for changes in self._read(batch, report):
            self._process(changes, report, repair=repair)
        return report

    def between_batches(self) -> dict[str, TableReport]:
        """Leases renewed, parked changes drained when due, one piece of upkeep when the budget has room.

        Gives a report for each table that tried to drain.
        """
        drained = {name: report for name, lane in self._lanes.items() if (report := lane.between_batches())}
        self._assembly.tend()
        return drained

    def _process(self, changes: pa.Table, report: BatchReport, *, repair: bool) -> None:
        start_ms, watch = self._clock(), Stopwatch(self._after_step)
        report.rows += changes.num_rows
        # 2. Rejects are kept first. A crash here: they are found by their position when the batch is run again.
        with watch.step(Step.REJECTS):
            good, rejected = rejects.split(changes)
            report.rejects += self._assembly.write_rejects(rejected)
        # 3. Each change once, for whatever was delivered twice. A crash here leaves what step 2 left.
        with watch.step(Step.DUPLICATES):
            unique = dedupe.once(good)
        report.spend(watch.spent_ms)
        # 4. Each table by itself, side by side: see TableWriter.write for its steps and what a crash after each leaves.
        done = self._run_lanes(good, unique, report, repair=repair)
        # 5. Latency last: it measures what can be queried. A crash here: the batch's name keeps it from counting twice.
        watch = Stopwatch(self._after_step)
        with watch.step(Step.LATENCY):
            name = batch_name(changes)
            for table, (part, commit_ms) in done.items():
                self._latency.record(part, table=table, batch=name, batch_start_ms=start_ms, commit_ms=commit_ms)
        report.spend(watch.spent_ms)

    def _read(self, batch: DataFrame | pa.Table, report: BatchReport) -> Iterator[pa.Table]:
        """1. Decode: the source is read exactly once. A crash here leaves nothing."""
        watch = Stopwatch(self._after_step)
        with watch.step(Step.DECODE):
            if isinstance(batch, pa.Table):
                slices = iter([self._assembly.decoder.changes(batch)])
            elif is_bounded(self._settings):
                slices = iter([self._assembly.decoder.changes(batch.select(*SOURCE).toArrow())])
            else:
                slices = cut(batch.select(*SOURCE), self._assembly.decoded_by, self._settings.pipeline.slice_bytes_max)
        report.spend(watch.spent_ms)
        for changes in slices:
            if changes.num_rows:
                yield changes

    def _run_lanes(
        self, good: pa.Table, unique: pa.Table, report: BatchReport, *, repair: bool
    ) -> dict[str, tuple[pa.Table, int]]:
        """Each table's changes that were committed, and when."""
        parts = {table: dedupe.of_table(unique, table) for table in pc.unique(unique["table"]).to_pylist()}

        def run(table: str) -> TableReport:
            return self._lanes[table].run(parts[table], repair=repair)

        outcomes = [run(table) for table in parts] if len(parts) == 1 else self._pool.map(run, parts)
        done: dict[str, tuple[pa.Table, int]] = {}
        for table, outcome in zip(parts, outcomes, strict=True):
            outcome.duplicates = _came_again(outcome, dedupe.count_of_table(good, table))
            report.tables[table] = outcome
            report.rejects += outcome.late_rejects
            report.spend(outcome.steps_ms)
            if outcome.commit_ms is not None and outcome.failure is None:
                done[table] = (_with_commits(parts[table], outcome), outcome.commit_ms)
        return done


def _came_again(report: TableReport, delivered: int) -> int:
    """How many of a table's changes history had already.

    Where some were parked or refused, what history did not take in may be new: only what came twice at once is known.
    """
    twice = delivered - report.changes
    if report.commit_ms is None or report.failure is not None or report.refused or report.drained:
        return twice
    return max(twice, delivered - report.history_inserted - report.late_rejects)


def _with_commits(changes: pa.Table, report: TableReport) -> pa.Table:
    """With the time from which each can be queried, where some could be before the others."""
    if report.first is None:
        return changes
    is_first = pc.is_in(changes["key"], report.first.keys)
    return changes.append_column("commit_ms", pc.if_else(is_first, report.first.commit_ms, report.commit_ms))


def is_bounded(settings: Settings) -> bool:
    """Our own source ends a batch at its bounds; the platform's may hand over any amount."""
    source = settings.source
    return source.connector == "lakestream" and source.batch_bytes_max <= settings.pipeline.slice_bytes_max


def cut(rows: DataFrame, tables: Mapping[str, TableConfig], bytes_max: int) -> Iterator[pa.Table]:
    """A batch of unknown size, decoded where its rows are, kept by Spark and handed over in slices by key.

    All of a key's changes are in one slice.
    """

    def decoded(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        decoder = Decoder(tables)
        for batch in batches:
            yield from decoder.changes(pa.Table.from_batches([batch])).to_batches()

    changes = rows.mapInArrow(decoded, from_arrow_schema(SCHEMA))
    try:
        changes.persist()
    except PySparkException:
        # Serverless compute keeps nothing between queries; there the source's own bounds must do.
        yield changes.toArrow().cast(SCHEMA)
        return
    try:
        lengths = [F.coalesce(F.length(name), F.lit(0)) for name in ("new", "old", "data", "key", "types")]
        total = changes.agg(F.sum(sum(lengths, F.lit(500)))).collect()[0][0] or 0
        slices = max(1, math.ceil(total / bytes_max))
        position = F.when(F.col("reject").isNotNull(), F.col("kinesis_seq"))
        number = F.pmod(F.xxhash64("table", "key", position), F.lit(slices))
        for slice_ in range(slices):
            yield changes.where(number == slice_).toArrow().cast(SCHEMA)
    finally:
        changes.unpersist()


def batch_name(changes: pa.Table) -> str:
    """The positions a batch ends at: a batch run again has the same name, whatever number Spark gives it."""
    shard = pc.binary_join_element_wise(changes["stream"], changes["shard"], "/")
    positions = pa.table({"shard": shard, "at": pc.utf8_lpad(changes["kinesis_seq"], 64, "0")})
    spans = positions.group_by("shard").aggregate([("at", "min"), ("at", "max")]).sort_by("shard").to_pylist()
    name = " ".join(f"{span['shard']}:{span['at_min'].lstrip('0')}-{span['at_max'].lstrip('0')}" for span in spans)
    # Of an archive a batch may hold a thousand objects.
    return name if len(name) <= _NAME_CHARS_MAX else sha256(name.encode()).hexdigest()

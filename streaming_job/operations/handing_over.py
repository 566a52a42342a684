"""The command's end of the intake: work is handed over and waited for; where no job takes it in, the command does."""

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from types import TracebackType
from typing import Final, Self

from deltalake import DeltaTable
from pyspark.sql import SparkSession

from config.errors import LakestreamError
from config.settings import IntakeSettings, Settings
from config.tables import TableConfig
from streaming_job.errors import LeaseHeldError
from streaming_job.pipeline.batch import Pipeline, now_ms
from streaming_job.pipeline.intake import HandOver, Intake, Receipt
from streaming_job.pipeline.intake_drain import Drain, PausableLatency, taking_in
from streaming_job.pipeline.lease import Clock, Owner, holder_of
from streaming_job.pipeline.locations import Lake, Location
from streaming_job.pipeline.opening import Tables, storage_options
from streaming_job.spark import spark_session

INTERRUPTED: Final = 130
_LOOK_EVERY_S: Final = 0.5
_PAUSE_S: Final = 0.02


class WithdrawnError(LakestreamError):
    """Interrupted: what was not taken in yet is withdrawn, what was is in the lake and harmless there."""

    exit_code = INTERRUPTED


class NotTakenInError(LakestreamError):
    """A piece could not be read or written; the others are in the lake."""


@dataclass(frozen=True)
class Total:
    """All receipts of one id."""

    pieces: int = 0
    rows: int = 0
    rejects: int = 0
    history_inserted: int = 0
    current_inserted: int = 0
    current_updated: int = 0
    parked: int = 0
    failures: Mapping[str, str] = field(default_factory=dict)
    """By piece."""

    @classmethod
    def of(cls, receipts: Mapping[str, Receipt]) -> "Total":
        def summed(name: str) -> int:
            return sum(getattr(receipt, name) for receipt in receipts.values())

        return cls(
            pieces=len(receipts),
            rows=summed("rows"),
            rejects=summed("rejects"),
            history_inserted=summed("history_inserted"),
            current_inserted=summed("current_inserted"),
            current_updated=summed("current_updated"),
            parked=summed("parked"),
            failures={name: receipt.failure for name, receipt in receipts.items() if receipt.failure is not None},
        )


@dataclass(frozen=True)
class Standing:
    """For a progress display."""

    handed_over: int
    """Pieces so far."""
    taken_in: int
    writer: Owner | None
    """Who takes them in; None: this command is about to."""


Show = Callable[[Standing], None]


class Delivery:
    """All that one command hands over under one id. Left early, whatever was not taken in is withdrawn.

    with Delivery(settings, tables, intake, "pull-7", name="lakestream pull", show=show) as delivery:
        delivery.hand_over(work)       # as often as there is something
        total = delivery.wait()        # by the job, or, where none holds the tables, by a pipeline of our own
    """

    def __init__(
        self,
        settings: Settings,
        tables: Mapping[str, TableConfig],
        intake: Intake,
        of_id: str,
        *,
        name: str,
        hint: str = "run it again: what is in the lake already does not change",
        show: Show = lambda _: None,
        spark: SparkSession | None = None,
        clock: Clock = now_ms,
    ) -> None:
        """`spark`: a session the command has already; without one, one is started when it is needed."""
        self._settings = settings
        self._tables = dict(tables)
        self._intake = intake
        self._id = of_id
        self._name = name
        self._hint = hint
        self._show = show
        self._pieces: set[str] = set()
        self._parts = 0
        self._cleanup = ExitStack()
        self._session = spark
        self._clock = clock
        self._handles: dict[str, DeltaTable] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._cleanup.close()
        if error is None:
            return
        self._intake.withdraw(self._id)
        if isinstance(error, KeyboardInterrupt):
            done = len(self._intake.done(self._id) & self._pieces)
            raise WithdrawnError(
                f"interrupted: {done} of {len(self._pieces)} pieces are in the lake, the rest was withdrawn",
                hint=self._hint,
            ) from None

    def expect(self, pieces: Sequence[str]) -> list[str]:
        """Of what an earlier run wrote: all of it counts; what was not taken in then is to be handed over again."""
        self._pieces.update(pieces)
        done = self._intake.done(self._id)
        return [piece for piece in pieces if piece not in done]

    @property
    def id(self) -> str:
        return self._id

    @property
    def parts(self) -> int:
        """How often something was handed over so far."""
        return self._parts

    def hand_over(self, work: HandOver) -> None:
        self._parts += 1
        self._pieces.update(piece.name for piece in work.pieces)
        self._intake.hand_over(work)

    def standing(self) -> Standing:
        return self._standing(self._writer())

    def wait(self) -> Total:
        """Until every piece has its receipt; then the receipts go, and NotTakenInError says what failed."""
        while True:
            standing = self.standing()
            self._show(standing)
            if standing.taken_in == standing.handed_over:
                return self._told()
            if standing.writer is None:
                self._be_the_writer()
            else:
                time.sleep(_LOOK_EVERY_S)

    def _standing(self, writer: Owner | None) -> Standing:
        return Standing(len(self._pieces), len(self._pieces & self._intake.done(self._id)), writer)

    def _told(self) -> Total:
        total = Total.of(self._intake.receipts(self._id))
        self._intake.forget(self._id)
        self._pieces.clear()
        if total.failures:
            name, why = min(total.failures.items())
            kept = f"; {total.parked:,} rows are parked and follow when their table is mended" if total.parked else ""
            raise NotTakenInError(
                f"{len(total.failures)} of {total.pieces} pieces were not taken in whole, {name}: {why}{kept}",
                hint=f"mend it, then {self._hint}",
            )
        return total

    # --- where no job runs --------------------------------------------------------------------------------------------

    def _be_the_writer(self) -> None:
        """A pipeline of our own until all of ours is taken in; given up when a job was faster to take the tables."""
        latency, owner, spark = PausableLatency(), Owner.here(self._name), self._spark()
        pipeline = Pipeline(spark, self._settings, self._tables, latency, self._clock, owner=owner)
        try:
            pipeline.__enter__()
        except LeaseHeldError:
            return
        try:
            drain = Drain(self._intake, self._tables, taking_in(pipeline, latency), self._slices())
            standing = self._standing(owner)
            while standing.taken_in < standing.handed_over:
                # Receipts are listed where a piece may have ended, not at each of its slices.
                if drain.step(is_quiet=True) is None:
                    time.sleep(_PAUSE_S)
                    standing = self._standing(owner)
                    self._show(standing)
                pipeline.between_batches()
        finally:
            pipeline.close()

    def _slices(self) -> IntakeSettings:
        """No stream waits for us."""
        source = self._settings.source
        return self._settings.intake.model_copy(
            update={"slice_rows_max": source.batch_rows_max, "slice_bytes_max": source.batch_bytes_max}
        )

    def _writer(self) -> Owner | None:
        at_ms, lake = self._clock(), Lake(self._settings.lake)
        for table in self._tables.values():
            places = lake.of(table)
            # A table that is lost is written by its rebuild alone.
            properties = self._properties(places.current) or self._properties(places.rebuilt)
            holder = holder_of(properties, at_ms)
            if holder is not None:
                return holder
        return None

    def _properties(self, location: Location) -> dict[str, str]:
        if location.path is not None:
            return self._properties_by_path(location.path)
        return Tables(self._settings, self._spark).properties(location)

    def _spark(self) -> SparkSession:
        if self._session is None:
            self._session = self._cleanup.enter_context(spark_session(self._name, self._settings.spark))
        return self._session

    def _properties_by_path(self, path: str) -> dict[str, str]:
        """A table is opened once, and asked for what was committed since."""
        storage = storage_options(self._settings, path)
        if path not in self._handles:
            if not DeltaTable.is_deltatable(path, storage):
                return {}
            self._handles[path] = DeltaTable(path, storage_options=storage)
        self._handles[path].update_incremental()
        return dict(self._handles[path].metadata().configuration)

"""The writer's end of the intake: pieces that wait become batches, a slice at a time, between the stream's own."""

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final, Protocol

import pyarrow as pa
from pydantic import ValidationError

from config.settings import IntakeSettings
from config.tables import TableConfig
from streaming_job.errors import StopJobError
from streaming_job.pipeline.batch import BatchReport, LatencySink, Pipeline
from streaming_job.pipeline.intake import HandOver, Intake, Piece, Receipt
from streaming_job.pipeline.intake_rows import UnreadablePieceError, slices
from streaming_job.pipeline.intake_store import IntakeUnreachableError

log = logging.getLogger("lakestream.intake")

_TRIES: Final = 3
_RETRY_AFTER_S: Final = 5.0
_BATCH: Final = -1
"""Spark numbers the stream's batches; what is handed over has none."""


class TakeIn(Protocol):
    def __call__(self, rows: pa.Table, *, repair: bool) -> BatchReport:
        """Rows in the source's shape into the tables."""


class PausableLatency:
    """The stream's changes are measured; what is handed over happened long ago and would spoil the figures.

    Without a sink nothing is measured.
    """

    def __init__(self, sink: LatencySink | None = None) -> None:
        self._sink = sink
        self._is_paused = False

    def record(self, clocks: pa.Table, *, table: str, batch: str, batch_start_ms: int, commit_ms: int) -> None:
        if self._sink is not None and not self._is_paused:
            self._sink.record(clocks, table=table, batch=batch, batch_start_ms=batch_start_ms, commit_ms=commit_ms)

    @contextmanager
    def paused(self) -> Iterator[None]:
        self._is_paused = True
        try:
            yield
        finally:
            self._is_paused = False


def taking_in(pipeline: Pipeline, latency: PausableLatency) -> TakeIn:
    def take_in(rows: pa.Table, *, repair: bool) -> BatchReport:
        with latency.paused():
            return pipeline.process_batch(rows, _BATCH, repair=repair)

    return take_in


@dataclass
class _Work:
    """The hand-over in hand, and where it stands."""

    hand_over: HandOver
    done: set[str]
    piece: Piece | None = None
    slices: Iterator[pa.Table] = field(default_factory=lambda: iter(()))
    again: pa.Table | None = None
    """A slice that could not be taken in."""
    tries: int = 0
    totals: dict[str, int] = field(default_factory=dict)
    failure: str | None = None


class Drain:
    """Only ever called by the tables' writer, between batches."""

    def __init__(
        self,
        intake: Intake,
        tables: Mapping[str, TableConfig],
        take_in: TakeIn,
        settings: IntakeSettings,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._intake = intake
        self._tables = frozenset(tables)
        self._take_in = take_in
        self._settings = settings
        self._clock = clock
        self._not_before = 0.0
        self._streams_turn_until = 0.0
        self._work: _Work | None = None

    def is_due(self, *, is_quiet: bool) -> bool:
        """Time to look, or to go on. While the stream has batches, they get their share of the time."""
        return self._clock() >= (self._not_before if is_quiet else max(self._not_before, self._streams_turn_until))

    def step(self, *, is_quiet: bool) -> BatchReport | None:
        """One slice, if one waits and it is time; what came of it."""
        if not self.is_due(is_quiet=is_quiet):
            return None
        try:
            work = self._work = self._work or self._oldest()
            if work is None:
                self._not_before = self._clock() + self._settings.look_every_s
                return None
            return self._go_on(work)
        except IntakeUnreachableError as error:
            self._not_before = self._clock() + self._settings.look_every_s
            log.warning("handed-over work cannot be reached; it waits", extra={"reason": str(error)})
            return None

    def _oldest(self) -> _Work | None:
        """The first hand-over that is for our tables."""
        for place in self._intake.waiting():
            try:
                hand_over = self._intake.open(place)
            except ValidationError as error:
                log.error("put aside: no hand-over of ours", extra={"place": place, "reason": str(error)})  # noqa: TRY400
                continue
            if hand_over is not None and self._tables.issuperset(hand_over.tables):
                log.info("taking in", extra={"id": hand_over.id, "what": hand_over.what})
                return _Work(hand_over, self._intake.done(hand_over.id))
        return None

    def _go_on(self, work: _Work) -> BatchReport | None:
        if work.piece is None and not self._begin_piece(work):
            self._work = None
            return None
        try:
            rows = work.again if work.again is not None else next(work.slices, None)
        except UnreadablePieceError as error:
            work.failure, rows = str(error), None
        if rows is None:
            self._finish_piece(work)
            return None
        return self._slice(work, rows)

    def _begin_piece(self, work: _Work) -> bool:
        """False where nothing of it is left, or the rest was withdrawn."""
        piece = next((piece for piece in work.hand_over.pieces if piece.name not in work.done), None)
        if piece is None:
            # All have receipts: the writer before us was cut off before it could close it.
            self._intake.close(work.hand_over)
            return False
        if not self._intake.is_waiting(work.hand_over):
            return False
        work.piece, work.totals, work.failure = piece, {}, None
        work.slices = self._slices(work.hand_over, piece)
        return True

    def _slices(self, hand_over: HandOver, piece: Piece) -> Iterator[pa.Table]:
        try:
            body = self._intake.read(piece)
        except IntakeUnreachableError as error:
            # The manifest could be read a moment ago: it is this object that cannot.
            raise UnreadablePieceError(str(error)) from error
        settings = self._settings
        yield from slices(hand_over, piece, body, rows_max=settings.slice_rows_max, bytes_max=settings.slice_bytes_max)

    def _slice(self, work: _Work, rows: pa.Table) -> BatchReport | None:
        began = self._clock()
        try:
            report = self._take_in(rows, repair=work.hand_over.repair)
        except StopJobError:
            raise
        except Exception as error:  # noqa: BLE001 - a piece that cannot be taken in must not stop the stream
            self._failed(work, rows, error)
            return None
        work.again, work.tries = None, 0
        _add(work, report)
        ended = self._clock()
        self._streams_turn_until = ended + (ended - began) * (1 / self._settings.share_max - 1)
        return report

    def _failed(self, work: _Work, rows: pa.Table, error: Exception) -> None:
        work.tries += 1
        reason = f"{type(error).__name__}: {error}"
        log.warning("a slice was not taken in", extra={"id": work.hand_over.id, "try": work.tries, "reason": reason})
        if work.tries < _TRIES:
            work.again = rows
            self._not_before = self._clock() + _RETRY_AFTER_S * work.tries
        else:
            work.again, work.failure = None, reason
            self._finish_piece(work)

    def _finish_piece(self, work: _Work) -> None:
        piece = work.piece
        if piece is None:
            return
        receipt = Receipt(piece=piece.name, failure=work.failure, **work.totals)
        self._intake.finish(work.hand_over, piece, receipt)
        work.done.add(piece.name)
        work.piece = None
        if all(piece.name in work.done for piece in work.hand_over.pieces):
            self._intake.close(work.hand_over)
            self._work = None
        log.info("taken in", extra={"id": work.hand_over.id, "receipt": receipt.model_dump()})


def _add(work: _Work, report: BatchReport) -> None:
    totals = work.totals
    totals["rows"] = totals.get("rows", 0) + report.rows
    totals["rejects"] = totals.get("rejects", 0) + report.rejects
    for table in report.tables.values():
        for name in ("history_inserted", "current_inserted", "current_updated"):
            totals[name] = totals.get(name, 0) + getattr(table, name)
        if table.commit_ms is None:
            totals["parked"] = totals.get("parked", 0) + table.changes
        work.failure = table.failure or work.failure

"""One source table's lane through a batch: written, or parked and drained in order when it is mended."""

import logging
from collections.abc import Callable
from dataclasses import dataclass, field

import pyarrow as pa

from streaming_job.errors import StopJobError
from streaming_job.pipeline.changes import SCHEMA
from streaming_job.pipeline.lease import Clock, Lease
from streaming_job.pipeline.parking import Parking
from streaming_job.pipeline.steps import AfterStep, Step, Stopwatch
from streaming_job.pipeline.writer import First, TableWriter, Written

log = logging.getLogger("lakestream.pipeline")


@dataclass
class TableReport:
    """One table's part of a batch."""

    changes: int = 0
    duplicates: int = 0
    history_inserted: int = 0
    current_inserted: int = 0
    current_updated: int = 0
    rescued: int = 0
    late_rejects: int = 0
    columns_added: tuple[str, ...] = ()
    parked: int = 0
    """How many of its changes are parked now, of whatever batch."""
    refused: int = 0
    """How many wait for the rules to say where their stream stands, of whatever batch."""
    is_unproven: bool = False
    drained: int = 0
    failure: str | None = None
    commit_ms: int | None = None
    first: First | None = None
    steps_ms: dict[str, float] = field(default_factory=dict)

    def take_in(self, written: Written) -> None:
        self.history_inserted += written.history_inserted
        self.current_inserted += written.current_inserted
        self.current_updated += written.current_updated
        self.rescued += written.rescued
        self.columns_added += written.columns_added
        self.commit_ms, self.first = written.commit_ms, written.first


class Backoff:
    """When to try a failing table again: at once, then at doubling distances."""

    def __init__(self, clock: Clock, *, max_s: int) -> None:
        self._clock = clock
        self._max_ms = max_s * 1000
        self._wait_ms = 0
        self._next_ms = 0

    def is_due(self) -> bool:
        return self._clock() >= self._next_ms

    def failed(self) -> None:
        self._next_ms = self._clock() + self._wait_ms
        self._wait_ms = min(max(1_000, self._wait_ms * 2), self._max_ms)

    def worked(self) -> None:
        self._wait_ms = self._next_ms = 0


class TableLane:
    def __init__(
        self,
        table: str,
        open_writer: Callable[[], TableWriter],
        parking: Parking,
        *,
        write_rejects: Callable[[pa.Table], int],
        clock: Clock,
        retry_s_max: int,
        after_step: AfterStep,
    ) -> None:
        self.table = table
        self._open_writer = open_writer
        self._writer: TableWriter | None = None
        self._parking = parking
        self._write_rejects = write_rejects
        self._clock = clock
        self._backoff = Backoff(clock, max_s=retry_s_max)
        self._renewal = Backoff(clock, max_s=retry_s_max)
        self._after_step = after_step

    @property
    def writer(self) -> TableWriter | None:
        """None as long as the table could not be opened."""
        return self._writer

    @property
    def parked(self) -> int:
        return self._parking.count

    def open(self) -> str | None:
        """What must stop the job stops it here; any other trouble of this table is met when its changes come."""
        try:
            self._opened()
        except StopJobError:
            raise
        except Exception as error:  # noqa: BLE001 - one table's trouble, of whatever kind, does not hold the others
            return self._trouble(error)
        return None

    def run(self, changes: pa.Table, *, repair: bool = False) -> TableReport:
        report = TableReport(changes=changes.num_rows)
        watch = Stopwatch(self._after_step)
        if self._drain(watch, report) and changes.num_rows:
            self._write_or_park(changes, watch, report, repair=repair)
        elif changes.num_rows:
            self._park(changes, report.failure or "earlier changes of the table are parked", watch)
        report.parked = self._parking.count
        if self._writer is not None:
            report.refused = self._writer.parts.refused.count
            report.is_unproven = self._writer.parts.order.is_unproven
        report.steps_ms = watch.spent_ms
        return report

    def between_batches(self) -> TableReport | None:
        """The lease kept alive; parked changes drained when it is time to try again, whether or not new ones come."""
        if self._writer is not None and self._renewal.is_due():
            self._renew(self._writer.parts.lease)
        if self._parking.count and self._backoff.is_due():
            return self.run(SCHEMA.empty_table())
        return None

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer.parts.lease.release()

    def _renew(self, lease: Lease) -> None:
        try:
            lease.renew_when_due()
        except StopJobError:
            raise
        except Exception as error:  # noqa: BLE001 - one table's trouble, of whatever kind, does not hold the others
            self._renewal.failed()
            self._trouble(error)
        else:
            self._renewal.worked()

    def _opened(self) -> TableWriter:
        if self._writer is None:
            self._writer = self._open_writer()
        return self._writer

    def _drain(self, watch: Stopwatch, report: TableReport) -> bool:
        """True when nothing is parked any more, so that what comes now may be written."""
        if self._parking.count and not self._backoff.is_due():
            return False
        # What another writer parked is known once the table is ours.
        report.failure = self.open()
        if report.failure is not None:
            return False
        if not self._parking.count:
            return True
        with watch.step(Step.DRAIN):
            while self._parking.count:
                ticket, changes = self._parking.oldest()
                failure = self._try(changes, watch, report, repair=False)
                if failure is not None:
                    return False
                self._parking.remove(ticket)
                report.drained += changes.num_rows
        log.warning("parked changes are drained", extra={"table": self.table, "changes": report.drained})
        return True

    def _write_or_park(self, changes: pa.Table, watch: Stopwatch, report: TableReport, *, repair: bool) -> None:
        failure = self._try(changes, watch, report, repair=repair)
        if failure is not None:
            self._park(changes, failure, watch)

    def _park(self, changes: pa.Table, why: str, watch: Stopwatch) -> None:
        with watch.step(Step.PARK):
            # A crash here: the batch is run again and parks nothing twice. Cannot it be parked, the batch fails.
            self._parking.add(changes, why, self._clock())

    def _try(self, changes: pa.Table, watch: Stopwatch, report: TableReport, *, repair: bool) -> str | None:
        try:
            writer = self._opened()
            writer.parts.lease.renew_when_due()
            written = writer.write(changes, watch, repair=repair)
            for rejects in written.late_rejects:
                report.late_rejects += self._write_rejects(rejects)
        except StopJobError:
            raise
        except Exception as error:  # noqa: BLE001 - one table's trouble, of whatever kind, does not hold the others
            report.failure = self._trouble(error)
            return report.failure
        self._backoff.worked()
        report.take_in(written)
        return None

    def _trouble(self, error: Exception) -> str:
        self._backoff.failed()
        failure = f"{type(error).__name__}: {error}"
        log.error(
            "table cannot be written; its changes are parked, the other tables go on",
            extra={"table": self.table, "reason": failure[:2_000]},
        )
        return failure

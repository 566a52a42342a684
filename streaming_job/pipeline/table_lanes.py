"""A table's lane and, while the table is rebuilt, that of the new one beside it: both get every change.

The new table is found by what stands in it (`rebuild`), when the job opens its tables and when somebody says that there
is one (`requests`). The two lanes share `history` and nothing else; trouble of the one does not hold the other. Once
the new table is found equal it is promoted here, between two batches, by the one who may write to both.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final, Protocol

import pyarrow as pa

from config.tables import TableConfig
from streaming_job.errors import StopJobError
from streaming_job.pipeline.lane import TableLane, TableReport
from streaming_job.pipeline.lease import Clock
from streaming_job.pipeline.merge import LakeTable
from streaming_job.pipeline.rebuild import Rebuild, State
from streaming_job.pipeline.requests import MAINTAIN, REBUILD, Desk

log = logging.getLogger("lakestream.rebuild")

_LOOK_EVERY_MS: Final = 5_000


class LaneMaker(Protocol):
    """What the lanes are made of."""

    def rebuild_of(self, config: TableConfig) -> Rebuild | None: ...

    def is_lost(self, config: TableConfig) -> bool:
        """`current` is gone and `history` is not: no new one may be made in its place but by a rebuild."""

    def lane(self, config: TableConfig, *, is_rebuilt: bool) -> TableLane: ...

    def lane_beside(self, config: TableConfig) -> TableLane:
        """Of the table that is built beside."""

    def promote(self, config: TableConfig, rebuild: Rebuild, new: LakeTable, old: TableLane | None) -> None:
        """The old table becomes the new one; whoever reads it sees the one or the other."""

    def let_go(self, config: TableConfig, *, beside: bool) -> None:
        """No upkeep of it any more."""

    def maintain(self, table: str, answer: LakeTable, asked_ms: int) -> None: ...


@dataclass
class _New:
    """The table that is built beside."""

    rebuild: Rebuild
    lane: TableLane
    next_look_ms: int = 0

    @property
    def table(self) -> LakeTable | None:
        return self.lane.writer.parts.current if self.lane.writer is not None else None


class TableLanes:
    def __init__(self, config: TableConfig, maker: LaneMaker, clock: Clock) -> None:
        self._config = config
        self._maker = maker
        self._clock = clock
        self._old: TableLane | None = None
        """None while the table is lost: then the new one alone is written."""
        self._new: _New | None = None
        self._desk: Desk | None = None
        self._looks_again = False
        """Whether there is a new table could not be told."""

    def open(self) -> None:
        """What must stop the job stops it here; any other trouble of a table is met when its changes come."""
        self._try(self._begin)
        if self._new is None or not self._maker.is_lost(self._config):
            self._open_old()
            # While the lease was waited for, whoever held it may have been told of a new table.
            self._try(self._begin)
        self._try(self._settle)

    def run(self, changes: pa.Table, *, repair: bool = False) -> TableReport:
        reports = [lane.run(changes, repair=repair) for lane in self._lanes()]
        return reports[0]

    def between_batches(self) -> TableReport | None:
        """Leases kept alive, parked changes drained; requests looked for; a rebuild taken a step further."""
        reports = [lane.between_batches() for lane in self._lanes()]
        if self._looks_again:
            self._try(self._begin)
        self._try(self._look_for_requests)
        self._try(self._settle)
        return reports[0]

    def close(self) -> None:
        for lane in self._lanes():
            lane.close()

    def _lanes(self) -> list[TableLane]:
        """The old one first: its report is the table's."""
        return [lane for lane in (self._old, self._new.lane if self._new else None) if lane is not None]

    def _try(self, step: Callable[[], None]) -> None:
        """A rebuild's trouble is its own: the table goes on, and the step is tried again at the next pause."""
        try:
            step()
        except StopJobError:
            raise
        except Exception as error:
            self._looks_again = True
            log.exception("a step of the rebuild failed", extra={"table": self._config.table, "reason": str(error)})

    def _open_old(self) -> None:
        self._old = self._maker.lane(self._config, is_rebuilt=self._new is not None)
        self._old.open()
        self._desk = None

    def _look_for_requests(self) -> None:
        writer = self._old.writer if self._old is not None else None
        if writer is None:
            return
        self._desk = self._desk or Desk(writer.parts.current, self._clock)
        asked = self._desk.look()
        if MAINTAIN in asked:
            self._maker.maintain(self._config.table, writer.parts.current, asked[MAINTAIN])
        if REBUILD in asked:
            self._begin()

    # --- the new table ------------------------------------------------------------------------------------------------

    def _begin(self) -> None:
        """From now on every change goes to the new table too, where there is one."""
        rebuild = self._maker.rebuild_of(self._config)
        self._looks_again = False
        if self._new is not None and (rebuild is None or rebuild.number != self._new.rebuild.number):
            self._give_up("it is gone")
        if self._new is None and rebuild is not None and not rebuild.is_over:
            lane = self._maker.lane_beside(self._ruled_by(rebuild))
            lane.open()
            self._new = _New(rebuild, lane)
            log.info("writing both tables", extra={"table": self._config.table, "rebuild": rebuild.number})

    def _settle(self) -> None:
        """Whatever was decided about the new table."""
        new = self._new
        if new is None or new.table is None or self._clock() < new.next_look_ms:
            return
        new.next_look_ms = self._clock() + _LOOK_EVERY_MS
        new.table.refresh()
        rebuild = Rebuild.of(new.table.properties())
        if rebuild is None or rebuild.is_over:
            self._give_up("it is over")
        elif rebuild.state is State.PROMOTING and not new.lane.parked:
            self._promote(rebuild, new.table)

    def _promote(self, rebuild: Rebuild, table: LakeTable) -> None:
        """1 the old table becomes the new one; 2 the new one says so; 3 we go on with the one under its rules.

        A crash after 1: opened again, the old one has become it already, and 2 and 3 follow. After 2: nothing is left.
        """
        self._maker.promote(self._ruled_by(rebuild), rebuild, table, self._old)
        replace(rebuild, state=State.PROMOTED).keep(table)
        self._end("it is promoted")
        if self._old is not None:
            self._old.close()
            self._maker.let_go(self._config, beside=False)
        self._config = self._ruled_by(rebuild)
        self._open_old()

    def _give_up(self, why: str) -> None:
        self._end(why)
        if self._old is None:
            self._open_old()

    def _end(self, why: str) -> None:
        assert self._new is not None
        log.info("writing one table", extra={"table": self._config.table, "why": why})
        self._new.lane.close()
        self._maker.let_go(self._config, beside=True)
        self._new = None

    def _ruled_by(self, rebuild: Rebuild) -> TableConfig:
        return self._config.model_copy(update={"lake": rebuild.lake})

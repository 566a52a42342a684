"""A table's rebuild as commands drive it: begun, taken up by whoever writes the tables, filled, promoted or abandoned.

What stands of it is written in the new table (`pipeline.rebuild`); the job does its part when it sees that there. Each
step is one commit, so that a command that was cut off is run again and goes on where it was.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

from pyspark.sql.types import StructType

from config.errors import LakestreamError
from config.settings import Settings
from config.tables import TableConfig
from streaming_job.operations.dropping import drop
from streaming_job.pipeline import current, parking
from streaming_job.pipeline.lease import Clock, Owner, holder_of
from streaming_job.pipeline.locations import Lake, TableLocations
from streaming_job.pipeline.merge import LakeTable, TableSpec
from streaming_job.pipeline.opening import Tables, current_properties, shared_engine
from streaming_job.pipeline.order import GENERATIONS_PROPERTY
from streaming_job.pipeline.rebuild import Filling, Rebuild, State
from streaming_job.pipeline.requests import REBUILD, ask

REFUSED: Final = 9
NOT_YET: Final = 10
_LOOK_EVERY_S: Final = 0.5

Say = Callable[[str], None]


class RebuildRefusedError(LakestreamError):
    """It could not end right, or is not so far; nothing was changed."""

    exit_code = REFUSED


class NotTakenUpError(LakestreamError):
    """The job that has the tables was told, and has not done its part in time."""

    exit_code = NOT_YET


@dataclass(frozen=True, kw_only=True)
class Rebuilding:
    settings: Settings
    config: TableConfig
    tables: Tables
    clock: Clock
    wait_s: float
    """How long a job may take to do its part."""
    say: Say = lambda _: None
    sleep: Callable[[float], None] = time.sleep

    # --- what stands --------------------------------------------------------------------------------------------------

    def standing(self) -> Rebuild | None:
        """None where no rebuild was begun, or the last one is done with."""
        return Rebuild.of(self.tables.properties(self._places.rebuilt))

    def in_hand(self) -> Rebuild:
        """RebuildRefusedError where there is none to go on with."""
        rebuild = self.standing()
        if rebuild is None or rebuild.is_over:
            raise RebuildRefusedError(
                f"{self.config.table} is not being rebuilt", hint=f"`lakestream rebuild start {self.config.table}`"
            )
        return rebuild

    def writer(self) -> Owner | None:
        """Who gives both tables every change."""
        return holder_of(self.tables.properties(self._places.rebuilt), self.clock())

    def rows(self) -> int:
        return self._new().count("NOT _deleted")

    def parked(self) -> int:
        """Changes the new table could not take yet."""
        place = Lake(self.settings.lake).shared("rebuild_parked")
        engine = shared_engine(Lake(self.settings.lake))
        if not self.tables.exists(engine, place):
            return 0
        return parking.Parking(self.tables.open(engine, parking.spec(place)), self.config.table).count

    # --- its steps ----------------------------------------------------------------------------------------------------

    def begin(self, source: Filling, since_ms: int | None) -> Rebuild:
        """The new table, empty: from the time it is taken up, changes go to both.

        `since_ms`: what was made before is in what it will be filled with.
        """
        rebuild = Rebuild(self.clock(), State.FILLING, source, self._rules)
        engine = self.config.lake.engine
        known = self.tables.properties(self._places.current).get(GENERATIONS_PROPERTY, "")
        scanned = {current.SCANNED_PROPERTY: str(since_ms)} if since_ms is not None else {}
        properties = current_properties(engine, self.settings) | rebuild.as_properties() | scanned
        spec = current.spec(self._places.rebuilt, StructType(), properties | {GENERATIONS_PROPERTY: known})
        self.tables.open(engine, spec)
        return rebuild

    def same(self, rebuild: Rebuild, source: Filling) -> None:
        """RebuildRefusedError where what was begun is not what is asked for now."""
        if rebuild.source != source:
            raise RebuildRefusedError(
                f"a rebuild from {rebuild.source} was begun", hint=f"go on with --from {rebuild.source}, or abandon it"
            )
        if rebuild.rules != self._rules:
            raise RebuildRefusedError(
                "the rules under `lake` are not those the rebuild was begun with",
                hint=f"put them back, or `lakestream rebuild abandon {self.config.table}` and begin anew",
            )

    def wait_until_taken_up(self) -> Owner | None:
        """Who gives both tables every change from now on; None where nobody writes the table: then we must."""
        self._signal()
        give_up_ms = self.clock() + self.wait_s * 1000
        while (writer := self.writer()) is None:
            holder = holder_of(self.tables.properties(self._places.current), self.clock())
            if holder is None:
                return None
            if self.clock() >= give_up_ms:
                raise NotTakenUpError(
                    f"{holder} has the table and does not write the new one after {self.wait_s:.0f} s",
                    hint="its log says why; is it of this release, with this table's lake.name? then run this again",
                )
            self.say(f"waiting for {holder} to write both tables")
            self.sleep(_LOOK_EVERY_S)
        return writer

    def is_now(self, state: State) -> None:
        rebuild = self.in_hand()
        if rebuild.state is not state:
            replace(rebuild, state=state).keep(self._new())

    def wait_until_promoted(self, promote_here: Callable[[], None]) -> None:
        """By whoever has the tables; where nobody does, by this command."""
        give_up_ms = self.clock() + self.wait_s * 1000
        while True:
            # Before the state: whoever promotes it lets go of it after that.
            holder = self.writer()
            rebuild = self.standing()
            if rebuild is None or rebuild.state is not State.PROMOTING:
                return
            if holder is None:
                promote_here()
            elif self.clock() >= give_up_ms:
                raise NotTakenUpError(
                    f"{holder} has the tables and has not promoted the new one after {self.wait_s:.0f} s",
                    hint="it will, between two batches, once nothing of it is parked; run this again to wait for it",
                )
            else:
                self.say(f"waiting for {holder}, between two of its batches")
                self.sleep(_LOOK_EVERY_S)

    def abandon(self) -> None:
        rebuild = self.standing()
        if rebuild is not None and rebuild.state is State.PROMOTING:
            raise RebuildRefusedError(
                "it is being promoted", hint=f"wait for it: `lakestream promote {self.config.table}`"
            )
        if rebuild is not None and not rebuild.is_over:
            self.is_now(State.ABANDONED)
        self.clear_away()

    def clear_away(self) -> None:
        """The new table, once it is over and nobody holds it any more. What is not there is gone."""
        give_up_ms = self.clock() + self.wait_s * 1000
        self._signal()
        while (holder := self.writer()) is not None:
            if self.clock() >= give_up_ms:
                raise NotTakenUpError(
                    f"{holder} still holds the new table after {self.wait_s:.0f} s",
                    hint="run this again when it has let go; nothing of it is used any more",
                )
            self.say(f"waiting for {holder} to let go of it")
            self.sleep(_LOOK_EVERY_S)
        self._forget_parked()
        drop(self._places.rebuilt, self.settings, self.tables)

    def _forget_parked(self) -> None:
        lake = Lake(self.settings.lake)
        place, engine = lake.shared("rebuild_parked"), shared_engine(lake)
        if self.tables.exists(engine, place):
            parking.Parking(self.tables.open(engine, parking.spec(place)), self.config.table).clear()

    def _signal(self) -> None:
        engine = self.config.lake.engine
        if self.tables.exists(engine, self._places.current):
            ask(self.tables.open(engine, TableSpec(self._places.current, StructType())), REBUILD, self.clock())

    def _new(self) -> LakeTable:
        return self.tables.open(self.config.lake.engine, TableSpec(self._places.rebuilt, StructType()))

    @property
    def _rules(self) -> dict[str, object]:
        return self.config.lake.model_dump(mode="json", by_alias=True)

    @property
    def _places(self) -> TableLocations:
        return Lake(self.settings.lake).of(self.config)

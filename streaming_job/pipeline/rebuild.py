"""What stands of a rebuild: written in the new table itself, whose being there is the rebuild.

    filling    live changes go to both tables; the source chosen is being put in
    filled     all of it is in; `verify` may compare
    promoting  found equal: whoever holds the tables makes `current` become it, between two batches
    promoted   `current` has its rows; the new table can go
    abandoned  it can go

Each step is one commit, and each may be tried again after a crash: who holds the tables looks here when it opens them.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any, Final, Literal

from config.tables import LakeRules
from streaming_job.pipeline.current import PURGED_PROPERTY, SCANNED_PROPERTY
from streaming_job.pipeline.merge import Guard, LakeTable, no_guard
from streaming_job.pipeline.order import GENERATIONS_PROPERTY, UNPROVEN_PROPERTY, seen_by
from streaming_job.pipeline.properties import read, written

REBUILD_PROPERTY: Final = "lakestream.rebuilding"

Filling = Literal["snapshot", "archive"]


class State(StrEnum):
    FILLING = "filling"
    FILLED = "filled"
    PROMOTING = "promoting"
    PROMOTED = "promoted"
    ABANDONED = "abandoned"


OVER: Final = frozenset((State.PROMOTED, State.ABANDONED))


@dataclass(frozen=True)
class Rebuild:
    number: int
    """When it began, in milliseconds since 1970: no two have the same."""
    state: State
    source: Filling
    rules: Mapping[str, Any]
    """What the rules file says of the lake: the new table's from its first row on, the old one's once promoted."""

    @property
    def lake(self) -> LakeRules:
        return LakeRules.model_validate(self.rules)

    @property
    def is_over(self) -> bool:
        return self.state in OVER

    @classmethod
    def of(cls, properties: Mapping[str, str]) -> "Rebuild | None":
        value = read(properties.get(REBUILD_PROPERTY))
        return cls(**value | {"state": State(value["state"])}) if value else None

    def as_properties(self) -> dict[str, str]:
        return {REBUILD_PROPERTY: written(asdict(self))}

    def keep(self, table: LakeTable, guard: Guard = no_guard) -> None:
        table.set_properties(self.as_properties(), guard)


def take_over(old: LakeTable, new: LakeTable, number: int, guard: Guard) -> None:
    """The old table becomes the new one, in one commit for its readers.

    What holds of the new rows is said before they come: a crash between the two leaves a table that only asks more
    than it must of what is old.
    """
    had, has = old.properties(), new.properties()
    purged = [int(properties[PURGED_PROPERTY]) for properties in (had, has) if properties.get(PURGED_PROPERTY)]
    old.set_properties(
        {
            GENERATIONS_PROPERTY: " ".join(sorted(seen_by(old) | seen_by(new))),
            SCANNED_PROPERTY: has.get(SCANNED_PROPERTY, ""),
            UNPROVEN_PROPERTY: "",
            PURGED_PROPERTY: str(max(purged)) if purged else "",
        },
        guard,
    )
    old.become(new.location, number, guard)

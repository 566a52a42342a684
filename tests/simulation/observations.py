"""What the world tells the checkers: facts, in the order in which they happened."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tests.simulation.decoder import Change
from tests.simulation.lake import Row
from tests.simulation.model import Identity


@dataclass(frozen=True, slots=True)
class Landed:
    """A record that Kinesis holds now. Not acknowledged: its sender was told that the call had failed."""

    shard: str
    sequence: int
    key: str
    data: bytes
    acknowledged: bool
    called_ms: int
    """When its call began, by the sender's clock."""
    arrived_ms: int


@dataclass(frozen=True, slots=True)
class Answered:
    """An invocation of the bridge that came to its end, and what it did meanwhile."""

    records: Sequence[Mapping[str, Any]]
    unsent: int | None
    """Index of the first record its answer names as failed."""
    landed: Sequence[Landed]
    letters: frozenset[str]
    """Sequence numbers of the records that lie in dead letters since."""
    began_ms: int
    """By the bridge's clock."""
    mark_possible: bool
    """S3 took objects all the while."""


@dataclass(frozen=True, slots=True)
class Delivered:
    """A change the bridge was given for the first time by this mapping, or that this mapping gave up."""

    mapping: int
    change: Identity


@dataclass(frozen=True, slots=True)
class Stored:
    name: str
    body: bytes
    encrypted: bool
    """Under the dead letters' key."""


@dataclass(frozen=True, slots=True)
class Logged:
    line: str


@dataclass(frozen=True, slots=True)
class Merged:
    """One row of `current` before and after a commit; None: not there."""

    table: str
    key: str
    before: Row | None
    after: Row | None


@dataclass(frozen=True, slots=True)
class Remembered:
    """A row that `history` has now."""

    change: Change


@dataclass(frozen=True, slots=True)
class Sunk:
    """Records that a finished batch brought to the tables: shard and sequence number."""

    records: Sequence[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Committed:
    """The query's position as it is in the checkpoint now."""

    offset: Mapping[str, Any]
    horizon_ms: int
    """What arrived before is trimmed by now."""


@dataclass(frozen=True, slots=True)
class RanToNow:
    """A run that ends by itself came to its end."""

    began_ms: int


@dataclass(frozen=True, slots=True)
class LossAccepted:
    """The job stopped and said what is gone; a person lets it go on without, from a new checkpoint."""


@dataclass(frozen=True, slots=True)
class Archived:
    lines: bytes


Observation = (
    Landed
    | Answered
    | Delivered
    | Stored
    | Logged
    | Merged
    | Remembered
    | Sunk
    | Committed
    | RanToNow
    | LossAccepted
    | Archived
)
Journal = list[Observation]

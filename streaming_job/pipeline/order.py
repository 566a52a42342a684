"""Which of a table's streams came after which, and which of their changes are refused.

A stream's label is the time it was made, so one made anew sorts after the old. A replica's stream may have been made
long before that of the table it stands in for: then its label says nothing. So changes under a label older than one
seen before are refused - kept, not lost - until the rules state the order (`lake.streams`); and so is what an old
stream tells of times when a newer one was there already, which no stream made anew leaves behind.
"""

import logging
from datetime import UTC, datetime
from typing import Final

import pyarrow as pa

from config.limits import GENERATION_DIGITS
from config.tables import LakeRules
from streaming_job.errors import StopJobError
from streaming_job.pipeline.arrow import Column, pc, replaced, values
from streaming_job.pipeline.lease import Clock
from streaming_job.pipeline.merge import Guard, LakeTable
from streaming_job.pipeline.properties import written

log = logging.getLogger("lakestream.order")

GENERATIONS_PROPERTY: Final = "lakestream.generations"
"""Those whose changes the table has seen."""
UNPROVEN_PROPERTY: Final = "lakestream.unproven"
"""Since when changes may be missing, and why; empty when `verify` found the table equal, or with a rebuild."""
_LOOK_EVERY_MS: Final = 10_000


class Placing:
    """By what the rules state: under which generation a change counts."""

    def __init__(self, rules: LakeRules) -> None:
        took_over = [(stream.since, digits_of(stream.label)) for stream in rules.streams if stream.since is not None]
        self._takeovers = [(_ms(since), label, generation_at(since)) for since, label in sorted(took_over)]
        self.stated = frozenset(digits_of(stream.label) for stream in rules.streams if stream.since is None)
        self.moments = frozenset(moment for _, _, moment in self._takeovers)

    def __call__(self, changes: pa.Table) -> pa.Table:
        """The changes with `change_seq` as it counts."""
        if not self._takeovers or not changes.num_rows:
            return changes
        labels = generations_of(changes)
        placed, created_ms = labels, changes["created_ms"]
        for since_ms, label, moment in self._takeovers:
            applies = pc.and_(pc.equal(labels, label), pc.coalesce(pc.greater_equal(created_ms, since_ms), True))
            placed = pc.if_else(applies, moment, placed)
        number = pc.utf8_slice_codeunits(changes["change_seq"], GENERATION_DIGITS)
        return replaced(changes, "change_seq", pc.binary_join_element_wise(placed, number, ""))

    def of(self, generation: str, at_ms: int | None) -> str:
        """What counts for a change of this stream made then."""
        moments = [
            moment
            for since_ms, label, moment in self._takeovers
            if label == generation and (at_ms is None or since_ms <= at_ms)
        ]
        return moments[-1] if moments else generation


class Order:
    """What one table has seen, kept in its properties."""

    def __init__(self, table: LakeTable, rules: LakeRules, guard: Guard, clock: Clock) -> None:
        self._table = table
        self._guard = guard
        self._clock = clock
        self._placing = Placing(rules)
        self._known = seen_by(table)
        self._is_unproven, self._look_ms = False, 0

    @property
    def is_unproven(self) -> bool:
        """`verify` settles it from outside, so it is looked at now and then.

        A table in trouble is told of by whoever writes it; here it says what it said last.
        """
        if self._clock() >= self._look_ms:
            self._look_ms = self._clock() + _LOOK_EVERY_MS
            try:
                self._is_unproven = bool(self._table.properties().get(UNPROVEN_PROPERTY))
            except StopJobError:
                raise
            except Exception as error:  # noqa: BLE001 - one table's trouble, of whatever kind, does not hold the others
                log.warning(
                    "cannot tell whether the table is unproven",
                    extra={"table": str(self._table.location), "reason": str(error)},
                )
        return self._is_unproven

    def split(self, changes: pa.Table) -> tuple[pa.Table, pa.Table]:
        """Changes as they count, and those that are refused, as they came."""
        placed = self._placing(changes)
        generations = generations_of(placed)
        present = set(pc.unique(generations).to_pylist())
        newest = max(self._known, default="")
        if present <= {newest}:
            return placed, changes.slice(0, 0)
        accepted = self._known | self._placing.stated | self._placing.moments
        strange = {each for each in present - accepted if each < newest}
        newest = max([newest, *(present - strange)])
        is_strange = pc.is_in(generations, value_set=pa.array(sorted(strange), pa.string()))
        # What no stream made anew leaves behind: a change of the old one from after the new one was made.
        is_after = pc.and_(pc.less(generations, newest), pc.greater(placed["created_ms"], made_ms(newest)))
        is_refused = pc.or_(is_strange, pc.coalesce(is_after, False))
        return placed.filter(pc.invert(is_refused)), changes.filter(is_refused)

    def take_note(self, admitted: pa.Table) -> None:
        """Before the changes are written: a crash after it says a little too early that something may be missing."""
        new = set(pc.unique(generations_of(admitted)).to_pylist()) - self._known
        if not new:
            return
        known = self._known | new
        properties = {GENERATIONS_PROPERTY: " ".join(sorted(known))}
        if self._known:
            why = f"its changes come from another stream, made {max(new)}: some between the two may be missing"
            properties[UNPROVEN_PROPERTY] = written({"since_ms": self._clock(), "why": why})
            log.warning("table is unproven", extra={"table": str(self._table.location), "why": why})
        self._table.set_properties(properties, self._guard)
        self._known, self._look_ms = known, 0


REFUSED: Final = (
    "under the label of a stream that was made before one whose changes the table has: a replica after a failover? "
    "state in the table's rules since when it counts (lake.streams), and start the job again"
)


def seen_by(table: LakeTable) -> set[str]:
    """A table written before this was kept tells it by its rows."""
    said = table.properties().get(GENERATIONS_PROPERTY)
    if said:
        return set(said.split())
    return {seq[:GENERATION_DIGITS] for seq in values(table.read(["_seq"]), "_seq")}


def generations_of(changes: pa.Table) -> Column:
    return pc.utf8_slice_codeunits(changes["change_seq"], 0, GENERATION_DIGITS)


def digits_of(label: str) -> str:
    return "".join(filter(str.isdigit, label))


def generation_at(moment: datetime) -> str:
    at = moment.astimezone(UTC)
    return f"{at:%Y%m%d%H%M%S}{at.microsecond // 1000:03d}"


def made_ms(generation: str) -> int:
    """What is no time at all was never: nothing is after it."""
    try:
        made = datetime.strptime(generation + "000", "%Y%m%d%H%M%S%f").replace(tzinfo=UTC)
    except ValueError:
        return _NEVER_MS
    return _ms(made)


_NEVER_MS: Final = 2**62


def _ms(moment: datetime) -> int:
    return round(moment.timestamp() * 1000)

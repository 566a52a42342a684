"""The proof: every item of the source against its row in the lake, by digest.

1. Scan the source and read `current`; compare keys and digests on disk.
2. What differs is a suspect: a change in flight looks the same. Each suspect is read again, strongly consistently,
   and its row again, until the two agree or the deadline comes.
3. A suspect that is left is a difference only if it stood on both sides until what was read had surely passed: the
   lake committed a change made after it, or the table's own stream, read to its end after it, tells of no change of
   that key that the lake has not. One that the stream does tell of is on its way, however late. What is not settled by
   the deadline is unproven, never equal.
"""

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final, NamedTuple, Protocol

from bridge_lambda.rules import TableRules
from config.tables import TableConfig
from streaming_job.operations.comparison import Comparison, Finding, Suspect, comparison
from streaming_job.operations.in_flight import NO_STREAM, InFlight
from streaming_job.operations.source_scan import (
    CapacityBudget,
    DynamoReader,
    Item,
    read_consistently,
    scan,
)
from streaming_job.operations.source_side import SourceSide

EXAMPLES_MAX: Final = 10
SETTLED_MAX: Final = 20_000
"""Suspects that are looked at again; past this many the rest is unproven, and the examples say where to begin."""
_LOOK_AGAIN_EVERY_S: Final = 1.0
_STREAM_CLOCK_MS: Final = 1_000
"""The stream dates changes by the whole second, rounded down."""


class LakeRow(NamedTuple):
    digest: str | None
    intact: bool
    kept: bool = False
    """The rules ignore that its item was deleted."""
    rows: int = 1
    """That the key has: more than one are never right."""


class LakeRows(Protocol):
    """`current` of one table, live rows only, as verify reads it."""

    def write_all(self, folder: Path) -> None:
        """All of them as Parquet files of `key`, `digest`, `intact`, `kept`."""

    def of(self, keys: Sequence[str]) -> dict[str, LakeRow]:
        """Those of these keys, as they are committed now."""

    def sequences(self, keys: Sequence[str]) -> dict[str, str]:
        """`_seq` of these keys' rows, tombstones included."""

    def newest_created_ms(self) -> int:
        """The creation time of the newest change that is committed; 0 when there is none."""


@dataclass(frozen=True, kw_only=True)
class Options:
    segments: int = 4
    read_capacity_units_per_s: float | None = None
    settle_s: float = 30.0
    """How long a suspect may take to be settled."""


@dataclass(frozen=True, kw_only=True)
class Report:
    table: str
    source_items: int
    excluded: int
    """Items the table's filter keeps out of the lake; counted apart, never compared."""
    lake_rows: int
    kept: int = 0
    """Rows whose items were deleted, and which the table's rules keep; counted apart, never compared."""
    missing: int
    extra: int
    stale: int
    different: int
    doubled: int = 0
    """Of the different: keys that have more rows than one, as the lake was first read."""
    unproven: int
    examples: Mapping[str, Sequence[str]]
    """Some keys of each finding."""
    seconds: float
    doubts: Sequence[str] = ()
    """Where changes may have been lost before, as was noted; an equal table settles them for `current`."""

    @property
    def differences(self) -> int:
        return self.missing + self.extra + self.stale + self.different

    @property
    def equal(self) -> bool:
        return not (self.differences or self.unproven)

    def as_dict(self) -> dict[str, Any]:
        return {**asdict(self), "equal": self.equal}


Say = Callable[[str], None]


@dataclass(frozen=True)
class Verification:
    client: DynamoReader
    config: TableConfig
    rules: TableRules
    lake: LakeRows
    options: Options
    say: Say = lambda _: None
    in_flight: InFlight = NO_STREAM
    clock: Callable[[], float] = time.time
    sleep: Callable[[float], None] = time.sleep

    def run(self) -> Report:
        began = self.clock()
        with TemporaryDirectory(prefix="lakestream-verify-") as folder, comparison(Path(folder)) as sides:
            excluded = self._read_source(sides)
            self.say("reading the lake")
            self.lake.write_all(Path(folder) / "lake")
            sides.add_lake(Path(folder) / "lake")
            counts = sides.counts()
            suspects = sides.suspects()
        found = self._settle(suspects)
        return Report(
            table=self.config.table,
            source_items=counts.source,
            excluded=excluded,
            lake_rows=counts.lake,
            kept=counts.kept,
            missing=len(found[Finding.MISSING]),
            extra=len(found[Finding.EXTRA]),
            stale=len(found[Finding.STALE]),
            different=len(found[Finding.DIFFERENT]),
            doubled=counts.doubled,
            unproven=len(found[Finding.UNPROVEN]),
            examples={finding: keys[:EXAMPLES_MAX] for finding, keys in found.items() if keys},
            seconds=round(self.clock() - began, 3),
        )

    def _read_source(self, sides: Comparison) -> int:
        """Keys and digests of every item the rules let into the lake; how many they keep out."""
        excluded = read = 0
        budget = CapacityBudget(self.options.read_capacity_units_per_s)
        for page in scan(self.client, self.config.table, segments=self.options.segments, budget=budget):
            admitted = self._source.admitted(page)
            excluded += len(page) - len(admitted)
            read += len(page)
            sides.add_source(self._source.rows(admitted))
            self.say(f"{read:,} items of the source read")
        return excluded

    def _settle(self, suspects: Sequence[Suspect]) -> dict[Finding, list[str]]:
        """Each suspect as what it turned out to be; those that turned out equal are gone."""
        found: dict[Finding, list[str]] = {finding: [] for finding in Finding}
        found[Finding.UNPROVEN] += [suspect.key for suspect in suspects[SETTLED_MAX:]]
        pending = {suspect.key: Doubt(self._source.known_address(suspect)) for suspect in suspects[:SETTLED_MAX]}
        deadline = self.clock() + self.options.settle_s
        while pending:
            self.say(f"{len(pending):,} rows looked at again")
            for key, finding in self._look_again(pending).items():
                del pending[key]
                if finding is not None:
                    found[finding].append(key)
            if pending and self.clock() >= deadline:
                found[Finding.UNPROVEN] += sorted(pending)
                break
            if pending:
                self.sleep(_LOOK_AGAIN_EVERY_S)
        return found

    def _look_again(self, pending: Mapping[str, "Doubt"]) -> dict[str, Finding | None]:
        """The suspects that are settled now, with what they are; None for equal ones."""
        proven_until_ms = self.lake.newest_created_ms() - _STREAM_CLOCK_MS
        read_ms = int(self.clock() * 1000)
        addresses = [doubt.address for doubt in pending.values() if doubt.address is not None]
        items = read_consistently(self.client, self.config.table, addresses, CapacityBudget())
        source = {self._source.key(item): self._source.digest(item) for item in self._source.admitted(items)}
        rows = self.lake.of(list(pending))
        on_way = self._on_their_way(pending)
        settled: dict[str, Finding | None] = {}
        for key, doubt in pending.items():
            finding = classify(source.get(key), rows.get(key))
            if doubt.address is None:
                continue
            since_ms = doubt.stood_since(read_ms, finding, source.get(key))
            has_passed = since_ms < proven_until_ms or since_ms <= self.in_flight.whole_until_ms
            if finding in {None, Finding.DIFFERENT} or (has_passed and key not in on_way):
                settled[key] = finding
        return settled

    def _on_their_way(self, keys: Collection[str]) -> set[str]:
        """Those that have a newer version in the table's stream than in the lake."""
        self.in_flight.look(keys)
        told = {key: newest for key in keys if (newest := self.in_flight.newest(key)) is not None}
        held = self.lake.sequences(list(told)) if told else {}
        return {key for key, newest in told.items() if newest > held.get(key, "")}

    @property
    def _source(self) -> SourceSide:
        return SourceSide(self.config, self.rules)


@dataclass
class Doubt:
    """A suspect while it is not settled: since when source and finding have been the same."""

    address: Item | None
    _since_ms: int = 0
    _as: tuple[Finding | None, str | None] | None = None

    def stood_since(self, read_ms: int, finding: Finding | None, digest: str | None) -> int:
        if self._as != (finding, digest):
            self._as, self._since_ms = (finding, digest), read_ms
        return self._since_ms


def classify(source_digest: str | None, row: LakeRow | None) -> Finding | None:
    """None: they agree. A digest of None is an item that is not there, or that the rules keep out."""
    if row is not None and row.rows > 1:
        return Finding.DIFFERENT
    if source_digest is None:
        return None if row is None or row.kept else Finding.EXTRA
    if row is None:
        return Finding.MISSING
    if row.digest != source_digest:
        return Finding.STALE
    return None if row.intact else Finding.DIFFERENT

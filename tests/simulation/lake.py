"""A reference lake: what a batch does to the tables, on dictionaries.

The pipeline's suite holds this account equal to Spark and to both merge engines, so that what the simulation proves of
it holds of them. Its steps are the pipeline's, by name: a process can die after each of them.
"""

import hashlib
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from streaming_job.pipeline.steps import AfterStep, Step, go_on
from tests.simulation.decoder import Change, KeyTypes, decode, tables_of, with_images

HOUR_MS = 3_600_000


@dataclass(frozen=True, slots=True)
class Record:
    """As the source hands it over."""

    shard: str
    sequence: str
    data: bytes


@dataclass(frozen=True, slots=True)
class Row:
    """Of `current`."""

    seq: str
    op: str
    deleted: bool
    ttl: bool
    digest: str | None
    created_ms: int | None
    item: Mapping[str, Any] | None
    types: Mapping[str, str]
    written_ms: int


@dataclass(frozen=True, slots=True)
class Reject:
    record: Record
    reason: str

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.record.data).hexdigest()


class ClaimUnreachableError(Exception):
    """Nobody can tell whether the object is there."""


class TableDownError(Exception):
    """The table cannot be written."""


class Objects(Protocol):
    def get(self, bucket: str, key: str) -> bytes | None:
        """None where there is no such object; ClaimUnreachableError where nobody can tell."""


class Watcher(Protocol):
    """Who wants to know what the tables hold."""

    def remembered(self, change: Change) -> None: ...
    def merged(self, table: str, key: str, before: Row | None, after: Row | None) -> None: ...


class NobodyWatches:
    def remembered(self, change: Change) -> None: ...
    def merged(self, table: str, key: str, before: Row | None, after: Row | None) -> None: ...


@dataclass
class Table:
    """Of one source table: what is durable, and nothing else."""

    current: dict[str, Row] = field(default_factory=dict)
    history: list[Change] = field(default_factory=list)
    known: dict[tuple[str, str], Change] = field(default_factory=dict)
    """`history` by its unique key."""
    parked: list[Change] = field(default_factory=list)
    purged_before_ms: int | None = None
    is_down: bool = False


class Lake:
    def __init__(
        self,
        keys: Mapping[str, KeyTypes],
        objects: Objects,
        clock: Callable[[], int],
        watcher: Watcher | None = None,
    ) -> None:
        self.tables = {name: Table() for name in keys}
        self.rejects: dict[tuple[str, str, str], Reject] = {}
        self._keys = keys
        self._objects = objects
        self._clock = clock
        self._watcher: Watcher = watcher or NobodyWatches()

    def process_batch(self, records: Sequence[Record], after_step: AfterStep = go_on, *, number: int = 0) -> None:
        good, rejected = self._decoded(records)
        after_step(Step.DECODE)
        for reject in rejected:
            self._reject(reject)
        after_step(Step.REJECTS)
        unique = self._once(good)
        after_step(Step.DUPLICATES)
        for name in tables_of(unique):
            self._run(name, [change for change in unique if change.table == name], after_step)
        after_step(Step.LATENCY)

    def between_batches(self, after_step: AfterStep = go_on) -> None:
        for name, table in self.tables.items():
            if table.parked:
                self._run(name, [], after_step)

    def purge(self, name: str, window_ms: int) -> int:
        """Tombstones written longer ago than the window; what they said stays to be asked of history."""
        table, now_ms = self.tables[name], self._clock()
        doomed = {k: row for k, row in table.current.items() if row.deleted and row.written_ms < now_ms - window_ms}
        if not doomed:
            return 0
        times = [row.created_ms for row in doomed.values()]
        newest_ms = now_ms if None in times else max(time for time in times if time is not None) + 1
        table.purged_before_ms = max(newest_ms, table.purged_before_ms or 0)
        for key, row in doomed.items():
            del table.current[key]
            self._watcher.merged(name, key, row, None)
        return len(doomed)

    # --- the steps ----------------------------------------------------------------------------------------------------

    def decode(self, data: bytes) -> Change | str:
        return decode(data, self._keys)

    def _decoded(self, records: Iterable[Record]) -> tuple[list[Change], list[Reject]]:
        good: list[Change] = []
        rejected: list[Reject] = []
        for record in records:
            decoded = self.decode(record.data)
            if isinstance(decoded, Change):
                good.append(decoded)
            else:
                rejected.append(Reject(record, decoded))
        return good, rejected

    def _reject(self, reject: Reject) -> None:
        self.rejects.setdefault((reject.record.shard, reject.record.sequence, reject.sha256), reject)

    def _once(self, changes: Iterable[Change]) -> list[Change]:
        """The first of what came twice."""
        unique: dict[tuple[str, str, str], Change] = {}
        for change in changes:
            unique.setdefault((change.table, change.key, change.seq), change)
        return list(unique.values())

    def _run(self, name: str, changes: list[Change], after_step: AfterStep) -> None:
        """What is parked first, in order; one table's trouble is not the others'."""
        table = self.tables[name]
        try:
            if table.parked:
                self._write(name, sorted(table.parked, key=lambda change: change.seq), after_step)
                self._unpark(table)
                after_step(Step.DRAIN)
            if changes:
                self._write(name, changes, after_step)
        except (TableDownError, ClaimUnreachableError):
            self._park(table, changes)
            after_step(Step.PARK)

    def _park(self, table: Table, changes: Iterable[Change]) -> None:
        held = {(change.key, change.seq) for change in table.parked}
        table.parked += [change for change in changes if (change.key, change.seq) not in held]

    def _unpark(self, table: Table) -> None:
        table.parked = []

    def _write(self, name: str, changes: Sequence[Change], after_step: AfterStep) -> None:
        table = self.tables[name]
        whole, late = self._resolved(changes)
        after_step(Step.CLAIM_CHECKS)
        if table.is_down:
            raise TableDownError(name)
        self._remember(table, whole)
        after_step(Step.HISTORY)
        newest = self._newest(table, whole)
        after_step(Step.NEWEST)
        after_step(Step.FLATTEN)
        after_step(Step.SCHEMA)
        self._merge(name, newest)
        after_step(Step.CURRENT)
        for reject in late:
            self._reject(reject)

    def _resolved(self, changes: Iterable[Change]) -> tuple[list[Change], list[Reject]]:
        """Claim checks give way to their images; one that is missing, or another than the bridge wrote, is a reject."""
        whole: list[Change] = []
        late: list[Reject] = []
        for change in changes:
            found = self._images(change) if change.ref is not None else change
            if isinstance(found, Change):
                whole.append(found)
            else:
                late.append(Reject(Record("claims", change.seq, change.data), found))
        return whole, late

    def _images(self, change: Change) -> Change | str:
        assert change.ref is not None
        body = self._objects.get(change.ref["bucket"], change.ref["key"])
        if body is None:
            return "the claim check is missing"
        if hashlib.sha256(body).hexdigest() != change.ref["sha256"]:
            return "the claim check has another hash"
        return with_images(change, body)

    def _remember(self, table: Table, changes: Iterable[Change]) -> None:
        for change in changes:
            if (change.key, change.seq) not in table.known:
                self._insert(table, change)

    def _insert(self, table: Table, change: Change) -> None:
        table.known[change.key, change.seq] = change
        table.history.append(change)
        self._watcher.remembered(change)

    def _newest(self, table: Table, changes: Iterable[Change]) -> list[Change]:
        newest: dict[str, Change] = {}
        for change in changes:
            held = newest.get(change.key)
            if held is None or self.is_newer(change.seq, held.seq):
                newest[change.key] = change
        return self._still_newest(table, newest.values())

    def _still_newest(self, table: Table, newest: Collection[Change]) -> list[Change]:
        """Where tombstones were purged, only history knows of a delete that is newer."""
        before_ms = table.purged_before_ms
        if before_ms is None:
            return list(newest)
        doubtful = {c.key for c in newest if c.op == "SNAPSHOT" or c.created_ms is None or c.created_ms < before_ms}
        last: dict[str, str] = {}
        for (key, seq), change in table.known.items():
            if key in doubtful and change.op == "REMOVE" and seq > last.get(key, ""):
                last[key] = seq
        return [change for change in newest if last.get(change.key, "") <= change.seq]

    def is_newer(self, seq: str, than: str) -> bool:
        return seq > than

    def _merge(self, name: str, newest: Iterable[Change]) -> None:
        """The guard: a row is only ever replaced by a newer version of itself."""
        table, now_ms = self.tables[name], self._clock()
        for change in newest:
            before = table.current.get(change.key)
            if before is None or self.is_newer(change.seq, before.seq):
                self._put(name, change, before, now_ms)

    def _put(self, name: str, change: Change, before: Row | None, now_ms: int) -> None:
        after = row_of(change, now_ms)
        self.tables[name].current[change.key] = after
        self._watcher.merged(name, change.key, before, after)


def row_of(change: Change, now_ms: int) -> Row:
    deleted = change.op == "REMOVE"
    return Row(
        seq=change.seq,
        op=change.op,
        deleted=deleted,
        ttl=change.ttl,
        digest=change.digest,
        created_ms=change.created_ms,
        item=None if deleted else change.new,
        types=change.types,
        written_ms=now_ms,
    )

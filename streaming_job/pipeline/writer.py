"""One source table's way into its lake tables: claim checks, history, newest, flatten, current."""

import json
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import pyarrow as pa

from config.tables import TableConfig
from streaming_job.pipeline import current, dedupe, history
from streaming_job.pipeline.arrow import Column, pc, repeated, replaced, values
from streaming_job.pipeline.changes import SCHEMA
from streaming_job.pipeline.claims import Resolver
from streaming_job.pipeline.flatten_workers import SharedFlattener
from streaming_job.pipeline.lease import Clock, Lease
from streaming_job.pipeline.merge import LakeTable
from streaming_job.pipeline.order import REFUSED, Order
from streaming_job.pipeline.parking import Parking
from streaming_job.pipeline.schema_log import SchemaLog
from streaming_job.pipeline.steps import Step, Stopwatch

InHistory = Future[tuple[int, int]]
"""How many of a batch's changes were new to the history, and when they were written."""


@dataclass
class Written:
    """What one writing of a table's changes came to."""

    changes: int = 0
    refused: int = 0
    history_inserted: int = 0
    current_inserted: int = 0
    current_updated: int = 0
    rescued: int = 0
    columns_added: tuple[str, ...] = ()
    commit_ms: int | None = None
    first: "First | None" = None
    late_rejects: list[pa.Table] = field(default_factory=list)


@dataclass(frozen=True)
class First:
    """Keys whose rows could be queried before the rest of the batch."""

    keys: Column
    commit_ms: int


@dataclass(frozen=True)
class TableParts:
    """The outside things one table's writer works with."""

    current: LakeTable
    history: LakeTable
    lease: Lease
    flattener: SharedFlattener
    schema_log: SchemaLog
    resolver: Resolver
    order: Order
    refused: Parking
    """Changes of a stream whose place in the order nobody stated."""
    clock: Clock


class TableWriter:
    def __init__(self, config: TableConfig, parts: TableParts) -> None:
        self._config = config
        self._parts = parts
        self._ignored = current.Ignored(config.lake)
        self._beside = ThreadPoolExecutor(1, thread_name_prefix="history")

    @property
    def parts(self) -> TableParts:
        return self._parts

    def write(self, changes: pa.Table, watch: Stopwatch, *, repair: bool = False) -> Written:
        """Every step may be run again after a crash: inserts go by unique keys, `current` by the guard."""
        parts, written = self._parts, Written(changes=changes.num_rows)
        ingest_ms = parts.clock()
        with watch.step(Step.ORDER):
            # A crash here: what was refused is kept, once; run again, it is refused again.
            changes, refused = parts.order.split(changes)
            if refused.num_rows:
                parts.refused.add(refused, REFUSED, ingest_ms)
                written.refused = refused.num_rows
            if not changes.num_rows:
                return written
            parts.order.take_note(changes)
        with watch.step(Step.CLAIM_CHECKS):
            # A crash here: nothing of this table is written.
            changes, rejects = parts.resolver.resolve(changes)
            if rejects.num_rows:
                written.late_rejects.append(rejects)
        # History and `current` are two tables, and neither waits for the other. A crash with one of them written: the
        # batch is run again, and finds in it what it would write.
        with self._history_beside(changes, ingest_ms, watch) as in_history:
            with watch.step(Step.NEWEST):
                candidates, marks = self._newest(changes, in_history, repair=repair)
            if candidates.num_rows:
                self._upsert(candidates, ingest_ms, watch, written, repair=repair)
            if marks.num_rows:
                with watch.step(Step.CURRENT):
                    current.mark(parts.current, current.mark_rows(marks, ingest_ms), parts.lease.check)
        written.history_inserted, history_ms = in_history.result()
        written.commit_ms = parts.clock()
        if written.first is not None:
            written.first = replace(written.first, commit_ms=max(written.first.commit_ms, history_ms))
        return written

    def close(self) -> None:
        self._beside.shutdown()

    @contextmanager
    def _history_beside(self, changes: pa.Table, ingest_ms: int, watch: Stopwatch) -> Iterator[InHistory]:
        """Not left before the history is written."""

        def write() -> tuple[int, int]:
            with watch.step(Step.HISTORY):
                inserted = history.write(self._parts.history, changes, ingest_ms, self._parts.lease.check)
            return inserted, self._parts.clock()

        writing = self._beside.submit(write)
        try:
            yield writing
        finally:
            wait([writing])

    def readmit(self) -> Iterator[Written]:
        """What was refused, once more, under rules that may state the order by now.

        A ticket goes when all of it was taken in; a crash before that takes it in again.
        """
        refused = self._parts.refused
        for ticket in refused.tickets:
            changes = refused.of(ticket)
            written = self.write(changes, Stopwatch())
            if not written.refused:
                refused.remove(ticket)
            yield written

    def _upsert(
        self, candidates: pa.Table, ingest_ms: int, watch: Stopwatch, written: Written, *, repair: bool
    ) -> None:
        parts = self._parts
        with watch.step(Step.FLATTEN):
            present = parts.current.columns()
            flattened = parts.flattener.rows(candidates, current.item_columns(present))
            rows = current.rows(candidates, flattened, ingest_ms)
            if self._config.lake.strict:
                rows = self._only_fitting(rows, candidates, written)
        with watch.step(Step.SCHEMA):
            # Said before it is done: a crash between the two says it again, which the log's unique key swallows.
            added = current.missing_columns(present, flattened.schema)
            if added.fields:
                parts.schema_log.columns_appeared(added, ingest_ms)
                parts.current.add_columns(added, parts.lease.check)
                written.columns_added = tuple(added.names)
            written.rescued = parts.schema_log.values_rescued(rows, ingest_ms)
        with watch.step(Step.NEW_ROWS):
            # What is surely new need not wait for the merge that the rest needs. A crash here: run again, it is there.
            new, rest = current.split(parts.current, rows)
            if new.num_rows:
                self._put(new, written, repair=repair)
                written.first = First(new["_key"], parts.clock())
        with watch.step(Step.CURRENT):
            # A crash here: the tables hold the batch, Spark's log does not; run again, nothing is newer than itself.
            self._put(rest, written, repair=repair)

    def _put(self, rows: pa.Table, written: Written, *, repair: bool) -> None:
        merged = current.write(self._parts.current, rows, self._parts.lease.check, overwrite_equal=repair)
        written.current_inserted += merged.inserted
        written.current_updated += merged.updated

    def _only_fitting(self, rows: pa.Table, changes: pa.Table, written: Written) -> pa.Table:
        """Of a strict table: a version with a value that does not fit is a reject, and the one before it stands."""
        fits = pc.is_null(rows["_rescued"])
        misfits = rows.filter(pc.invert(fits)).select(["_key", "_seq", "_rescued"])
        if misfits.num_rows:
            paths = ", ".join(sorted({path for text in values(misfits, "_rescued") for path in json.loads(text)})[:10])
            unfit = changes.join(misfits, ["key", "change_seq"], ["_key", "_seq"], "left semi").select(SCHEMA.names)
            reason = f"strict: no column takes the value at {paths}"
            written.late_rejects.append(replaced(unfit, "reject", repeated(reason, pa.string(), unfit.num_rows)))
        return dedupe.newest(rows.filter(fits), "_key", "_seq")

    def _newest(self, changes: pa.Table, in_history: InHistory, *, repair: bool) -> tuple[pa.Table, pa.Table]:
        """Changes to write as rows, and ignored deletes without an image, which only mark a row."""
        properties = self._parts.current.properties()
        if not repair:
            # Who repairs a row by an older change of it means that change.
            changes = _since_the_scan(changes, properties.get(current.SCANNED_PROPERTY))
        keeps = self._ignored.keeps_row(changes)
        changes = current.with_old_as_new(changes, keeps).append_column("keeps_row", keeps)
        newest = dedupe.newest(changes)
        marks = newest.filter(_is_mark(newest))
        if self._config.lake.strict:
            # Which version is the newest that fits is known only after flattening.
            return self._known_newest(changes.filter(pc.invert(_is_mark(changes))), properties, in_history), marks
        if marks.num_rows:
            # What a mark keeps is the newest image of its key, which may have come in this very batch.
            newest = dedupe.newest(changes.filter(pc.invert(_is_mark(changes))))
        return self._known_newest(newest, properties, in_history), marks

    def _known_newest(self, newest: pa.Table, properties: Mapping[str, str], in_history: InHistory) -> pa.Table:
        """Where tombstones were purged, a change from before may be older than a delete only history remembers.

        Of what is no delete history may hold a later version that `current` never took: a strict table rejects it.
        """
        purged_before = properties.get(current.PURGED_PROPERTY)
        if not purged_before:
            return newest
        is_old = pc.coalesce(pc.less(newest["created_ms"], int(purged_before)), True)
        is_doubtful = pc.or_(is_old, pc.equal(newest["op"], "SNAPSHOT"))
        doubtful = newest.filter(is_doubtful)
        if not doubtful.num_rows:
            return newest
        wait([in_history])
        deleted = self._parts.history.newest(values(doubtful, "key"), "_op = 'REMOVE'")
        remembered = pa.array([deleted.get(key, "") for key in values(newest, "key")], pa.string())
        return newest.filter(pc.or_(pc.invert(is_doubtful), pc.less_equal(remembered, newest["change_seq"])))


def _since_the_scan(changes: pa.Table, scanned_ms: str | None) -> pa.Table:
    """A table rebuilt from its items has no row of what was deleted before: an old change would bring it back."""
    if not scanned_ms:
        return changes
    is_known = pc.coalesce(pc.less(changes["created_ms"], int(scanned_ms)), False)
    return changes.filter(pc.or_(pc.invert(is_known), pc.equal(changes["op"], "SNAPSHOT")))


def _is_mark(changes: pa.Table) -> Any:
    return pc.and_(changes["keeps_row"], pc.is_null(changes["new"]))

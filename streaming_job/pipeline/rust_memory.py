"""What engine `rust` keeps in mind of a table, so that a batch is written without reading the table.

It holds as long as nobody else commits to the table; then it is made anew. An append that rests on it is refused by
Delta's log where somebody committed meanwhile, and tried again on what is there then.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Final

import pyarrow as pa
from deltalake import CommitProperties, DeltaTable, QueryBuilder, write_deltalake

from streaming_job.pipeline.arrow import Column, values
from streaming_job.pipeline.key_index import KeyIndex
from streaming_job.pipeline.merge import Merge, Merged, TableSpec
from streaming_job.pipeline.recent_rows import WINDOW_MS, RecentRows, hashes_of
from streaming_job.pipeline.rust_log import after_commit

Run = Callable[[pa.Table, Merge], Merged]
_NOBODY_BETWEEN: Final = CommitProperties(max_commit_retries=0)


def memory_of(spec: TableSpec) -> "Memory | None":
    if spec.found_by is not None:
        return _Places(*spec.found_by)
    if spec.dated_by is not None:
        return _Inserts(*spec.dated_by)
    return None


class Memory(ABC):
    def __init__(self) -> None:
        self._version = -1

    def follow(self, table: DeltaTable) -> None:
        """As of the table's version; reads it only where somebody else wrote to it."""
        if self._version != table.version():
            self._look_anew(table)
            self._version = table.version()

    def committed(self, before: int, after: int) -> None:
        """Our own commits keep every row as it is, or were taken note of."""
        if self._version == before and after <= before + 1:
            self._version = after

    def forget(self) -> None:
        self._version = -1

    def lacks(self, table: DeltaTable, keys: Column) -> Column | None:  # noqa: ARG002 - of one kind
        """Of these unique keys which are surely not there; None where that is not known by key."""
        return None

    @abstractmethod
    def merge(self, table: DeltaTable, source: pa.Table, merge: Merge, run: Run) -> Merged:
        """What `run` comes to, or the same by less."""

    @abstractmethod
    def _look_anew(self, table: DeltaTable) -> None: ...


class _Places(Memory):
    """Of a table whose rows are replaced: where the rows are that a merge may touch."""

    def __init__(self, key: str, time: str) -> None:
        super().__init__()
        self._key = key
        self._time = time
        self._index = KeyIndex([])

    def lacks(self, table: DeltaTable, keys: Column) -> Column | None:
        self.follow(table)
        return pa.array([not places for places in self._index.look_up(keys).places], pa.bool_())

    def merge(self, table: DeltaTable, source: pa.Table, merge: Merge, run: Run) -> Merged:
        self.follow(table)
        found = self._index.look_up(source[self._key])
        if not found.known and _is_whole(table, source, merge):
            merged = _append(table, source)
        else:
            merged = run(source, replace(merge, within=found.condition(f"t.`{self._time}`")))
        self._index.written(found, source[self._time], inserted=merged.inserted, updated=merged.updated)
        return merged

    def _look_anew(self, table: DeltaTable) -> None:
        found = _read(table, (self._key, self._time))
        self._index = KeyIndex((piece.column(0), piece.column(1)) for piece in found)


class _Inserts(Memory):
    """Of a table that only grows, by rows with a time of their own: what came of late."""

    def __init__(self, unique: tuple[str, ...], time: str) -> None:
        super().__init__()
        self._unique = unique
        self._time = time
        self._recent = RecentRows(0)

    def merge(self, table: DeltaTable, source: pa.Table, merge: Merge, run: Run) -> Merged:
        if not merge.is_dated:
            return run(source, merge)
        self.follow(table)
        hashes, times = hashes_of(source, self._unique), values(source, self._time)
        is_new = self._recent.lacks(hashes, times) and _is_whole(table, source, merge)
        merged = _append(table, source) if is_new else run(source, merge)
        self._recent.add(hashes, times)
        return merged

    def _look_anew(self, table: DeltaTable) -> None:
        newest = _newest(table, self._time)
        since_ms = 0 if newest is None else newest - WINDOW_MS
        self._recent = RecentRows(since_ms)
        if newest is not None:
            for piece in _read(table, (*self._unique, self._time), f'"{self._time}" >= {since_ms}'):
                self._recent.add(hashes_of(piece, self._unique), values(piece, self._time))


def _newest(table: DeltaTable, time: str) -> int | None:
    (piece,) = _query(table, f'SELECT max("{time}") AS newest FROM t')  # noqa: S608 - our own names
    found: int | None = piece.column(0)[0].as_py()
    return found


def _append(table: DeltaTable, source: pa.Table) -> Merged:
    """Nothing to match: a row written without a look at the table is all a merge would come to."""
    # An append compares what is said of the columns, which the table alone says.
    plain = source.cast(pa.schema([field.remove_metadata() for field in source.schema]))
    write_deltalake(
        table,
        plain,
        mode="append",
        commit_properties=_NOBODY_BETWEEN,
        post_commithook_properties=after_commit(table),
    )
    return Merged(source.num_rows, 0)


def _is_whole(table: DeltaTable, source: pa.Table, merge: Merge) -> bool:
    return set(source.column_names) == set(merge.insert) == {each.name for each in table.schema().fields}


def _read(table: DeltaTable, columns: tuple[str, ...], where: str | None = None) -> Iterator[pa.RecordBatch]:
    listed = ", ".join(f'"{name}"' for name in columns)
    return _query(table, f"SELECT {listed} FROM t" + (f" WHERE {where}" if where else ""))  # noqa: S608 - our own names


def _query(table: DeltaTable, sql: str) -> Iterator[pa.RecordBatch]:
    return map(pa.record_batch, QueryBuilder().register("t", table).execute(sql))

"""What engine `rust` keeps in mind of a table, so that a batch is written without reading the table.

It holds as long as nobody else commits to the table; then it is made anew. An append that rests on it is refused by
Delta's log where somebody committed meanwhile, and tried again on what is there then.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from operator import or_
from typing import Any, Final

import pyarrow as pa
from deltalake import CommitProperties, DeltaTable, QueryBuilder, write_deltalake

from streaming_job.pipeline import rust_sql
from streaming_job.pipeline.arrow import Column, pc, values
from streaming_job.pipeline.key_index import Found, KeyIndex, micros
from streaming_job.pipeline.merge import Merge, Merged, TableSpec, Update
from streaming_job.pipeline.recent_rows import WINDOW_MS, RecentRows, hashes_of
from streaming_job.pipeline.rust_files import HeldFile, RowFiles
from streaming_job.pipeline.rust_log import after_commit

Run = Callable[[pa.Table, Merge], Merged]
_REPLACED_MAX: Final = 500
"""Known keys of one batch; past that a merge takes less."""
_NOBODY_BETWEEN: Final = CommitProperties(max_commit_retries=0)


def memory_of(spec: TableSpec, storage: Mapping[str, str]) -> "Memory | None":
    if spec.found_by is not None:
        return _Places(RowFiles(str(spec.location), storage), *spec.found_by)
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

    def committed(self, before: int, after: int, ours: int = 1) -> None:
        """Our own commits, so many at most, keep every row as it is, or were taken note of."""
        if self._version == before and after <= before + ours:
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

    def __init__(self, files: RowFiles, key: str, time: str) -> None:
        super().__init__()
        self._files = files
        self._key = key
        self._time = time
        self._index = KeyIndex([])

    def lacks(self, table: DeltaTable, keys: Column) -> Column | None:
        self.follow(table)
        return pa.array([not places for places in self._index.look_up(keys).places], pa.bool_())

    def merge(self, table: DeltaTable, source: pa.Table, merge: Merge, run: Run) -> Merged:
        self.follow(table)
        found = self._index.look_up(source[self._key])
        is_whole = _is_whole(table, source, merge)
        if not found.known and is_whole:
            merged = self._told(found, source, _append(table, source))
        elif found.known <= _REPLACED_MAX and is_whole and _takes_whole_rows(table, merge):
            merged = self._replace(table, source, merge.updates[0], found)
        else:
            within = found.condition(f"t.`{self._time}`")
            merged = self._told(found, source, run(source, replace(merge, within=within)))
        if self._index.is_worn:
            self.forget()
        return merged

    def _told(self, found: Found, rows: pa.Table, merged: Merged) -> Merged:
        self._index.written(found, rows[self._time], inserted=merged.inserted, updated=merged.updated)
        return merged

    def _replace(self, table: DeltaTable, source: pa.Table, update: Update, found: Found) -> Merged:
        """What the merge would come to: rows that are newer take the place of what is there, by one commit."""
        ours = values(source, self._key)
        files = self._files.around(table, self._time, found.times())
        theirs = self._versions(table, ours, update.version, found, files)
        versions = list(zip(ours, values(source, update.version), strict=True))
        is_new = [key not in theirs for key in ours]
        is_newer = [key in theirs and update.is_newer(version, theirs[key]) for key, version in versions]
        rows = source.filter(pa.array(map(or_, is_new, is_newer), pa.bool_()))
        if any(is_newer):
            self._put_in_place(table, rows, found, files)
        elif rows.num_rows:
            _append(table, rows)
        # Of what was not newer nothing is told: it is where it was.
        for which, merged in ((is_newer, Merged(0, sum(is_newer))), (is_new, Merged(sum(is_new), 0))):
            self._told(found.only(which), source.filter(pa.array(which, pa.bool_())), merged)
        return Merged(sum(is_new), sum(is_newer))

    def _versions(
        self, table: DeltaTable, keys: list[str], version: str, found: Found, files: Sequence[HeldFile] | None
    ) -> dict[str, str]:
        """Of these keys those that are there: in the files, where they are known."""
        pieces: Iterable[pa.Table | pa.RecordBatch]
        if files is None:
            where = f"{self._is_one_of(keys)} AND ({found.condition(rust_sql.name(self._time))})"
            pieces = _read(table, (self._key, version), where)
        else:
            wanted = pa.array(keys, pa.string())
            pieces = (file.rows.filter(pc.is_in(file.rows[self._key], wanted)) for file in files)
        theirs: dict[str, str] = {}
        for piece in pieces:
            theirs |= zip(values(piece, self._key), values(piece, version), strict=True)
        return theirs

    def _put_in_place(self, table: DeltaTable, rows: pa.Table, found: Found, files: Sequence[HeldFile] | None) -> None:
        if files is not None:
            self._files.replace(table, rows, files, self._key)
            return
        keys, places = self._is_one_of(values(rows, self._key)), found.condition(rust_sql.name(self._time))
        # What is written must be what the condition covers, so that it names the new rows' times as well.
        _write(table, rows, in_place_of=f"{keys} AND ({places} OR {self._written_at(rows)})")

    def _is_one_of(self, keys: Sequence[str]) -> str:
        return f"{rust_sql.name(self._key)} IN ({rust_sql.texts(keys)})"

    def _written_at(self, rows: pa.Table) -> str:
        times = sorted(set(micros(rows[self._time]).tolist()))
        return f"{rust_sql.name(self._time)} IN ({', '.join(map(rust_sql.moment, times))})"

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
    _write(table, source)
    return Merged(source.num_rows, 0)


def _write(table: DeltaTable, rows: pa.Table, *, in_place_of: str | None = None) -> None:
    """`in_place_of`: the condition on rows that go by the same commit."""
    # A write compares what is said of the columns, which the table alone says.
    plain = rows.cast(pa.schema([field.remove_metadata() for field in rows.schema]))
    how: dict[str, Any] = {"mode": "append"} if in_place_of is None else {"mode": "overwrite", "predicate": in_place_of}
    write_deltalake(
        table, plain, **how, commit_properties=_NOBODY_BETWEEN, post_commithook_properties=after_commit(table)
    )


def _takes_whole_rows(table: DeltaTable, merge: Merge) -> bool:
    """Not where readers follow a table's changes: there an update is no delete and an insert."""
    follows = table.metadata().configuration.get("delta.enableChangeDataFeed") == "true"
    return not follows and len(merge.updates) == 1 and set(merge.updates[0].columns) == set(merge.insert)


def _is_whole(table: DeltaTable, source: pa.Table, merge: Merge) -> bool:
    return set(source.column_names) == set(merge.insert) == {each.name for each in table.schema().fields}


def _read(table: DeltaTable, columns: tuple[str, ...], where: str | None = None) -> Iterator[pa.RecordBatch]:
    listed = ", ".join(map(rust_sql.name, columns))
    return _query(table, f"SELECT {listed} FROM t" + (f" WHERE {where}" if where else ""))  # noqa: S608 - our own names


def _query(table: DeltaTable, sql: str) -> Iterator[pa.RecordBatch]:
    return map(pa.record_batch, QueryBuilder().register("t", table).execute(sql))

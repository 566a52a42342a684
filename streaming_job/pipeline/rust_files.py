"""Files of rows that engine `rust` writes again for a few of their rows, by a commit of its own making.

delta-rs makes queries of it: planned for a hundred columns they take longer than a batch's rows do, and what stays is
read twice. Here the rows of files written of late stay in memory, and a commit names the files that come and those that
go. What is large, or may need what only delta-rs looks after, is left to it.
"""

import io
import json
import re
import time
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any, Final
from uuid import uuid4

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from arro3.io import write_parquet
from deltalake import CommitProperties, DeltaTable
from deltalake.fs import DeltaStorageHandler
from deltalake.transaction import AddAction, RemoveAction
from numpy.typing import NDArray
from pyarrow.fs import PyFileSystem

from streaming_job.pipeline.arrow import Column, pc, plain, values
from streaming_job.pipeline.key_index import micros
from streaming_job.pipeline.rust_log import after_commit

FILE_BYTES: Final = 4 * 2**20
"""Of rows in memory: all of them are written again for any of them."""
HELD_BYTES_MAX: Final = 32 * 2**20
READ_BYTES_MAX: Final = 16 * 2**20
"""Of files whose rows are not in memory, where they take several times as much; upkeep joins files up to 8 MB."""
ROWS_MAX: Final = 30_000
"""Past that delta-rs, on every core, takes less for a row than it lost by planning."""
_CUTS_MAX: Final = 4
_FEATURES: Final = frozenset({"appendOnly", "invariants"})
"""Those that every table has; an invariant would stand in its columns' metadata."""
_PLAIN_PATH: Final = re.compile(r"[\w.-]+", re.ASCII)
_STATISTICS_OF: Final = 32
"""Delta's own, where the table does not say: so many columns from the first."""
_STATISTICS_CHARS_MAX: Final = 64
_CUT_US: Final = 999
"""Of times, statistics say whole milliseconds."""


@dataclass(frozen=True)
class HeldFile:
    path: str
    size: int
    rows: pa.Table
    rows_bytes: int
    """In memory: to ask again takes longer than it looks, a look at each piece of each column."""


class RowFiles:
    """Of one table without partitions. What is held of a file stays true: a file never changes."""

    def __init__(self, path: str, storage: Mapping[str, str]) -> None:
        handler: Any = DeltaStorageHandler(path, dict(storage))
        self._store = PyFileSystem(handler)
        self._held: OrderedDict[str, tuple[pa.Table, int]] = OrderedDict()
        self._held_bytes = 0

    def around(self, table: DeltaTable, column: str, times: Sequence[int]) -> list[HeldFile] | None:
        """The files that may hold rows of these times, in microseconds; None where they had better not be written."""
        if not _is_plain(table):
            return None
        found = _files(table, column, np.array(times, np.int64))
        to_read = sum(size for path, size, _ in found if path not in self._held)
        to_write = sum(rows or 0 for _, _, rows in found)
        is_much = to_read > READ_BYTES_MAX or to_write > ROWS_MAX
        if is_much or not all(_PLAIN_PATH.fullmatch(path) for path, _, _ in found):
            return None
        return [HeldFile(path, size, *self._rows(path)) for path, size, _ in found]

    def replace(self, table: DeltaTable, rows: pa.Table, files: Sequence[HeldFile], key: str) -> None:
        """Rows of whole columns come, and what these files have under their keys goes."""
        come, keys = _in_order(table, rows), rows[key]
        gone: list[RemoveAction] = []
        whole: list[pa.Table] = []
        whole_bytes = come.nbytes
        for file in files:
            goes = np.flatnonzero(pc.is_in(file.rows[key], keys).to_numpy())
            if len(goes):
                gone.append(RemoveAction(file.path, True, _now_ms(), file.size, {}))
                whole += _without(_as(come.schema, file.rows), goes.tolist())
                whole_bytes += file.rows_bytes
        pieces = list(_pieces(pa.concat_tables([*whole, come]), -(-whole_bytes // FILE_BYTES)))
        names = _names_with_statistics(table)
        added = [self._put(piece, names) for piece in pieces]
        self._commit(table, added, gone, rows.num_rows)
        for each in gone:
            self._forget(each.path)
        for add, piece in zip(added, pieces, strict=True):
            self._hold(add.path, piece)

    def _commit(self, table: DeltaTable, added: list[AddAction], gone: list[RemoveAction], rows: int) -> None:
        counts = {"num_added_files": len(added), "num_removed_files": len(gone), "num_replaced_rows": rows}
        table.create_write_transaction(
            [*added, *gone],
            "append",
            table.schema(),
            commit_properties=CommitProperties(max_commit_retries=0, custom_metadata={"operationMetrics": counts}),
            post_commithook_properties=after_commit(table),
        )
        # By this way of committing a handle does not take note of what it did.
        table.update_incremental()

    def _put(self, rows: pa.Table, names: Sequence[str]) -> AddAction:
        path, body = f"part-{uuid4()}.parquet", io.BytesIO()
        # What is soon written again is not worth compressing.
        write_parquet(rows, body, compression="uncompressed")
        # What fits the stream's buffer comes as bytes to the far end, which takes nothing else.
        with self._store.open_output_stream(path, buffer_size=body.tell() + 1) as out:
            out.write(body.getbuffer())
        return AddAction(path, body.tell(), {}, _now_ms(), True, json.dumps(_statistics(rows, names)))

    def _rows(self, path: str) -> tuple[pa.Table, int]:
        held = self._held.get(path)
        if held is not None:
            self._held.move_to_end(path)
            return held
        with self._store.open_input_stream(path) as file:
            # As Spark writes times, they would be nanoseconds to Arrow, which end with the year 2262.
            rows = pq.read_table(pa.BufferReader(file.read()), coerce_int96_timestamp_unit="us")
        return self._hold(path, plain(rows))

    def _hold(self, path: str, rows: pa.Table) -> tuple[pa.Table, int]:
        held = self._held[path] = rows, rows.nbytes
        self._held_bytes += held[1]
        while self._held_bytes > HELD_BYTES_MAX:
            self._forget(next(iter(self._held)))
        return held

    def _forget(self, path: str) -> None:
        _, size = self._held.pop(path, (None, 0))
        self._held_bytes -= size


def _is_plain(table: DeltaTable) -> bool:
    """Nothing in it asks more of a writer than rows: no constraint, no column that is computed, no feature."""
    protocol, schema = table.protocol(), table.schema().to_json()
    features = {*(protocol.writer_features or ()), *(protocol.reader_features or ())}
    has_constraint = any(name.startswith("delta.constraints.") for name in table.metadata().configuration)
    return features <= _FEATURES and not has_constraint and '"delta.' not in schema


def _files(table: DeltaTable, column: str, times: NDArray[np.int64]) -> list[tuple[str, int, int | None]]:
    """Paths, sizes and rows of those that may hold rows of these times, the oldest rows first: what is written again of
    several stays in order, so that each piece has a short span. By statistics; a file without them may hold any.
    """
    files = pa.table(table.get_add_actions(flatten=True))
    said = list(zip(*(values(files, name) for name in ("path", "size_bytes", "num_records")), strict=True))
    least, most = (f"{bound}.{column}" for bound in ("min", "max"))
    if least not in files.column_names:
        return said
    first, last = _micros(files[least], -(2**62)), _micros(files[most], 2**62)
    begins = np.searchsorted(times, first, "left")
    ends = np.searchsorted(times, last + _CUT_US, "right")
    return [said[at] for at in np.argsort(first, kind="stable").tolist() if begins[at] < ends[at]]


def _micros(times: Column, where_none: int) -> NDArray[np.int64]:
    in_micros = pa.timestamp("us", "UTC")
    return micros(pc.fill_null(times.cast(in_micros), pa.scalar(where_none, in_micros)))


def _in_order(table: DeltaTable, rows: pa.Table) -> pa.Table:
    """The table's columns in its order, and nothing said of them but their types."""
    schema = pa.schema([rows.schema.field(each.name).remove_metadata() for each in table.schema().fields])
    return rows.select(schema.names).cast(schema)


def _as(schema: pa.Schema, rows: pa.Table) -> pa.Table:
    """A file from before a column came does not have it."""
    if rows.schema == schema:
        return rows
    has = frozenset(rows.column_names)
    columns = [
        rows[field.name].cast(field.type) if field.name in has else pa.nulls(rows.num_rows, field.type)
        for field in schema
    ]
    return pa.table(columns, schema=schema)


def _without(rows: pa.Table, goes: Sequence[int]) -> Iterator[pa.Table]:
    """Where few rows go, what lies between them, uncopied; many such pieces cost more than a copy."""
    if len(goes) > _CUTS_MAX:
        stays = np.ones(rows.num_rows, np.bool_)
        stays[goes] = False
        yield rows.filter(pa.array(stays))
        return
    start = 0
    for at in (*goes, rows.num_rows):
        if at > start:
            yield rows.slice(start, at - start)
        start = at + 1


def _pieces(rows: pa.Table, count: int) -> Iterator[pa.Table]:
    size = -(-rows.num_rows // count)
    for start in range(0, rows.num_rows, size):
        yield rows.slice(start, size).combine_chunks()


def _names_with_statistics(table: DeltaTable) -> list[str]:
    """Our own columns alone: such a file is small, and delta-rs, which joins it with others, tells of more."""
    said = int(table.metadata().configuration.get("delta.dataSkippingNumIndexedCols", _STATISTICS_OF))
    names = [each.name for each in table.schema().fields]
    return [name for name in (names[:said] if said >= 0 else names) if name.startswith("_")]


def _statistics(rows: pa.Table, names: Sequence[str]) -> dict[str, Any]:
    """As Delta has them. Bounds that would be long are left out, which only means that a reader looks into the file."""
    bounds = {name: found for name in names if (found := _bounds(rows[name])) is not None}
    return {
        "numRecords": rows.num_rows,
        "minValues": {name: least for name, (least, _) in bounds.items()},
        "maxValues": {name: most for name, (_, most) in bounds.items()},
        "nullCount": {name: rows[name].null_count for name in names},
    }


def _bounds(column: Column) -> tuple[Any, Any] | None:
    kind = column.type
    is_text, is_time = pa.types.is_string(kind), pa.types.is_timestamp(kind) or pa.types.is_date(kind)
    if not (is_text or is_time or pa.types.is_integer(kind) or pa.types.is_floating(kind)):
        return None
    found = pc.min_max(column).as_py()
    least, most = found["min"], found["max"]
    if least is None or (is_text and max(len(least), len(most)) > _STATISTICS_CHARS_MAX):
        return None
    return (_time(least), _time(most)) if is_time else (least, most)


def _time(value: date | datetime) -> str:
    if not isinstance(value, datetime):
        return value.isoformat()
    return value.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="milliseconds") + "Z"


def _now_ms() -> int:
    return time.time_ns() // 1_000_000

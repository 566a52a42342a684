"""`_row_digest`: of an item's columns as they are written. `verify` computes it again from the table. Pure.

Columns that are null do not count, so that one added later changes nothing. What a session's settings would show in
another way (times, decimals) counts as the number it is.
"""

from base64 import b64encode
from hashlib import sha256
from typing import Any, Final

import orjson
import pyarrow as pa

from streaming_job.pipeline.arrow import Column, pc
from streaming_job.pipeline.naming import PROCESSED_AT

RESCUED: Final = "_rescued"


def row_digests(rows: pa.Table) -> Column:
    """Of a table with the item's columns, or its live view; of ours only what was rescued counts."""
    names = sorted(name for name in rows.column_names if name == RESCUED or not _is_ours(name))
    cells = zip(*(_plain(rows[name]) for name in names), strict=True) if names else ((),) * rows.num_rows
    return pa.array([_digest(names, row) for row in cells], pa.string())


def _is_ours(name: str) -> bool:
    return name.startswith("_") or name == PROCESSED_AT


def _digest(names: list[str], row: tuple[Any, ...]) -> str:
    held = {name: value for name, value in zip(names, row, strict=True) if value is not None}
    return sha256(orjson.dumps(held)).hexdigest()


def _plain(column: Any) -> list[Any]:
    kind = column.type
    if pa.types.is_timestamp(kind):
        column = pc.cast(column.cast(pa.timestamp("us", kind.tz)), pa.int64())
    elif pa.types.is_date(kind):
        column = pc.cast(column.cast(pa.date32()), pa.int32())
    elif pa.types.is_decimal(kind):
        column = column.cast(pa.string())
    elif pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
        return [None if value is None else b64encode(value).decode() for value in column.to_pylist()]
    held: list[Any] = column.to_pylist()
    return held

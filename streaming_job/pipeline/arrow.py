"""Arrow as the pipeline uses it. Its stubs know fewer forms of arguments than it takes: compute is untyped."""

from collections.abc import Mapping
from typing import Any

import pyarrow as pa
import pyarrow.compute

pc: Any = pyarrow.compute

Column = Any
"""An array or chunked array."""


def table(columns: Mapping[str, Any], schema: pa.Schema | None = None) -> pa.Table:
    built: pa.Table = pa.table(dict(columns), schema=schema)
    return built


def repeated(value: Any, data_type: Any, rows: int) -> Column:
    return pa.repeat(pa.scalar(value, data_type), rows)


def moment(at_ms: int, rows: int) -> Column:
    """One time for all rows, as Spark's timestamps are: microseconds in UTC."""
    return repeated(at_ms * 1000, pa.timestamp("us", "UTC"), rows)


def replaced(rows: pa.Table, name: str, values: Any) -> pa.Table:
    return rows.set_column(rows.column_names.index(name), rows.schema.field(name), values)


def kept(rows: pa.Table, where: Column) -> pa.Table:
    """The rows where it holds; no copy where it holds for all of them."""
    return rows if pc.sum(where).as_py() == rows.num_rows else rows.filter(where)


def values(rows: pa.Table | pa.RecordBatch, name: str) -> list[Any]:
    return rows[name].to_pylist()


def to_ipc(rows: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, rows.schema) as writer:
        writer.write_table(rows)
    return bytes(sink.getvalue())


def from_ipc(packed: bytes) -> pa.Table:
    with pa.ipc.open_stream(packed) as reader:
        return reader.read_all()


def plain(rows: pa.Table) -> pa.Table:
    """delta-rs' query engine answers with views of text and bytes, and so do files it writes by a query; neither Spark
    nor a merge takes them, nor half of what Arrow computes.
    """
    return rows.cast(pa.schema([_plain(field) for field in rows.schema]))


def _plain(field: Any) -> Any:
    if pa.types.is_string_view(field.type):
        return field.with_type(pa.string())
    if pa.types.is_binary_view(field.type):
        return field.with_type(pa.binary())
    return field

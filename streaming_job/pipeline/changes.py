"""One batch's changes as an Arrow table on the driver.

A batch is read from the source once, and nothing after looks at the source again. What is a map or a struct travels as
JSON text, which the log and every table can hold.
"""

from typing import Final

import pyarrow as pa

from streaming_job.pipeline.arrow import pc, table

SOURCE: Final = ("stream", "shardId", "sequenceNumber", "approximateArrivalTimestamp", "data")
"""The columns of the source's rows that are used."""

_FIELDS: Final[list[tuple[str, pa.DataType]]] = [
    ("stream", pa.string()),
    ("shard", pa.string()),
    ("kinesis_seq", pa.string()),
    ("arrival_ms", pa.int64()),
    ("data", pa.binary()),
    ("reject", pa.string()),
    ("table", pa.string()),
    ("op", pa.string()),
    ("id", pa.string()),
    ("change_seq", pa.string()),
    ("key", pa.string()),
    ("new", pa.string()),
    ("old", pa.string()),
    ("types", pa.string()),
    ("digest", pa.string()),
    ("rules", pa.string()),
    ("ttl", pa.bool_()),
    ("filtered", pa.bool_()),
    ("created_ms", pa.int64()),
    ("origin_ms", pa.int64()),
    ("bridge_in_ms", pa.int64()),
    ("bridge_out_ms", pa.int64()),
    ("ref", pa.string()),
]
SCHEMA: Final = pa.schema(_FIELDS)
"""Of a change. `types` and `ref` are JSON text; `data` is kept only where the change may still become a reject."""


def as_source_rows(changes: pa.Table) -> pa.Table:
    """The rows that changes with their bytes came from."""
    arrival = pc.cast(pc.multiply(changes["arrival_ms"], 1000), pa.timestamp("us", "UTC"))
    kept = [changes[name] for name in ("stream", "shard", "kinesis_seq")]
    return table(dict(zip(SOURCE, [*kept, arrival, changes["data"]], strict=True)))

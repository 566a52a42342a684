"""One batch's changes as an Arrow table on the driver, and the way back into Spark.

A batch is read from the source once: `collect` runs the whole plan to here, and nothing after it looks at the source
again. What Spark calls a map or a struct travels as JSON text, which the log and every table can hold.
"""

from collections.abc import Sequence
from typing import Final

import pyarrow as pa
from pyspark.sql import DataFrame
from pyspark.sql import functions as F  # noqa: N812 - as everybody calls it
from pyspark.sql.types import LongType, StructType

REF: Final = StructType().add("bucket", "string").add("key", "string").add("bytes", LongType()).add("sha256", "string")

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
"""Of a collected change. `types` and `ref` are JSON text."""


def lay_out(decoded: DataFrame, keep_bytes_of: Sequence[str] = ()) -> DataFrame:
    """The columns above, from what `decode` gives.

    A record's bytes are needed only where it may end as a reject; of the others they would travel twice.
    """
    may_reject = F.col("reject").isNotNull() | F.col("ref").isNotNull() | F.col("table").isin(list(keep_bytes_of))
    columns = {
        "data": F.when(may_reject, F.col("data")),
        "types": F.to_json(F.col("types")),
        "ref": F.to_json(F.col("ref")),
    }
    return decoded.select(*(columns.get(name, F.col(name)).alias(name) for name in SCHEMA.names))


def collect(laid_out: DataFrame) -> pa.Table:
    return laid_out.toArrow().cast(SCHEMA)


def restored(collected: DataFrame) -> DataFrame:
    """Collected changes in the shape `decode` gives them."""
    generation, number = F.split("change_seq", "-")[0], F.split("change_seq", "-")[1]
    return collected.withColumns(
        {
            "types": F.from_json("types", "map<string,string>"),
            "ref": F.from_json("ref", REF),
            "gen": generation,
            "seq": number,
        }
    )

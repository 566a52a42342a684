"""`rejects`: records that could not become changes, with their bytes, position and reason, to be redriven."""

import hashlib
from typing import Final

import pyarrow as pa
from pyspark.sql.types import BinaryType, LongType, StringType, StructType, TimestampType

from streaming_job.pipeline.arrow import kept, moment, pc, table, values
from streaming_job.pipeline.locations import Location
from streaming_job.pipeline.merge import LakeTable, Merge, TableSpec
from streaming_job.pipeline.merge_rust import arrow_schema

COLUMNS: Final = (
    StructType()
    .add("_stream", StringType())
    .add("_shard", StringType())
    .add("_kinesis_seq", StringType())
    .add("_sha256", StringType())
    .add("_reason", StringType())
    .add("_table", StringType())
    .add("_arrival_ms", LongType())
    .add("_ingest_ts", TimestampType())
    .add("_data", BinaryType())
)
_SCHEMA: Final = arrow_schema(COLUMNS)
# Records that a producer aggregated share their sequence number: the hash of the bytes tells them apart.
_MERGE: Final = Merge(match=("_stream", "_shard", "_kinesis_seq", "_sha256"), insert=COLUMNS.names)


def spec(location: Location) -> TableSpec:
    return TableSpec(location, COLUMNS)


def split(changes: pa.Table) -> tuple[pa.Table, pa.Table]:
    """Changes that are good, and rejects."""
    is_good = pc.is_null(changes["reject"])
    return kept(changes, is_good), changes.filter(pc.invert(is_good))


def write(into: LakeTable, rejects: pa.Table, ingest_ms: int) -> int:
    if not rejects.num_rows:
        return 0
    rows = table(
        {
            "_stream": rejects["stream"],
            "_shard": rejects["shard"],
            "_kinesis_seq": rejects["kinesis_seq"],
            "_sha256": [hashlib.sha256(data or b"").hexdigest() for data in values(rejects, "data")],
            "_reason": rejects["reject"],
            "_table": rejects["table"],
            "_arrival_ms": rejects["arrival_ms"],
            "_ingest_ts": moment(ingest_ms, rejects.num_rows),
            "_data": rejects["data"],
        },
        _SCHEMA,
    )
    by_position = rows.group_by(["_stream", "_shard", "_kinesis_seq", "_sha256"], use_threads=False)
    unique = by_position.aggregate([(name, "first") for name in COLUMNS.names[4:]]).rename_columns(
        [*COLUMNS.names[:4], *COLUMNS.names[4:]]
    )
    return into.merge(unique.cast(_SCHEMA), _MERGE).inserted

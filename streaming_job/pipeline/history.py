"""`history`: every change, once, by (table, key, seq), with its images as they came.

A change's day never changes, nor does its time of creation, so a merge needs to look only at files of the batch's days
and of its span of creation times: what arrives now meets the newest files alone, however long the history grows.
"""

from datetime import date
from typing import Final

import pyarrow as pa
from pyspark.sql.types import BooleanType, DateType, LongType, StringType, StructType, TimestampType

from config.limits import CALENDAR_MS_MAX
from streaming_job.pipeline.arrow import Column, kept, moment, pc, table
from streaming_job.pipeline.locations import Location
from streaming_job.pipeline.merge import Guard, LakeTable, Merge, TableSpec
from streaming_job.pipeline.merge_rust import arrow_schema

COLUMNS: Final = (
    StructType()
    .add("_table", StringType())
    .add("_key", StringType())
    .add("_seq", StringType())
    .add("_op", StringType())
    .add("_id", StringType())
    .add("_day", DateType())
    .add("_created_ms", LongType())
    .add("_origin_ms", LongType())
    .add("_bridge_in_ms", LongType())
    .add("_bridge_out_ms", LongType())
    .add("_arrival_ms", LongType())
    .add("_ingest_ts", TimestampType())
    .add("_ttl", BooleanType())
    .add("_filtered", BooleanType())
    .add("_digest", StringType())
    .add("_rules", StringType())
    .add("_types", StringType())
    .add("_new", StringType())
    .add("_old", StringType())
)
_SCHEMA: Final = arrow_schema(COLUMNS)
_UNIQUE: Final = ("_table", "_key", "_seq")
_DAY_MS: Final = 86_400_000


def spec(location: Location, properties: dict[str, str]) -> TableSpec:
    return TableSpec(
        location, COLUMNS, partition_by=("_day",), properties=properties, dated_by=(_UNIQUE, "_created_ms")
    )


def write(into: LakeTable, changes: pa.Table, ingest_ms: int, guard: Guard) -> int:
    """How many of these changes were new to the history. Dated ones are found by their time, so the others go apart."""
    rows = _rows(changes, ingest_ms)
    is_dated = _is_dated(rows["_created_ms"], rows["_op"])
    parts = ((True, kept(rows, is_dated)), (False, kept(rows, pc.invert(is_dated))))
    return sum(_merged(into, part, guard, is_dated=dated) for dated, part in parts if part.num_rows)


def _merged(into: LakeTable, rows: pa.Table, guard: Guard, *, is_dated: bool) -> int:
    within = _within(rows, is_dated=is_dated)
    merge = Merge(match=_UNIQUE, insert=COLUMNS.names, within=within, is_dated=is_dated)
    return into.merge(rows, merge, guard).inserted


def _rows(changes: pa.Table, ingest_ms: int) -> pa.Table:
    names = {"_seq": "change_seq"}
    columns: dict[str, Column] = {
        field.name: changes[names.get(field.name, field.name[1:])]
        for field in _SCHEMA
        if field.name not in {"_day", "_ingest_ts"}
    }
    columns["_day"] = _day(changes)
    columns["_ingest_ts"] = moment(ingest_ms, changes.num_rows)
    return table({field.name: columns[field.name] for field in _SCHEMA}, _SCHEMA)


def _day(changes: pa.Table) -> Column:
    """The UTC day of creation; its generation's where there is none, and for a scanned row: each scan dates it anew.

    What is no day at all (a producer may write anything) counts as 1970-01-01: a change is kept whatever it says.
    """
    within_calendar = pc.max_element_wise(pc.min_element_wise(changes["created_ms"], CALENDAR_MS_MAX), 0)
    created = pc.cast(pc.divide(within_calendar, _DAY_MS), pa.int32()).cast(pa.date32())
    digits = pc.utf8_slice_codeunits(changes["change_seq"], 0, 8)
    generation = pc.strptime(digits, format="%Y%m%d", unit="s", error_is_null=True).cast(pa.date32())
    is_dated = _is_dated(changes["created_ms"], changes["op"])
    return pc.coalesce(pc.if_else(is_dated, created, generation), pa.scalar(date(1970, 1, 1)))


def _is_dated(created_ms: Column, op: Column) -> Column:
    """A scanned row's time is that of its scan: scanned again, the same row has another."""
    return pc.and_(pc.is_valid(created_ms), pc.not_equal(op, "SNAPSHOT"))


def _within(rows: pa.Table, *, is_dated: bool) -> str:
    days = ", ".join(f"'{day.isoformat()}'" for day in _days(rows))
    within = f"t._day IN ({days})"
    if not is_dated:
        return within
    span = pc.min_max(rows["_created_ms"]).as_py()
    return f"{within} AND t._created_ms >= {span['min']} AND t._created_ms <= {span['max']}"


def _days(rows: pa.Table) -> list[date]:
    days: list[date] = pc.unique(rows["_day"]).to_pylist()
    return sorted(days)

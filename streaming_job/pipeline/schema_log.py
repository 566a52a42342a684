"""`schema_changes`: which column appeared and which value did not fit, each said once."""

import json
from datetime import UTC, datetime
from itertools import islice
from typing import Final

import pyarrow as pa
from pyspark.sql.types import StringType, StructType, TimestampType

from streaming_job.pipeline.arrow import pc, values
from streaming_job.pipeline.locations import Location
from streaming_job.pipeline.merge import LakeTable, Merge, TableSpec
from streaming_job.pipeline.merge_rust import arrow_schema

COLUMNS: Final = (
    StructType()
    .add("_table", StringType())
    .add("_event", StringType())
    .add("_name", StringType())
    .add("_type", StringType())
    .add("_key", StringType())
    .add("_seq", StringType())
    .add("_ingest_ts", TimestampType())
)
_SCHEMA: Final = arrow_schema(COLUMNS)
PATHS_MAX: Final = 1_000
"""Of one source table: maps that are keyed by ids have a path more for each."""
_RESCUED: Final = "rescued"
_MORE: Final = {"_event": "more_rescued", "_name": "*"}
_MERGE: Final = Merge(match=("_table", "_event", "_name"), insert=COLUMNS.names)


def spec(location: Location) -> TableSpec:
    return TableSpec(location, COLUMNS)


class SchemaLog:
    """Of one source table. Remembers what was said, so that a usual batch writes nothing here."""

    def __init__(self, log: LakeTable, table: str) -> None:
        self._log = log
        self._table = table
        self._said: set[str] | None = None
        self._room = PATHS_MAX
        self._said_more = False

    def columns_appeared(self, columns: StructType, ingest_ms: int) -> None:
        self._write(
            [
                {"_event": "column", "_name": field.name, "_type": field.dataType.simpleString()}
                for field in columns.fields
            ],
            ingest_ms,
        )

    def values_rescued(self, rows: pa.Table, ingest_ms: int) -> int:
        """How many of these rows hold a value that did not fit. A path seen first is logged, with the row; past so many
        only that there are more.
        """
        count = rows.num_rows - rows["_rescued"].null_count
        if count and not self._said_more:
            self._say(rescued_paths(rows), ingest_ms)
        return count

    def _say(self, paths: dict[str, dict[str, str]], ingest_ms: int) -> None:
        said = self._said = self._recalled() if self._said is None else self._said
        unsaid = iter([(path, row) for path, row in paths.items() if path not in said])
        new = dict(islice(unsaid, max(self._room, 0)))
        more = [_MORE | row for _, row in islice(unsaid, 1)]
        self._write([{"_event": _RESCUED, "_name": path, **row} for path, row in new.items()] + more, ingest_ms)
        said.update(new)
        self._room -= len(new)
        self._said_more = bool(more)

    def _recalled(self) -> set[str]:
        """What the log holds from before this start."""
        ours = f"_table = '{self._table}' AND _event = '{_RESCUED}'"
        self._room = PATHS_MAX - self._log.count(ours)
        return set(values(self._log.read(["_name"], ours), "_name")) if self._room >= 0 else set()

    def _write(self, events: list[dict[str, str]], ingest_ms: int) -> None:
        if events:
            stamp = datetime.fromtimestamp(ingest_ms / 1000, UTC)
            rows = [{"_table": self._table, "_ingest_ts": stamp, **event} for event in events]
            self._log.merge(pa.Table.from_pylist(rows, schema=_SCHEMA), _MERGE)


def rescued_paths(rows: pa.Table) -> dict[str, dict[str, str]]:
    """The paths of values that have no column or do not fit it, and the first row that has each."""
    first: dict[str, dict[str, str]] = {}
    rescued = rows.filter(pc.is_valid(rows["_rescued"])).select(["_rescued", "_key", "_seq"])
    for row in rescued.to_pylist():
        for path in json.loads(row["_rescued"]):
            first.setdefault(path, {"_key": row["_key"], "_seq": row["_seq"]})
    return first

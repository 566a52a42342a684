"""Random histories, delivered in any order, twice, and cut anywhere, through engine rust: held equal to a model.

No Spark here, so that many histories can be tried; the pipeline with both engines has a suite of its own.
"""

import json
import os
from datetime import UTC, datetime
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow as pa
from envelopes import DAY_MS, Change, collected
from histories import batches, model
from hypothesis import HealthCheck, given, settings
from pyspark.sql.types import LongType, StructField, StructType

from streaming_job.pipeline import current, dedupe, history
from streaming_job.pipeline.locations import Location
from streaming_job.pipeline.merge import TableSpec, no_guard
from streaming_job.pipeline.merge_rust import RustTable, arrow_schema

EXAMPLES = int(os.environ.get("LAKESTREAM_EXAMPLES", "25"))
COLUMNS = StructType([*current.SYSTEM.fields, StructField("n", LongType())])


def rows(changes: pa.Table, at_ms: int) -> pa.Table:
    """The newest changes as rows of `current`, without Spark: the item's one number is its column."""
    made: list[dict[str, Any]] = []
    for change in changes.to_pylist():
        item = json.loads(change["new"] or "{}")
        made.append(
            {
                "_key": change["key"], "_seq": change["change_seq"], "_op": change["op"],
                "_deleted": change["op"] == "REMOVE", "_ttl": change["ttl"], "_digest": change["digest"],
                "_ingest_ts": datetime.fromtimestamp(at_ms / 1000, UTC), "n": item.get("n"),
            }
        )  # fmt: skip
    return pa.Table.from_pylist(made, schema=arrow_schema(COLUMNS))


@settings(
    max_examples=EXAMPLES, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)
@given(batches())
def test_whatever_is_duplicated_reordered_replayed_or_cut_the_tables_equal_the_model(
    delivered: list[list[Change]],
) -> None:
    with TemporaryDirectory() as folder:
        # The one merges; the other knows where its rows are, and replaces them.
        merged = RustTable(TableSpec(Location(path=folder + "/merged"), COLUMNS))
        indexed = RustTable(TableSpec(Location(path=folder + "/indexed"), COLUMNS, found_by=("_key", "_ingest_ts")))
        past = RustTable(history.spec(Location(path=folder + "/history"), {}))
        for number, batch in enumerate(delivered):
            at_ms = DAY_MS + number * 1000
            changes = dedupe.once(collected(batch))
            history.write(past, changes, at_ms, no_guard)
            source = rows(dedupe.newest(changes), at_ms)
            assert current.write(merged, source, no_guard) == current.write(indexed, source, no_guard)
        expected = model(delivered)
        for table in (merged, indexed):
            read = table.read(["_key", "_seq", "_deleted", "_digest", "n"]).to_pylist()
            held = {row["_key"]: row for row in read}
            assert len(held) == len(read)
            assert {
                key: (row["_seq"], row["_deleted"], row["_digest"]) for key, row in held.items()
            } == expected.current
            assert all(row["n"] == (expected.items[key] or {}).get("n") for key, row in held.items())
        seen = past.read(["_table", "_key", "_seq"]).to_pylist()
        assert sorted((row["_table"], row["_key"], row["_seq"]) for row in seen) == sorted(expected.history)

"""SQL is made of quoted names and quoted values alone: whatever a table, an attribute or a key is called."""

from pathlib import Path

import pytest
from envelopes import Change, put, remove
from lake_rig import table_config
from pydantic import ValidationError
from pyspark.sql.types import StringType, StructType
from rig_without_spark import RigWithoutSpark

from config.settings import LakeSettings
from streaming_job.pipeline.locations import Lake, Location
from streaming_job.pipeline.merge import Merge, TableSpec
from streaming_job.pipeline.merge_rust import RustTable, arrow_schema

HOSTILE = (
    "a' OR '1'='1",
    "'); DROP TABLE t; --",
    '"; DELETE FROM t; --',
    "`t`; SELECT 1",
    "\\' OR 1=1 --",
    "${spark.conf}",
    "{0} %s {name}",
    "line\nbreak\x00nul",
    "ünï\u202ecode",
    "*/ /*",
)


@pytest.mark.parametrize("name", HOSTILE)
def test_a_key_finds_its_own_row_and_no_other(name: str, tmp_path: Path) -> None:
    columns = StructType().add("_key", StringType()).add("_seq", StringType())
    table = RustTable(TableSpec(Location(path=str(tmp_path)), columns))
    rows = {"_key": [name, "plain", "'"], "_seq": ["1", "2", "3"]}
    merge = Merge(match=("_key",), insert=("_key", "_seq"))
    source = arrow_schema(columns).empty_table().from_pydict(rows, schema=arrow_schema(columns))
    assert table.merge(source, merge).inserted == 3
    assert table.merge(source, merge).inserted == 0
    assert table.newest([name]) == {name: "1"}
    assert table.newest(["nobody", *HOSTILE]) == {name: "1"}


@pytest.mark.parametrize("name", HOSTILE)
def test_attributes_and_keys_of_any_name_pass_through_every_table(name: str, tmp_path: Path) -> None:
    """Flattened, purged, asked of history and rescued; the rows beside them stay as they are."""
    rules = {"deletes": {"policy": "hard", "window_h": 1}}
    rig = RigWithoutSpark(tmp_path, table_config("things", **rules), upkeep={"purge_every_s": 60})
    hostile = Change({"id": name}, 1, new={"id": name, name: name, "m": {name: 1}})
    with rig.pipeline() as pipeline:
        pipeline.process_batch(rig.frame([hostile, put("plain", 1, n=1)]), 0)
        (row,) = [row for row in rig.rows("things/current") if row["id"] == name]
        assert name in row.values()
        assert all(column.replace("_", "").isascii() and column.replace("_", "").isalnum() for column in row)
        pipeline.process_batch(rig.frame([remove(name, 2)]), 1)
        rig.clock.now_ms += 2 * 3_600_000
        rig.idle(pipeline)
        report = pipeline.process_batch(rig.frame([hostile]), 2)
        assert report.tables["things"].failure is None
    assert [row["id"] for row in rig.rows("things/current")] == ["plain"]
    assert len(rig.rows("things/history")) == 3


@pytest.mark.parametrize("name", ["t'; --", "a`b", 'x"', "a b", "", "a/b", "ü", "x" * 256])
def test_a_source_table_is_named_as_dynamodb_names_tables_or_refused(name: str) -> None:
    with pytest.raises(ValidationError):
        table_config(name)


def test_a_catalog_a_schema_and_a_path_are_quoted() -> None:
    named = LakeSettings.model_validate({"catalog": "c`; DROP", "schema": "s` x", "checkpoint": "/c"})
    assert Lake(named).shared("rejects").sql == "`c``; DROP`.`s`` x`.`rejects`"
    lying = LakeSettings.model_validate({"root": "/lake`; DROP TABLE t; --", "checkpoint": "/c"})
    assert Lake(lying).shared("rejects").sql == "delta.`/lake``; DROP TABLE t; --/rejects`"

"""Engine `spark`: a table becomes another one in one commit, by path and by name; its view and its readers go along."""

import re
from pathlib import Path

import pyarrow as pa
import pytest
from delta.tables import DeltaTable
from envelopes import put
from lake_rig import LakeRig, table_config
from pyspark.sql import SparkSession
from pyspark.sql.types import DoubleType, LongType, StringType, StructField, StructType

from streaming_job.pipeline import current
from streaming_job.pipeline.locations import Lake, Location
from streaming_job.pipeline.merge import Merge, TableSpec
from streaming_job.pipeline.merge_spark import SparkTable
from streaming_job.pipeline.opening import Tables
from streaming_job.pipeline.rebuild import Rebuild, State

pytestmark = pytest.mark.spark
COLUMNS = StructType().add("_key", StringType()).add("_seq", StringType())
NUMBER = 1_793_600_000_000


def made(spark: SparkSession, place: Location, n: StructField, rows: pa.Table) -> SparkTable:
    columns = StructType([*COLUMNS.fields, n])
    table = SparkTable(spark, TableSpec(place, columns, properties={"lakestream.mark": "kept"}))
    table.merge(rows, Merge(match=("_key",), insert=columns.names))
    return table


def places(lake: Path, kind: str) -> tuple[Location, Location]:
    if kind == "path":
        return Location(path=str(lake / "old")), Location(path=str(lake / "new"))
    name = re.sub(r"\W", "_", lake.parent.name)
    return Location(name=f"`default`.`old_{name}`"), Location(name=f"`default`.`new_{name}`")


@pytest.mark.parametrize("kind", ["path", "name"])
def test_a_table_becomes_another_in_one_commit_with_its_types_and_keeps_its_properties_and_its_past(
    spark: SparkSession, lake: Path, kind: str
) -> None:
    """Asked twice, it becomes it once; what came after stays."""
    at, beside = places(lake, kind)
    number = StructField("n", DoubleType(), metadata={"comment": "from /n"})
    whole = StructField("n", LongType(), metadata={"comment": "from /n"})
    old = made(spark, at, number, pa.table({"_key": ["a"], "_seq": ["1"], "n": [1.5]}))
    made(spark, beside, whole, pa.table({"_key": ["a", "b"], "_seq": ["1", "2"], "n": [2, 3]}))
    before = history(spark, at)
    old.become(beside, NUMBER)
    assert len(history(spark, at)) == len(before) + 1
    rows = spark.table(at.sql)
    assert sorted((row["_key"], row["n"]) for row in rows.collect()) == [("a", 2), ("b", 3)]
    assert rows.schema["n"].dataType == LongType()
    assert rows.schema["n"].metadata["comment"] == "from /n"
    assert old.properties()["lakestream.mark"] == "kept"
    past = spark.sql(f"SELECT n FROM {at.sql} VERSION AS OF {max(before)}").collect()  # noqa: S608 - a test's
    assert [row["n"] for row in past] == [1.5]


def history(spark: SparkSession, place: Location) -> list[int]:
    table = DeltaTable.forPath(spark, place.path) if place.path else DeltaTable.forName(spark, place.sql)
    return [row["version"] for row in table.history().collect()]


def test_a_pipeline_of_engine_spark_writes_both_tables_and_goes_on_with_the_promoted_one(
    spark: SparkSession, lake: Path
) -> None:
    old, new = table_config(engine="spark"), table_config(engine="spark", columns={"n": {"type": "bigint"}})
    rig = LakeRig(spark, lake, old)
    rig.run([put("a", 1, n=1), put("gone", 1, n=1)])
    place = Lake(rig.settings.lake).of(old).rebuilt
    tables = Tables(rig.settings, lambda: spark)
    rebuild = Rebuild(NUMBER, State.FILLING, "snapshot", new.lake.model_dump(mode="json", by_alias=True))
    made_new = tables.open("spark", current.spec(place, StructType(), rebuild.as_properties()))
    with rig.pipeline() as pipeline:
        pipeline.process_batch(rig.frame([put("a", 2, n=2), put("b", 1, n=5)]), 0)
        Rebuild(NUMBER, State.PROMOTING, "snapshot", rebuild.rules).keep(made_new)
        rig.clock.now_ms += 6_000
        pipeline.between_batches()
        (report,) = pipeline.process_batch(rig.frame([put("c", 1, n=7)]), 1).tables.values()
    assert report.failure is None
    rows = rig.rows("things/current", "_key", "n")
    assert [(row["_key"], row["n"]) for row in rows] == [('{"id":"a"}', 2), ('{"id":"b"}', 5), ('{"id":"c"}', 7)]
    assert all(isinstance(row["n"], int) for row in rows)

"""The generated Spark statements, run by Spark over an archive on disk."""

import gzip
import json
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pytest
from deltalake import write_deltalake
from pyspark.sql import SparkSession

from streaming_job.operations.archive_statements import one_by_one
from streaming_job.operations.archive_statements import spark as spark_statements
from streaming_job.operations.redrive_rejects import DeltaRejects, Reject, SparkRejects

pytestmark = pytest.mark.spark

EXACT = "12345678901234567890.123456789012345678"


def line(seq: int, **fields: object) -> str:
    body = {
        "v": 1, "rules": "1", "table": "cars", "op": "INSERT", "id": "e", "gen": "2" * 17, "seq": f"{seq:040d}",
        "key": {"id": "a"}, "new": {"id": "a", "vehicle": {"make": "VW"}, "n": "N", "s": '{"x":1.5}', "i": 7},
        "old": None, "types": {"/new/b": "B"}, "digest": None, "ttl": False, "filtered": False, "created_ms": 5,
        "origin_ms": None, "bridge_in_ms": 1, "bridge_out_ms": 2, "ref": None,
    }  # fmt: skip
    return json.dumps(body | fields, separators=(",", ":")).replace('"N"', EXACT)


def test_sparks_views_read_the_archive_with_every_digit_and_each_change_once(
    spark: SparkSession, tmp_path: Path
) -> None:
    for hour, lines in (("07", [line(1), line(2)]), ("08", [line(2, bridge_out_ms=9), '{"v":2}', "no json"])):
        folder = tmp_path / "archive" / "date=2026-01-01" / f"hour={hour}"
        folder.mkdir(parents=True)
        (folder / "part.gz").write_bytes(gzip.compress("\n".join(lines).encode()))
    for statement in one_by_one(spark_statements("archived", f"file://{tmp_path}/archive/", databricks=False)):
        spark.sql(statement)
    ((count, once),) = spark.sql(
        "SELECT (SELECT count(*) FROM archived), (SELECT count(*) FROM archived_once)"
    ).collect()
    assert (count, once) == (3, 2)
    row = spark.sql(
        "SELECT key, get_json_object(new, '$.vehicle.make') AS make, from_json(new, 'n DECIMAL(38,18)').n AS n,"
        " new, types['/new/b'] AS type, hour FROM archived_once WHERE seq LIKE '%2'"
    ).first()
    assert row is not None
    assert (row.key, row.make, row.type, int(row.hour)) == ('{"id":"a"}', "VW", "B", 7)
    assert row.n == Decimal(EXACT)
    assert json.loads(row.new) == {"id": "a", "vehicle": {"make": "VW"}, "n": EXACT, "s": '{"x":1.5}', "i": 7}
    for name in ("VIEW archived_once", "VIEW archived", "TABLE archived_lines"):
        spark.sql(f"DROP {name}")


def test_rejects_in_a_catalog_are_read_as_those_at_a_path_are(spark: SparkSession, tmp_path: Path) -> None:
    path = str(tmp_path / "rejects")
    rows = {"_sha256": ["b", "a"], "_reason": ["r", "r"], "_table": [None, "cars"], "_arrival_ms": [2, 1]}
    columns = {**rows, "_table": pa.array(rows["_table"], pa.string()), "_data": [b"\xff", b"{}"]}
    write_deltalake(path, pa.table(columns))
    spark.sql(f"CREATE TABLE catalogued_rejects USING delta LOCATION '{path}'")
    found = list(SparkRejects(spark, "`spark_catalog`.`default`.`catalogued_rejects`").rows())
    assert (
        found == list(DeltaRejects(path).rows()) == [Reject("a", "r", "cars", b"{}"), Reject("b", "r", None, b"\xff")]
    )
    assert list(SparkRejects(spark, "`spark_catalog`.`default`.`no_such_table`").rows()) == []
    spark.sql("DROP TABLE catalogued_rejects")

"""What the lake tables hold after batches with policies, purges, claim checks, repairs, strictness and feeds."""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import pytest
from deltalake import DeltaTable
from envelopes import Change, put, remove
from lake_rig import LakeRig, table_config
from local_workers import running_emulator
from pyspark.sql import SparkSession
from pyspark.sql import functions as F  # noqa: N812 - as everybody calls it

from streaming_job.pipeline.locations import Location, live_sql
from streaming_job.pipeline.row_digest import row_digests

pytestmark = pytest.mark.spark
HOUR_MS = 3_600_000
STATE = ("_key", "_seq", "_op", "_deleted", "n")


def seqs(rig: LakeRig) -> dict[str, tuple[str, bool, float | None]]:
    return {row["_key"][7:-2]: (row["_op"], row["_deleted"], row["n"]) for row in rig.rows("things/current", *STATE)}


def test_the_live_view_leaves_tombstones_out_and_the_row_digest_can_be_computed_again(
    spark: SparkSession, lake: Path
) -> None:
    rig = LakeRig(spark, lake, table_config(columns={"d": {"type": "decimal(38,4)"}}))
    rig.run([put("a", 1, n=0.1, d=1, text="ü\u2028"), put("b", 1, n=1)], [remove("b", 2), put("c", 1, later=True)])
    place = Location(path=rig.path("things/current"))
    live = spark.sql(live_sql(place))
    assert sorted(row["id"] for row in live.select("id").collect()) == ["a", "c"]
    found = live.toArrow()
    assert found["pipeline_processed_at"].to_pylist() == found["_ingest_ts"].to_pylist()
    assert row_digests(found).to_pylist() == found["_row_digest"].to_pylist()


def test_an_ignored_delete_keeps_its_row_under_its_own_version_in_whatever_order(
    spark: SparkSession, lake: Path
) -> None:
    gone = remove("a", 3, old={"id": "a", "n": 2})
    rig = LakeRig(spark, lake, table_config(deletes={"policy": "ignore"}))
    rig.run([gone, put("a", 1, n=1)], [put("a", 2, n=2)])
    assert seqs(rig) == {"a": ("REMOVE", False, 2.0)}


def test_an_ignored_delete_without_an_image_marks_the_row_that_is_there(spark: SparkSession, lake: Path) -> None:
    rig = LakeRig(spark, lake, table_config(deletes={"policy": "ignore"}))
    rig.run([put("a", 1, n=1), put("b", 1, n=1), remove("b", 2)], [remove("a", 2), remove("c", 1)])
    assert seqs(rig) == {"a": ("REMOVE", False, 1.0), "b": ("REMOVE", False, 1.0), "c": ("REMOVE", True, None)}
    assert all(row["_digest"] is None for row in rig.rows("things/current", "_digest"))


def test_hard_deletes_are_purged_after_their_window_and_nothing_older_comes_back(
    spark: SparkSession, lake: Path
) -> None:
    rig = LakeRig(spark, lake, table_config(deletes={"policy": "hard", "window_h": 24}))
    first, expired = put("a", 1, n=1), remove("e", 2, ttl=True)
    with rig.pipeline() as pipeline:
        pipeline.process_batch(rig.frame([first, put("b", 1, n=1), put("e", 1, n=1)]), 0)
        pipeline.process_batch(rig.frame([remove("a", 2), expired]), 1)
        rig.clock.now_ms += 23 * HOUR_MS
        rig.idle(pipeline)
        assert set(seqs(rig)) == {"a", "b", "e"}
        rig.clock.now_ms += 2 * HOUR_MS
        rig.idle(pipeline)
        assert set(seqs(rig)) == {"b"}

        scan = replace(first, op="SNAPSHOT", number=0, created_ms=None)
        new_scan = replace(scan, generation="20271101120000000")
        pipeline.process_batch(rig.frame([first, scan, put("e", 1, n=1)]), 2)
        assert set(seqs(rig)) == {"b"}
        pipeline.process_batch(rig.frame([new_scan]), 3)
        assert seqs(rig)["a"] == ("SNAPSHOT", False, 1.0)


def test_a_strict_table_rejects_what_does_not_fit_and_keeps_the_version_before(spark: SparkSession, lake: Path) -> None:
    rig = LakeRig(spark, lake, table_config(strict=True, columns={"n": {"type": "bigint"}}))
    bad = put("a", 2, n="many")
    (report,) = rig.run([put("a", 1, n=1), bad, put("b", 1, n=2)])
    assert report.rejects == 1
    assert seqs(rig) == {"a": ("MODIFY", False, 1), "b": ("MODIFY", False, 2)}
    (reject,) = rig.rows("rejects")
    assert reject["_data"] == bad.line()
    assert reject["_reason"] == "strict: no column takes the value at /n"


def test_a_repair_also_replaces_a_row_by_the_same_version_of_itself(spark: SparkSession, lake: Path) -> None:
    rig = LakeRig(spark, lake, table_config())
    rig.run([put("a", 1, n=1), put("b", 2, n=2)])
    with rig.pipeline() as pipeline:
        pipeline.process_batch(rig.frame([put("a", 1, n=7), put("b", 1, n=7)]), 1, repair=True)
    assert {key: row[2] for key, row in seqs(rig).items()} == {"a": 7.0, "b": 2.0}


def test_the_change_data_feed_shows_each_row_before_and_after(spark: SparkSession, lake: Path) -> None:
    rig = LakeRig(spark, lake, table_config(change_data_feed=True))
    rig.run([put("a", 1, n=1)], [put("a", 2, n=2)])
    feed = spark.read.format("delta").option("readChangeFeed", "true").option("startingVersion", 0)
    rows = feed.load(rig.path("things/current")).select("_change_type", "n").collect()
    assert sorted((row["_change_type"], row["n"]) for row in rows) == [
        ("insert", 1.0), ("update_postimage", 2.0), ("update_preimage", 1.0)
    ]  # fmt: skip


def test_schema_changes_tell_which_column_appeared_and_which_value_was_rescued(spark: SparkSession, lake: Path) -> None:
    rig = LakeRig(spark, lake, table_config())
    rig.run([put("a", 1, n=1)], [put("b", 1, n="text", more=True)], [put("b", 2, n="text")])
    logged = rig.rows("schema_changes", "_event", "_name", "_key")
    assert logged == [
        {"_event": "column", "_name": "id", "_key": None},
        {"_event": "column", "_name": "more", "_key": None},
        {"_event": "column", "_name": "n", "_key": None},
        {"_event": "rescued", "_name": "/n", "_key": '{"id":"b"}'},
    ]


def test_a_batch_of_unknown_size_is_cut_by_key_and_comes_out_the_same(spark: SparkSession, lake: Path) -> None:
    """The platform's source: a mebibyte at a time; each key's changes stay together."""
    changes: list[Change | bytes] = [put(f"k{n % 40}", n, n=n, pad="x" * 30_000) for n in range(1, 121)]
    rig = LakeRig(
        spark, lake, table_config(), pipeline={"slice_bytes_max": 1024 * 1024},
        source={"stream": "s", "connector": "databricks"},
    )  # fmt: skip
    (report,) = rig.run([*changes, b"broken", *changes[:10]])
    assert (report.rows, report.rejects) == (131, 1)
    assert {key: row[2] for key, row in seqs(rig).items()} == {f"k{n % 40}": float(n) for n in range(81, 121)}
    assert len(rig.rows("things/history", "_seq")) == 120


def test_engine_spark_marks_a_row_that_it_replaces_and_writes_none_of_its_neighbours_anew(
    spark: SparkSession, lake: Path
) -> None:
    rig = LakeRig(spark, lake, table_config(engine="spark"))
    rig.run([put(f"k{number}", 1, n=number) for number in range(20)], [put("k3", 2, n=99)])
    commits = spark.sql(f"DESCRIBE HISTORY delta.`{rig.path('things/current')}`").where("operation = 'MERGE'").collect()
    copied = [commit["operationMetrics"]["numTargetRowsCopied"] for commit in commits]
    assert copied == ["0", "0"]
    assert {key: row[2] for key, row in seqs(rig).items()} == {f"k{n}": 99.0 if n == 3 else n for n in range(20)}


@pytest.fixture
def catalog(spark: SparkSession) -> Iterator[str]:
    spark.sql("CREATE DATABASE IF NOT EXISTS rigged")
    yield "rigged"
    spark.sql("DROP DATABASE rigged CASCADE")


def test_catalog_names_work_as_paths_do_with_a_live_view_that_follows_new_columns(
    spark: SparkSession, lake: Path, catalog: str
) -> None:
    rig = LakeRig(
        spark, lake, table_config(engine="spark"),
        lake={"catalog": "spark_catalog", "schema": catalog, "checkpoint": str(lake)},
    )  # fmt: skip
    reports = rig.run([put("a", 1, n=1), put("b", 1), b"broken"], [remove("b", 2), put("a", 2, n=2, more="x")])
    assert [report.tables["things"].failure for report in reports] == [None, None]
    live = spark.table(f"{catalog}.things_live")
    assert [row.asDict() for row in live.select("id", "n", "more").collect()] == [{"id": "a", "n": 2.0, "more": "x"}]
    assert spark.table(f"{catalog}.things_history").count() == 4
    assert spark.table(f"{catalog}.rejects").select(F.col("_reason")).first()["_reason"] == "malformed JSON"


def test_small_files_are_joined_between_batches_once_enough_were_committed(spark: SparkSession, lake: Path) -> None:
    rig = LakeRig(spark, lake, table_config(), upkeep={"compact_after_files": 3})
    with rig.pipeline() as pipeline:
        for number in range(1, 5):
            pipeline.process_batch(rig.frame([put(f"k{number}", number, n=number)]), number)
        before = len(list((lake / "things/current").glob("*.parquet")))
        rig.idle(pipeline)
    assert before >= 4
    assert len(DeltaTable(rig.path("things/current")).file_uris()) == 1
    assert len(DeltaTable(rig.path("things/history")).file_uris()) == 1
    assert len(seqs(rig)) == 4


@pytest.mark.stack
def test_a_claim_check_waits_for_its_bucket_and_then_brings_its_images_exactly(
    spark: SparkSession, lake: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While no server listens the change is parked with its reference, and what came with it; then it drains."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "local")
    body = b'{"new":{"id":"a","n":12345678901234567890.5},"old":null,"types":{}}'
    ref = {"bucket": "lost", "key": "claims/a", "bytes": len(body), "sha256": hashlib.sha256(body).hexdigest()}
    changes = [Change({"id": "a"}, 1, ref=ref), put("b", 1), Change({"id": "c"}, 1, ref={**ref, "key": "gone"})]
    config = table_config(columns={"n": {"type": "decimal(38,4)"}})
    unreachable = {"region": "us-east-1", "endpoint": "http://127.0.0.1:9"}
    rig = LakeRig(spark, lake, config, pipeline={"claim_check_attempts": 1}, aws=unreachable)
    (report,) = rig.run(changes)
    assert report.tables["things"].parked == 3
    said = str(report.tables["things"].failure)
    assert "ClaimCheckUnreachableError: claim check s3://lost/claims/a cannot be fetched" in said

    with running_emulator(tmp_path) as aws:
        aws("s3").create_bucket(Bucket="lost")
        aws("s3").put_object(Bucket="lost", Key="claims/a", Body=body)
        healed = LakeRig(spark, lake, config, aws={"region": "us-east-1", "endpoint": aws.endpoint})
        (report,) = healed.run([put("b", 2)])
    assert (report.tables["things"].drained, report.tables["things"].parked, report.rejects) == (3, 0, 1)
    rows = healed.rows("things/current", "_key", "n", "_rescued")
    assert {row["_key"]: row["n"] for row in rows} == {
        '{"id":"a"}': Decimal("12345678901234567890.5000"), '{"id":"b"}': None
    }  # fmt: skip
    (reject,) = healed.rows("rejects")
    assert (reject["_reason"], reject["_data"]) == ("claim check s3://lost/gone is missing", changes[2].line())
    (kept,) = healed.rows("things/history", "_new", where="_key LIKE '%\"a\"%'")
    assert json.loads(kept["_new"], parse_float=str)["n"] == "12345678901234567890.5"

"""`current` as `verify` reads it without Spark: whatever kinds of columns it has, and whoever wrote to it."""

from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable, write_deltalake
from envelopes import DAY_MS, Change, put, remove
from lake_rig import settings_for, table_config
from pyspark.sql import SparkSession
from rig_without_spark import RigWithoutSpark

from streaming_job.operations.lake_rows import DeltaLakeRows, NoTableError, lake_rows
from streaming_job.operations.verify import LakeRow
from streaming_job.pipeline.locations import Lake

COLUMNS = {
    "at": "timestamp",
    "day": "date",
    "price": "decimal(38,10)",
    "raw": "binary",
    "count": "bigint",
}
ITEM = {
    "at": "2026-11-01T10:00:00.123456Z",
    "day": "2026-11-01",
    "price": "1234567890123456789.0123456789",
    "raw": "AAH/",
    "count": 7,
    "odd": 0.1,
    "yes": True,
    "text": "it's \\ ü",
}


def lake(root: Path, *changes: Change, deletes: str = "soft") -> DeltaLakeRows:
    config = table_config(columns=COLUMNS, deletes={"policy": deletes})
    rig = RigWithoutSpark(root, config)
    (report,) = rig.run(changes)
    assert not report.tables["things"].failure
    assert not report.tables["things"].rescued, "every kind of column is there"
    return DeltaLakeRows(rig.path("things/current"), {})


def written(rows: DeltaLakeRows, folder: Path) -> dict[str, LakeRow]:
    rows.write_all(folder / "rows")
    found = pq.read_table(folder / "rows").to_pylist()
    return {row["key"]: LakeRow(row["digest"], row["intact"], row["kept"]) for row in found}


def item(key: str, number: int) -> Change:
    return Change({"id": key}, number, new={"id": key, **ITEM}, types={"/new/raw": "B", "/new/price": "N"})


def test_rows_of_every_kind_of_column_are_found_intact_and_one_altered_by_hand_is_not(tmp_path: Path) -> None:
    """All that it reads at once, and row by row; tombstones are no rows, but have a version."""
    rows = lake(tmp_path / "lake", item("a", 1), item("it's b", 2), item("c", 3), remove("c", 4))
    digests = {change.key_text: change.digest for change in (item("a", 1), item("it's b", 2))}
    whole = {key: LakeRow(digest, intact=True) for key, digest in digests.items()}
    keys = [*digests, '{"id":"c"}', '{"id":"none"}']
    assert written(rows, tmp_path) == rows.of(keys) == whole
    assert rows.sequences(keys) == {
        change.key_text: change.seq for change in (item("a", 1), item("it's b", 2), remove("c", 4))
    }
    assert rows.newest_created_ms() == item("a", 1).created_ms
    DeltaTable(str(tmp_path / "lake" / "things" / "current")).update({"count": "8"}, predicate="id = 'a'")
    assert {key: row.intact for key, row in rows.of(keys).items()} == {key: "a" not in key for key in digests}


def test_a_change_dated_after_it_was_taken_in_does_not_say_how_far_the_lake_is(tmp_path: Path) -> None:
    """As one that is pulled, of a writer whose clock is a day ahead."""
    ahead = replace(item("b", 1), created_ms=DAY_MS + 86_400_000)
    assert lake(tmp_path / "lake", item("a", 1), ahead).newest_created_ms() == item("a", 1).created_ms


def test_a_key_that_has_more_rows_than_one_is_not_intact_whichever_is_met_last(tmp_path: Path) -> None:
    """The rows of two lakes in one table: of `a` the same twice, of `b` an old one and a new one, `c` once."""
    rows = lake(tmp_path / "lake", item("a", 1), item("b", 2), item("c", 3))
    lake(tmp_path / "other", item("a", 1), item("b", 4))
    other = DeltaTable(str(tmp_path / "other" / "things" / "current")).to_pyarrow_table()
    write_deltalake(str(tmp_path / "lake" / "things" / "current"), other, mode="append")
    found = rows.of([item(key, 1).key_text for key in "abc"])
    assert [(row.intact, row.rows) for _, row in sorted(found.items())] == [(False, 2), (False, 2), (True, 1)]


def test_a_row_that_its_rules_keep_after_a_delete_is_told_apart(tmp_path: Path) -> None:
    rows = lake(tmp_path / "lake", put("a", 1, x=1), remove("a", 2), deletes="ignore")
    assert [row.kept for row in rows.of(['{"id":"a"}']).values()] == [True]


def test_thousands_of_keys_are_asked_for_in_portions(tmp_path: Path) -> None:
    rows = lake(tmp_path / "lake", *(put(f"k{n}", n, x=n) for n in range(2_500)))
    keys = [f'{{"id":"k{n}"}}' for n in range(2_500)]
    assert list(rows.sequences(keys)) == keys
    assert len(rows.of(keys)) == 2_500


def test_a_table_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(NoTableError, match="no-such-table"):
        DeltaLakeRows(str(tmp_path / "no-such-table"), {}).newest_created_ms()


def test_spark_is_started_only_for_a_table_that_it_writes(tmp_path: Path) -> None:
    class AskedError(Exception):
        """For a session."""

    def spark() -> SparkSession:
        raise AskedError

    settings = settings_for(tmp_path, ["things"])
    rust, other = table_config(engine="rust"), table_config(engine="spark")
    assert isinstance(lake_rows(settings, rust, Lake(settings.lake).of(rust), spark), DeltaLakeRows)
    with pytest.raises(AskedError):
        lake_rows(settings, other, Lake(settings.lake).of(other), spark)


def test_an_empty_table_has_no_newest_change(tmp_path: Path) -> None:
    rows = lake(tmp_path / "lake", put("a", 1))
    DeltaTable(str(tmp_path / "lake" / "things" / "current")).delete()
    assert rows.newest_created_ms() == 0
    assert written(rows, tmp_path) == {}

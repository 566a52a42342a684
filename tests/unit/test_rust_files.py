"""Files that engine rust writes again itself: what they say of their rows, what is left to delta-rs, and races."""

import itertools
import json
from collections.abc import Callable
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable, QueryBuilder, write_deltalake
from deltalake.transaction import AddAction, RemoveAction
from pyspark.sql.types import DoubleType, LongType, StringType, StructField, StructType, TimestampType

from streaming_job.pipeline import rust_files
from streaming_job.pipeline.arrow import moment
from streaming_job.pipeline.locations import Location
from streaming_job.pipeline.merge import Merge, Merged, TableSpec, Update
from streaming_job.pipeline.merge_rust import RustTable, arrow_schema
from streaming_job.pipeline.rust_files import RowFiles

COLUMNS = StructType().add("_key", StringType()).add("_seq", LongType()).add("_ingest_ts", TimestampType())


def opened(path: Path, **properties: str) -> RustTable:
    spec = TableSpec(Location(path=str(path)), COLUMNS, properties=properties, found_by=("_key", "_ingest_ts"))
    return RustTable(spec)


def put(table: RustTable, seq: int, *keys: str, **more: list[Any]) -> Merged:
    """All of these keys in this version, written in this second."""
    columns = table.columns()
    held = {"_key": list(keys), "_seq": [seq] * len(keys), "_ingest_ts": moment(seq * 1000, len(keys)), **more}
    names = columns.names
    merge = Merge(match=("_key",), insert=names, updates=(Update("_seq", names),))
    return table.merge(pa.table({name: held[name] for name in names}, arrow_schema(columns)), merge)


def seqs(path: Path) -> dict[str, int]:
    rows = opened(path).read(["_key", "_seq"]).to_pylist()
    assert len(rows) == len({row["_key"] for row in rows})
    return {row["_key"]: row["_seq"] for row in rows}


def last(path: Path) -> dict[str, Any]:
    (entry,) = DeltaTable(str(path)).history(1)
    return entry


def is_ours(path: Path) -> bool:
    return "num_replaced_rows" in last(path)["operationMetrics"]


def files(path: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = pa.table(DeltaTable(str(path)).get_add_actions(flatten=True)).to_pylist()
    return sorted(found, key=lambda file: str(file["path"]))


def test_files_without_the_keys_stay_as_they_are_and_each_row_is_once(tmp_path: Path) -> None:
    table = opened(tmp_path)
    for seq, keys in enumerate((("a", "b"), ("c", "d"), ("e", "f")), start=1):
        put(table, seq, *keys)
    before = {file["path"] for file in files(tmp_path)}
    assert put(table, 9, "a", "f") == Merged(0, 2)
    assert is_ours(tmp_path)
    assert seqs(tmp_path) == {"a": 9, "b": 1, "c": 2, "d": 2, "e": 3, "f": 9}
    after = {file["path"] for file in files(tmp_path)}
    assert (len(before - after), len(before & after)) == (2, 1)


def test_what_is_said_of_a_file_is_what_delta_rs_says_of_such_rows(tmp_path: Path) -> None:
    rows = pa.table(
        {
            "_text": ["b", None, "ä"],
            "_long": pa.array(["x" * 65, "y", None]),
            "_whole": [3, -(2**62), None],
            "_double": [1.5, -0.25, None],
            "_flag": [True, None, False],
            "_at": pa.array([datetime(1, 1, 1, tzinfo=UTC), datetime(2026, 1, 2, 3, 4, 5, 678901, UTC), None]).cast(
                pa.timestamp("us", "UTC")
            ),
            "_day": [date(999, 1, 1), None, date(2026, 1, 2)],
            "_exact": pa.array([Decimal("1.10"), Decimal("-7.00"), None], pa.decimal128(38, 2)),
            "_bytes": [b"\0", None, b"\xff"],
            "_nothing": pa.nulls(3, pa.string()),
        }
    )
    write_deltalake(tmp_path / "theirs", rows)
    table = DeltaTable.create(tmp_path / "ours", DeltaTable(tmp_path / "theirs").schema())
    RowFiles(str(tmp_path / "ours"), {}).replace(table, rows, [], "_text")
    (theirs,), (ours,) = files(tmp_path / "theirs"), files(tmp_path / "ours")
    bounded = ("_text", "_whole", "_double", "_at", "_day")
    said = [
        name for name, value in theirs.items() if name.startswith(("num_records", "null_count")) and value is not None
    ]
    said += [f"{bound}.{name}" for bound in ("min", "max") for name in bounded]
    assert {name: ours[name] for name in said} == {name: theirs[name] for name in said}
    assert ours.get("min._long") is None
    assert DeltaTable(tmp_path / "ours").to_pyarrow_table().equals(DeltaTable(tmp_path / "theirs").to_pyarrow_table())


def test_a_table_says_of_how_many_columns_there_are_bounds(tmp_path: Path) -> None:
    table = opened(tmp_path, **{"delta.dataSkippingNumIndexedCols": "1"})
    for seq in (1, 2):
        put(table, seq, "a", "b")
    assert is_ours(tmp_path)
    log = max((tmp_path / "_delta_log").glob("*.json")).read_text(encoding="utf-8")
    (added,) = [json.loads(line)["add"] for line in log.splitlines() if '"add"' in line]
    assert json.loads(added["stats"])["maxValues"] == {"_key": "b"}
    # Without the times of its rows a file may hold any.
    assert put(table, 3, "a") == Merged(0, 1)
    assert seqs(tmp_path) == {"a": 3, "b": 2}


def test_rows_from_before_a_column_came_are_kept_with_none_in_it(tmp_path: Path) -> None:
    table = opened(tmp_path)
    put(table, 1, "a", "b")
    table.add_columns(StructType([StructField("n", DoubleType())]))
    put(table, 2, "a", n=[1.5])
    assert is_ours(tmp_path)
    assert sorted(table.read(["_key", "n"]).to_pylist(), key=str) == [{"_key": "a", "n": 1.5}, {"_key": "b", "n": None}]


def test_many_rows_are_cut_into_pieces_by_the_time_they_were_written_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = opened(tmp_path)
    for seq in range(1, 7):
        put(table, seq, *(f"{seq} {number}" for number in range(20)))
    monkeypatch.setattr(rust_files, "FILE_BYTES", 1_000)
    put(table, 9, *(f"{seq} 0" for seq in range(1, 7)))
    spans = sorted((file["min._seq"], file["max._seq"]) for file in files(tmp_path))
    assert len(spans) == 3
    assert all(most <= least for (_, most), (least, _) in itertools.pairwise(spans))


@pytest.mark.parametrize(("held", "read"), [(2**25, 0), (0, 2**23), (0, 0)])
def test_files_that_are_neither_held_nor_small_are_left_to_delta_rs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, held: int, read: int
) -> None:
    table = opened(tmp_path)
    put(table, 1, "a", "b")
    put(table, 2, "a")
    monkeypatch.setattr(rust_files, "HELD_BYTES_MAX", held)
    monkeypatch.setattr(rust_files, "READ_BYTES_MAX", read)
    if not held:
        table = opened(tmp_path)
    assert put(table, 3, "a", "c") == Merged(1, 1)
    assert is_ours(tmp_path) == (held + read > 0)
    assert seqs(tmp_path) == {"a": 3, "b": 1, "c": 3}


def by_delete(path: Path) -> None:
    DeltaTable(str(path)).delete("_key = 'z'")


def by_merge(path: Path) -> None:
    rows = pa.table({"_key": ["z"], "_seq": [9], "_ingest_ts": moment(9_000, 1)}, arrow_schema(COLUMNS))
    merger = DeltaTable(str(path)).merge(rows, "t._key = s._key", source_alias="s", target_alias="t")
    merger.when_matched_update({"t._seq": "s._seq"}).execute()


def by_overwrite(path: Path) -> None:
    rows = QueryBuilder().register("t", DeltaTable(str(path))).execute("SELECT * FROM t")
    write_deltalake(DeltaTable(str(path)), rows, mode="overwrite")


def by_spark_s_old_times(path: Path) -> None:
    table = DeltaTable(str(path))
    (file,) = files(path)
    pq.write_table(pq.read_table(path / file["path"]), path / "96.parquet", use_deprecated_int96_timestamps=True)
    size = (path / "96.parquet").stat().st_size
    come = AddAction("96.parquet", size, {}, 0, True, json.dumps({"numRecords": file["num_records"]}))
    go = RemoveAction(file["path"], True, 0, file["size_bytes"], {})
    table.create_write_transaction([come, go], "append", table.schema())


@pytest.mark.parametrize("written", [by_delete, by_merge, by_overwrite, by_spark_s_old_times])
def test_a_file_is_written_again_whoever_wrote_it_and_however(tmp_path: Path, written: Callable[[Path], None]) -> None:
    put(opened(tmp_path), 1, "a", "b", "z")
    written(tmp_path)
    table = opened(tmp_path)
    for seq in (10, 11):
        assert put(table, seq, "a") == Merged(0, 1)
        assert is_ours(tmp_path)
    rest = seqs(tmp_path)
    assert (rest["a"], rest["b"]) == (11, 1)


def test_times_that_nanoseconds_cannot_hold_are_kept_in_files_of_spark_s(tmp_path: Path) -> None:
    table = opened(tmp_path)
    table.add_columns(StructType([StructField("until", TimestampType())]))
    until = [datetime(9999, 12, 31, 23, 59, 59, 999999, UTC), datetime(1, 1, 1, tzinfo=UTC)]
    put(table, 1, "a", "b", until=until)
    by_spark_s_old_times(tmp_path)
    put(opened(tmp_path), 2, "b", until=until[1:])
    assert is_ours(tmp_path)
    assert sorted(table_rows(tmp_path, "until")) == sorted(until)


def table_rows(path: Path, column: str) -> list[Any]:
    return [row[column] for row in opened(path).read([column]).to_pylist()]


def test_more_rows_than_are_quickly_written_are_left_to_delta_rs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rust_files, "ROWS_MAX", 3)
    table = opened(tmp_path)
    put(table, 1, "a", "b")
    put(table, 2, "c")
    put(table, 3, "a", "c")
    assert is_ours(tmp_path)
    put(table, 4, "d")
    put(table, 5, "a", "b", "d")
    assert not is_ours(tmp_path)
    assert seqs(tmp_path) == {"a": 5, "b": 5, "c": 3, "d": 5}


def test_a_table_with_a_constraint_is_left_to_delta_rs_which_holds_it(tmp_path: Path) -> None:
    table = opened(tmp_path)
    put(table, 1, "a", "b")
    DeltaTable(str(tmp_path)).alter.add_constraint({"small": "_seq < 5"})
    put(table, 2, "a")
    assert not is_ours(tmp_path)
    with pytest.raises(Exception, match="failed validation check"):
        put(table, 7, "a")
    assert seqs(tmp_path) == {"a": 2, "b": 1}


def test_somebody_who_commits_meanwhile_is_not_written_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = opened(tmp_path)
    put(table, 1, "a", "b")
    write, others = RowFiles._put, [opened(tmp_path)]

    def meanwhile(self: RowFiles, *arguments: Any) -> Any:
        for other in [others.pop()] if others else []:
            put(other, 5, "a", "c")
        return write(self, *arguments)

    monkeypatch.setattr(RowFiles, "_put", meanwhile)
    put(table, 3, "a", "b")
    assert seqs(tmp_path) == {"a": 5, "b": 3, "c": 5}


def test_what_is_held_of_files_stays_within_its_bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rust_files, "HELD_BYTES_MAX", 3_000)
    table, made = opened(tmp_path), list[RowFiles]()
    hold = RowFiles._hold

    def watched(self: RowFiles, path: str, rows: pa.Table) -> Any:
        held = hold(self, path, rows)
        made.append(self)
        assert self._held_bytes == sum(rows.nbytes for rows, _ in self._held.values()) <= 3_000
        return held

    monkeypatch.setattr(RowFiles, "_hold", watched)
    for seq in range(1, 20):
        put(table, seq, *(f"{seq} {number}" for number in range(20)))
        put(table, seq + 100, f"{seq} 0")
    assert len(made) >= 19

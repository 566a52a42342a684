"""Merges by engine rust into a table that keeps an index of its keys, beside a model; others write to it in between."""

import os
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyspark.sql.types import LongType, StringType, StructType, TimestampType

from streaming_job.pipeline import key_index, rust_files, rust_memory
from streaming_job.pipeline.arrow import moment
from streaming_job.pipeline.locations import Location
from streaming_job.pipeline.merge import Merge, Merged, TableSpec, Update
from streaming_job.pipeline.merge_rust import RustTable, arrow_schema

COLUMNS = StructType().add("_key", StringType()).add("_seq", LongType()).add("_ingest_ts", TimestampType())
MERGE = Merge(match=("_key",), insert=COLUMNS.names, updates=(Update("_seq", COLUMNS.names),))
KEYS = st.sampled_from([f"k'{number}" for number in range(12)])
BATCH = st.tuples(
    st.sampled_from(["merge", "merge", "merge", "another writer", "reopen", "compact", "delete"]),
    st.dictionaries(KEYS, st.integers(0, 9), min_size=1, max_size=6),
)


def rows(batch: Mapping[str, int], at_ms: int) -> pa.Table:
    held = {"_key": list(batch), "_seq": list(batch.values()), "_ingest_ts": moment(at_ms, len(batch))}
    return pa.table(held, arrow_schema(COLUMNS))


def opened(path: Path) -> RustTable:
    return RustTable(TableSpec(Location(path=str(path)), COLUMNS, found_by=("_key", "_ingest_ts")))


def places_of(table: RustTable) -> key_index.KeyIndex:
    memory = table._memory
    assert isinstance(memory, rust_memory._Places)
    return memory._index


@settings(max_examples=24, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(BATCH, max_size=10),
    st.sampled_from([100, 2**22]),
    st.sampled_from([0, 200, 2**25]),
    st.sampled_from([0, 2**23]),
)
def test_a_key_has_one_row_and_it_is_its_newest_whoever_else_wrote(
    batches: list[tuple[str, dict[str, int]]], file_bytes: int, held_bytes: int, read_bytes: int
) -> None:
    with TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(rust_files, "FILE_BYTES", file_bytes)
        patch.setattr(rust_files, "HELD_BYTES_MAX", held_bytes)
        patch.setattr(rust_files, "READ_BYTES_MAX", read_bytes)
        path = Path(folder) / "t"
        table, model = opened(path), dict[str, int]()
        for at, (what, batch) in enumerate(batches, start=1):
            if what == "another writer":
                batch = {f"{key} of another": seq for key, seq in batch.items() if f"{key} of another" not in model}  # noqa: PLW2901 - as it writes it
                write_deltalake(DeltaTable(str(path)), rows(batch, at * 1000), mode="append")
            elif what == "compact":
                table.compact(target_bytes=2**20)
                continue
            elif what == "delete":
                # What stays of the file is written by a query of delta-rs.
                gone = min(batch)
                table.delete("_key = '{}'".format(gone.replace("'", "''")))
                model.pop(gone, None)
                continue
            else:
                table = opened(path) if what == "reopen" else table
                batch |= {key: seq for key, seq in model.items() if key.endswith("another") and seq % 2}
                table.merge(rows(batch, at * 1000), MERGE)
            model |= {key: seq for key, seq in batch.items() if seq > model.get(key, -1)}
        table.refresh()
        found = table.read(["_key", "_seq"]).to_pylist()
        assert sorted((row["_key"], row["_seq"]) for row in found) == sorted(model.items())


def test_a_table_whose_changes_are_followed_is_merged(tmp_path: Path) -> None:
    """An overwrite would tell its readers of a delete and an insert."""
    feed = {"delta.enableChangeDataFeed": "true"}
    table = RustTable(
        TableSpec(Location(path=str(tmp_path)), COLUMNS, properties=feed, found_by=("_key", "_ingest_ts"))
    )
    for seq in (1, 2):
        assert table.merge(rows({"k": seq}, seq), MERGE) == Merged(int(seq == 1), int(seq == 2))
    assert DeltaTable(str(tmp_path)).history()[0]["operation"] == "MERGE"


def test_so_many_known_keys_are_merged_that_naming_them_would_cost_more(tmp_path: Path) -> None:
    table = opened(tmp_path)
    for seq, count in ((1, 501), (2, 500), (3, 501)):
        table.merge(rows({f"k{number}": seq for number in range(count)}, seq), MERGE)
    done = [commit["operation"] for commit in DeltaTable(str(tmp_path)).history()]
    assert done[:2] == ["MERGE", "WRITE"]
    assert table.count("_seq = 3") == 501


def test_keys_do_not_gather_places_from_stale_rows_beside_them(tmp_path: Path) -> None:
    """With each batch comes a row that is not newer: of the others it is known all the same where they are."""
    table = opened(tmp_path)
    table.merge(rows({"stale": 9, "a": 0, "b": 0}, 1), MERGE)
    for seq in range(1, 40):
        assert table.merge(rows({"stale": 1, "a": seq, "b": seq, f"new{seq}": 1}, seq + 1), MERGE) == Merged(1, 2)
    index = places_of(table)
    found = index.look_up(pa.array(["stale", "a", "b"]))
    assert [len(set(places)) for places in found.places] == [1, 1, 1]


def test_a_table_is_read_anew_when_a_key_may_be_in_too_many_places(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Merged, for its changes are followed, so that nobody says which of a batch's rows were not newer."""
    feed = {"delta.enableChangeDataFeed": "true"}
    spec = TableSpec(Location(path=str(tmp_path)), COLUMNS, properties=feed, found_by=("_key", "_ingest_ts"))
    monkeypatch.setattr(key_index, "PLACES_MAX", 3)
    table = RustTable(spec)
    table.merge(rows({"stale": 9, "a": 0}, 1), MERGE)
    most = 0
    for seq in range(1, 10):
        assert table.merge(rows({"stale": 1, "a": seq}, seq + 1), MERGE) == Merged(0, 1)
        most = max(most, *map(len, places_of(table).look_up(pa.array(["stale", "a"])).places))
    assert most == 4
    assert sorted(table.read(["_key", "_seq"]).to_pylist(), key=str) == [
        {"_key": "a", "_seq": 9},
        {"_key": "stale", "_seq": 9},
    ]


def test_a_vacuum_gives_back_every_file_that_no_version_kept_needs_however_many_checkpoints_ago(tmp_path: Path) -> None:
    """A checkpoint forgets which files went; those of a commit that failed were in no log. A neighbour's stay."""
    short = {"delta.checkpointInterval": "10", "delta.deletedFileRetentionDuration": "interval 0 hours"}
    found_by = ("_key", "_ingest_ts")
    table = RustTable(TableSpec(Location(path=str(tmp_path / "t")), COLUMNS, properties=short, found_by=found_by))
    opened(tmp_path / "t2").merge(rows({"k": 1}, 1), MERGE)
    for seq in range(25):
        table.merge(rows({"k": seq}, seq), MERGE)
    (tmp_path / "t" / "never-committed.parquet").write_bytes(b"")
    assert table.unreferenced_files(0) == 25
    assert table.vacuum(0) == 25
    assert len(list((tmp_path / "t").glob("*.parquet"))) == 1
    assert len(list((tmp_path / "t2").glob("*.parquet"))) == 1
    assert table.merge(rows({"k": 25}, 25), MERGE) == Merged(0, 1)


def test_a_vacuum_leaves_what_is_young_whether_replaced_or_on_its_way_to_a_commit(tmp_path: Path) -> None:
    table = opened(tmp_path)
    for seq in range(3):
        table.merge(rows({"k": seq}, seq), MERGE)
    for file in tmp_path.glob("*.parquet"):
        os.utime(file, (0, 0))
    (tmp_path / "on-its-way.parquet").write_bytes(b"")
    assert table.vacuum(168) == 0
    assert len(list(tmp_path.glob("*.parquet"))) == 4


def test_a_vacuum_by_a_handle_that_saw_nothing_of_another_writer_keeps_that_ones_rows(tmp_path: Path) -> None:
    """Its files are old, and in no version that the handle knows of."""
    stale = opened(tmp_path)
    opened(tmp_path).merge(rows({"k": 1}, 1), MERGE)
    for file in tmp_path.glob("*.parquet"):
        os.utime(file, (0, 0))
    assert stale.vacuum(168) == 0
    assert stale.count("_seq = 1") == 1


def test_after_a_vacuum_the_table_is_not_read_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = opened(tmp_path)
    table.merge(rows({"k": 1}, 1), MERGE)
    (tmp_path / "old.parquet").write_bytes(b"")
    os.utime(tmp_path / "old.parquet", (0, 0))
    assert table.vacuum(168) == 1
    looked: list[object] = []
    monkeypatch.setattr(rust_memory._Places, "_look_anew", lambda _, of: looked.append(of))
    assert table.merge(rows({"k": 2}, 2), MERGE) == Merged(0, 1)
    assert not looked

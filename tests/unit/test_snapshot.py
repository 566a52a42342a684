"""A first load against a table, a bucket and a lake held in memory."""

import gzip
import hashlib
import json
import random
import stat
from base64 import b64encode
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from first_load import GENERATION, RULES, TABLE, ChangingTable, NewestOfEach, Store, item

from bridge_lambda.masks import mask_of
from bridge_lambda.rules import Filter, HashKey
from config.errors import ConfigurationError
from config.tables import KeyAttribute, LakeRules, TableConfig
from streaming_job.objects import Bucket
from streaming_job.operations.snapshot import BadItemError, Part, Snapshot, State
from streaming_job.operations.snapshot_export import Export, ExportUnreadableError
from streaming_job.operations.snapshot_load import scanned
from streaming_job.operations.source_scan import CapacityBudget

CONFIG = TableConfig(table=TABLE, version=1, key=(KeyAttribute(name="id"),), lake=LakeRules(name=TABLE))


def table_of(count: int, **more: Any) -> ChangingTable:
    return ChangingTable(random.Random(7), {f"k{n:05d}": item(f"k{n:05d}", n) for n in range(count)}, **more)


def state_of(parts: int = 3) -> State:
    return State("snapshot-1", TABLE, GENERATION, RULES.label, "scan", 1_000, {n: Part() for n in range(parts)})


def load(
    table: ChangingTable, store: Store, state: State, file: Path, written: Callable[[str, str], None] | None = None
) -> None:
    snapshot = Snapshot(
        Bucket(store, "bucket"), RULES, state, lambda s: s.keep(file), written or (lambda *_: None), lambda: 5
    )
    snapshot.rows_max = 20
    snapshot.take(scanned(table, state, CapacityBudget()))


# --- joined to the stream ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(10))
def test_writes_deletes_and_reinserts_during_the_scan_end_right_in_whatever_order_both_arrive(
    seed: int, tmp_path: Path
) -> None:
    """5,000 changes while 600 items are read; their envelopes and the scan's rows are shuffled among each other."""
    rng = random.Random(seed)
    table = table_of(600, changes_a_page=42)
    table.random = rng
    store, state = Store(), state_of()
    load(table, store, state, tmp_path / "state")
    while len(table.stream) < 5_000:
        table.change()
    arriving = [*table.stream, *store.lines("snapshot/")]
    rng.shuffle(arriving)
    lake = NewestOfEach()
    for envelope in arriving:
        lake.take(envelope)
    assert lake.live() == {key: int(found["value"]["N"]) for key, found in table.items.items()}


# --- objects, state, resuming -----------------------------------------------------------------------------------------


def test_every_item_is_in_one_object_that_was_handed_over_and_the_manifest_names_them(tmp_path: Path) -> None:
    store, state = Store(), state_of()
    handed: list[tuple[str, str]] = []
    load(table_of(100), store, state, tmp_path / "state", lambda piece, address: handed.append((piece, address)))
    rows = list(store.lines("snapshot/snapshot-1/"))
    assert sorted(row["key"]["id"] for row in rows) == [f"k{n:05d}" for n in range(100)]
    assert {(row["op"], row["gen"], row["seq"]) for row in rows} == {("SNAPSHOT", GENERATION, "0" * 40)}
    manifest = json.loads(store.objects["snapshot/snapshot-1/manifest.json"][0])
    assert (manifest["items"], manifest["rows"], manifest["gen"]) == (100, 100, GENERATION)
    assert sorted(f"s3://bucket/{name}" for name in manifest["objects"]) == sorted(address for _, address in handed)
    assert sorted(piece for piece, _ in handed) == state.pieces
    assert len({state.place(piece) for piece in state.pieces}) == len(state.pieces)


@pytest.mark.parametrize("pages", range(8))
def test_a_snapshot_cut_off_at_any_page_goes_on_where_it_was_and_misses_nothing(pages: int, tmp_path: Path) -> None:
    """Reading fails after so many pages, then again, then not: each time a new process with nothing but the file."""
    store, file = Store(), tmp_path / "state"
    table = table_of(100)
    state_of().keep(file)
    for left in (pages, pages, None):
        table.pages_left = left
        state = State.load(file)
        try:
            load(table, store, state, file)
        except ConnectionAbortedError:
            continue
    assert State.load(file).is_ended
    assert {row["key"]["id"] for row in store.lines("snapshot/")} == {f"k{n:05d}" for n in range(100)}
    assert "snapshot/snapshot-1/manifest.json" in store.objects


def test_the_state_holds_raw_keys_and_is_for_its_owner_alone(tmp_path: Path) -> None:
    state_of().keep(tmp_path / "state")
    assert stat.S_IMODE((tmp_path / "state").stat().st_mode) == 0o600


def test_a_state_that_is_missing_or_is_none_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="no snapshot to go on with"):
        State.load(tmp_path / "none")
    (tmp_path / "junk").write_text("[]")
    with pytest.raises(ConfigurationError, match="no state of a snapshot"):
        State.load(tmp_path / "junk")


def test_items_outside_the_filter_are_read_and_not_written(tmp_path: Path) -> None:
    rules = replace(RULES, filter=Filter(("value",), frozenset({("N", "1")})))
    store, state = Store(), state_of(1)
    snapshot = Snapshot(Bucket(store, "bucket"), rules, state, lambda _: None, lambda *_: None, lambda: 5)
    snapshot.take(scanned(table_of(10), state, CapacityBudget()))
    assert (state.items, state.rows) == (10, 1)


def test_what_the_rules_hash_reaches_no_object(tmp_path: Path) -> None:
    rules = replace(RULES, masks=mask_of([], [["id"]]), hash_key=HashKey("k", b"secret"))
    store, state = Store(), state_of(1)
    snapshot = Snapshot(Bucket(store, "bucket"), rules, state, lambda _: None, lambda *_: None, lambda: 5)
    snapshot.take(scanned(table_of(30), state, CapacityBudget()))
    written = b"".join(
        gzip.decompress(body) if name.endswith(".gz") else body for name, (body, _) in store.objects.items()
    )
    assert written.count(b"SNAPSHOT") == 30
    assert b"k000" not in written


def test_images_too_large_for_a_record_become_claim_checks() -> None:
    store, state, table = Store(), state_of(1), table_of(1)
    table.items["k00000"]["text"] = {"S": "\x01" * 300_000}
    snapshot = Snapshot(Bucket(store, "bucket"), RULES, state, lambda _: None, lambda *_: None, lambda: 5)
    snapshot.take(scanned(table, state, CapacityBudget()))
    (row,) = store.lines("snapshot/")
    body, _ = store.objects[row["ref"]["key"]]
    assert hashlib.sha256(body).hexdigest() == row["ref"]["sha256"]


def test_an_item_that_is_none_of_the_tables_stops_it_and_shows_no_data() -> None:
    state, table = state_of(1), table_of(1)
    table.items["k00000"] = {"other": {"S": "private"}}
    snapshot = Snapshot(Bucket(Store(), "bucket"), RULES, state, lambda _: None, lambda *_: None, lambda: 5)
    with pytest.raises(BadItemError, match="not the key its rules name") as caught:
        snapshot.take(scanned(table, state, CapacityBudget()))
    assert "private" not in str(caught.value)


# --- an export --------------------------------------------------------------------------------------------------------


FOLDER = "exports/AWSDynamoDB/0123"


def exported(store: Store, *files: int, **summary: Any) -> list[str]:
    """Data files of so many items each, as DynamoDB writes them."""
    names, manifest, key = [], [], 0
    for number, count in enumerate(files):
        lines = []
        for _ in range(count):
            lines.append(json.dumps({"Item": item(f"k{key:05d}", key)}))
            key += 1
        body = gzip.compress("\n".join(lines).encode())
        names.append(f"{FOLDER}/data/{number}.json.gz")
        store.put(names[-1], body, 0)
        md5 = b64encode(hashlib.md5(body, usedforsecurity=False).digest()).decode()
        manifest.append({"itemCount": count, "md5Checksum": md5, "etag": "x", "dataFileS3Key": names[-1]})
    store.put(f"{FOLDER}/manifest-files.json", "\n".join(map(json.dumps, manifest)).encode(), 0)
    told = {
        "version": "2020-06-30",
        "tableArn": f"arn:aws:dynamodb:us-east-1:000000000000:table/{TABLE}",
        "exportTime": "2026-11-02T10:00:00.500Z",
        "manifestFilesS3Key": f"{FOLDER}/manifest-files.json",
        "billedSizeBytes": 5_000,
        "itemCount": key,
        "outputFormat": "DYNAMODB_JSON",
        **summary,
    }
    store.put(f"{FOLDER}/manifest-summary.json", json.dumps(told).encode(), 0)
    return names


def test_an_export_is_read_whole_and_goes_on_within_a_file(tmp_path: Path) -> None:
    """Cut off when its second object is handed over; the state says how many items of which file are written."""
    store, file = Store(), tmp_path / "state"
    exported(store, 2_500, 10)
    state_of(2).keep(file)
    begun = 0

    def cut_off(piece: str, address: str) -> None:
        nonlocal begun
        begun += 1
        if begun == 2:
            raise ConnectionAbortedError

    for written in (cut_off, lambda *_: None):
        state = State.load(file)
        export = Export.open(store, f"s3://bucket/{FOLDER}/", TABLE)
        assert (export.items, export.taken_ms) == (2_510, 1_793_613_600_500)
        snapshot = Snapshot(Bucket(store, "bucket"), RULES, state, lambda s: s.keep(file), written, lambda: 5)
        snapshot.rows_max = 1_000
        try:
            snapshot.take(export.reads(state.parts))
        except ConnectionAbortedError:
            assert State.load(file).parts[0].after == "2000"
    assert State.load(file).is_ended
    assert State.load(file).rows == 2_510
    assert len({row["key"]["id"] for row in store.lines("snapshot/")}) == 2_510


@pytest.mark.parametrize(
    ("summary", "message"),
    [
        ({"tableArn": "arn:aws:dynamodb:us-east-1:000000000000:table/other"}, "an export of other, not of things"),
        ({"outputFormat": "ION"}, "is in ION"),
        ({"exportType": "INCREMENTAL_EXPORT"}, "no full export"),
        ({"itemCount": "many"}, "none of DynamoDB's"),
        ({"manifestFilesS3Key": "gone"}, "is no export"),
    ],
)
def test_what_is_no_full_export_of_this_table_is_refused(summary: dict[str, Any], message: str) -> None:
    store = Store()
    exported(store, 1, **summary)
    with pytest.raises(ConfigurationError, match=message):
        Export.open(store, f"s3://bucket/{FOLDER}", TABLE)


def test_an_address_that_is_none_is_refused_with_an_example() -> None:
    for address in ("/tmp/export", "s3://", "s3://bucket/elsewhere"):  # noqa: S108 - never opened
        with pytest.raises(ConfigurationError) as caught:
            Export.open(Store(), address, TABLE)
        assert "manifest-summary.json" in str(caught.value.hint)


def test_a_data_file_that_is_not_what_its_manifest_says_never_counts_as_read() -> None:
    for harm, message in (
        (lambda body: body[:-10], "Compressed file ended"),
        (
            lambda body: gzip.compress(gzip.decompress(body) + b"\n" + json.dumps({"Item": item("x", 1)}).encode()),
            "MD5",
        ),
        (lambda body: gzip.compress(b"{}"), "no item"),
        (None, "NoSuchKey"),
    ):
        store = Store()
        (name,) = exported(store, 3)
        if harm is None:
            del store.objects[name]
        else:
            store.put(name, harm(store.objects[name][0]), 0)
        state = state_of(1)
        snapshot = Snapshot(Bucket(store, "bucket"), RULES, state, lambda _: None, lambda *_: None, lambda: 5)
        with pytest.raises(ExportUnreadableError, match=message):
            snapshot.take(Export.open(store, f"s3://bucket/{FOLDER}", TABLE).reads(state.parts))
        assert not state.is_ended
        assert "snapshot/snapshot-1/manifest.json" not in store.objects

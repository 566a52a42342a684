"""History, rejects, parking and claim checks on real Delta tables of engine rust; Spark has no part in these."""

import hashlib
import json
import re
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest
from envelopes import DAY_MS, GENERATION, Change, collected, put, remove

from config.tables import DeleteRule, LakeRules
from streaming_job.errors import ClaimCheckUnreachableError, EngineRefusedError
from streaming_job.pipeline import current, history, parking, rejects, schema_log
from streaming_job.pipeline.arrow import replaced
from streaming_job.pipeline.changes import SCHEMA
from streaming_job.pipeline.claims import Resolver, whole_envelope
from streaming_job.pipeline.locations import Location
from streaming_job.pipeline.merge import TableSpec, no_guard, refuse_features
from streaming_job.pipeline.merge_rust import RustTable


def rust(path: Path, spec: TableSpec) -> RustTable:
    return RustTable(replace(spec, location=Location(path=str(path))))


@pytest.fixture
def past(lake: Path) -> RustTable:
    return rust(lake / "history", history.spec(Location(), {}))


def days(table: RustTable) -> list[str]:
    return sorted(str(day) for day in table.read(["_day"])["_day"].to_pylist())


# --- history


def test_history_holds_each_change_once_however_often_it_is_written(past: RustTable) -> None:
    changes = collected([put("a", 1), put("a", 2), remove("b", 7)])
    assert history.write(past, changes, DAY_MS, no_guard) == 3
    version = past.version()
    assert history.write(past, changes, DAY_MS + 5_000, no_guard) == 0
    assert past.version() == version


def test_a_change_of_another_day_meets_its_own_days_files_only(past: RustTable) -> None:
    next_day = replace(put("a", 2), created_ms=DAY_MS + 86_400_000)
    history.write(past, collected([put("a", 1), next_day]), DAY_MS, no_guard)
    assert days(past) == ["2026-11-01", "2026-11-02"]
    assert history.write(past, collected([next_day]), DAY_MS, no_guard) == 0


@pytest.mark.parametrize("created_ms", [None, DAY_MS + 5 * 86_400_000])
def test_a_scanned_row_has_its_generations_day_so_that_two_scans_are_one_change(
    past: RustTable, created_ms: int | None
) -> None:
    scanned = replace(put("a", 0), op="SNAPSHOT")
    history.write(past, collected([scanned]), DAY_MS, no_guard)
    history.write(past, collected([replace(scanned, created_ms=created_ms)]), DAY_MS, no_guard)
    assert days(past) == ["2026-11-01"]


@pytest.mark.parametrize("created_ms", [-1, 10**17])
def test_a_creation_time_that_is_no_time_is_kept_like_any_other(past: RustTable, created_ms: int) -> None:
    change = replace(put("a", 1), created_ms=created_ms)
    history.write(past, collected([change]), DAY_MS, no_guard)
    assert history.write(past, collected([change]), DAY_MS, no_guard) == 0
    assert past.read(["_created_ms"])["_created_ms"].to_pylist() == [created_ms]


def test_a_generation_that_is_no_day_is_kept_like_any_other(past: RustTable) -> None:
    change = replace(put("a", 1), created_ms=None, generation="99999999999999999")
    history.write(past, collected([change]), DAY_MS, no_guard)
    assert history.write(past, collected([change]), DAY_MS, no_guard) == 0


def test_the_newest_version_of_a_key_is_found_whatever_its_text(past: RustTable) -> None:
    awkward = 'it\'s \\ "quoted" ü'
    history.write(past, collected([put(awkward, 1), put(awkward, 3), put("b", 2)]), DAY_MS, no_guard)
    key = put(awkward, 1).key_text
    assert past.newest([key, "absent"]) == {key: f"{GENERATION}-{3:040d}"}


# --- rejects


def reject(position: int, data: bytes, reason: str = "not JSON") -> pa.Table:
    row = {"stream": "s", "shard": "0", "kinesis_seq": str(position), "data": data, "reject": reason}
    return pa.Table.from_pylist([row], schema=SCHEMA)


def test_a_reject_is_kept_once_with_its_bytes_position_and_reason(lake: Path) -> None:
    table = rust(lake / "rejects", rejects.spec(Location()))
    batch = pa.concat_tables([reject(1, b"\xff{"), reject(2, b"", "empty"), reject(1, b"\xff{")])
    assert rejects.write(table, batch, DAY_MS) == 2
    assert rejects.write(table, batch, DAY_MS) == 0
    rows = table.read(["_kinesis_seq", "_data", "_reason"]).sort_by("_kinesis_seq").to_pylist()
    assert rows == [
        {"_kinesis_seq": "1", "_data": b"\xff{", "_reason": "not JSON"},
        {"_kinesis_seq": "2", "_data": b"", "_reason": "empty"},
    ]


def test_two_bad_records_of_one_aggregated_record_are_two_rejects(lake: Path) -> None:
    table = rust(lake / "rejects", rejects.spec(Location()))
    assert rejects.write(table, pa.concat_tables([reject(1, b"x"), reject(1, b"y")]), DAY_MS) == 2


# --- parking


def test_parked_changes_come_back_whole_and_in_the_order_they_were_parked(lake: Path) -> None:
    table = rust(lake / "parked", parking.spec(Location()))
    parked = parking.Parking(table, "things")
    first, second = collected([put("a", 2, x=1), put("a", 1)]), collected([remove("b", 1)])
    parked.add(first, "the disk is full", DAY_MS)
    parked.add(second, "the disk is full", DAY_MS)
    parked.add(first, "run again", DAY_MS + 9)

    again = parking.Parking(table, "things")
    assert again.count == 3
    ticket, oldest = again.oldest()
    assert oldest["change_seq"].to_pylist() == [put("a", 1).seq, put("a", 2).seq]
    assert oldest.sort_by("change_seq") == first.sort_by("change_seq")
    again.remove(ticket)
    _, rest = again.oldest()
    assert rest["key"].to_pylist() == ['{"id":"b"}']
    assert parking.Parking(table, "others").count == 0


def test_changes_whose_parking_landed_though_it_was_reported_as_a_conflict_are_known_to_be_parked(lake: Path) -> None:
    """The second attempt finds them there."""
    table = rust(lake / "parked", parking.spec(Location()))
    parked, changes = parking.Parking(table, "things"), collected([put("a", 1), put("b", 1)])
    parking.Parking(table, "things").add(changes, "the attempt that landed", DAY_MS)
    parked.add(changes, "the disk is full", DAY_MS + 1)
    assert (parked.count, parked.tickets) == (2, [DAY_MS])


# --- the log of schema changes


def test_a_rescued_path_is_logged_once_with_the_first_row_that_had_it(lake: Path) -> None:
    table = rust(lake / "schema_changes", schema_log.spec(Location()))
    rows = pa.table(
        {"_rescued": [None, '{"year":"x"}', '{"year":"y"}'], "_key": ["a", "b", "c"], "_seq": ["1", "2", "3"]}
    )
    for _ in range(2):
        assert schema_log.SchemaLog(table, "things").values_rescued(rows, DAY_MS) == 2
    logged = table.read(["_event", "_name", "_key"]).to_pylist()
    assert logged == [{"_event": "rescued", "_name": "year", "_key": "b"}]


def test_of_maps_keyed_by_ids_only_so_many_paths_are_logged_and_that_there_are_more(lake: Path) -> None:
    """However often the job starts anew; another table's paths are its own."""
    table = rust(lake / "schema_changes", schema_log.spec(Location()))
    most = schema_log.PATHS_MAX
    log = schema_log.SchemaLog(table, "things")

    def rescue(log: schema_log.SchemaLog, first: int, count: int) -> None:
        paths = json.dumps({f"of.{number}": "x" for number in range(first, first + count)})
        assert log.values_rescued(pa.table({"_rescued": [paths], "_key": ["a"], "_seq": ["1"]}), DAY_MS) == 1

    rescue(log, 0, most - 1)
    rescue(log, 0, most)
    assert table.count("_event = 'rescued'") == table.count("true") == most
    versions = []
    for number, each in enumerate((log, log, schema_log.SchemaLog(table, "things"))):
        rescue(each, most + 10 * number, 10)
        versions.append(table.version())
    assert table.count("_event = 'rescued'") == most
    assert table.read(["_table", "_name"], "_event = 'more_rescued'").to_pylist() == [
        {"_table": "things", "_name": "*"}
    ]
    assert versions[0] == versions[1]
    rescue(schema_log.SchemaLog(table, "others"), 0, 2)
    assert table.count("_table = 'others' AND _event = 'rescued'") == 2


def test_a_log_that_holds_more_paths_than_it_would_is_not_read_for_them(lake: Path) -> None:
    table = rust(lake / "schema_changes", schema_log.spec(Location()))
    written = [{"_table": "things", "_event": "rescued", "_name": f"{at}"} for at in range(schema_log.PATHS_MAX + 1)]
    table.merge(pa.Table.from_pylist(written, schema=schema_log._SCHEMA), schema_log._MERGE)
    rows = pa.table({"_rescued": ['{"year":"x"}'], "_key": ["a"], "_seq": ["1"]})
    for _ in range(2):
        assert schema_log.SchemaLog(table, "things").values_rescued(rows, DAY_MS) == 1
    assert table.count("_event = 'rescued'") == len(written)
    assert table.count("_event = 'more_rescued'") == 1


# --- engines


@pytest.mark.parametrize(
    "feature",
    ["deletionVectors", "columnMapping", "clustering", "rowTracking", "inCommitTimestamp", "typeWidening-preview"],
)
def test_rust_refuses_a_table_by_the_feature_it_cannot_write(feature: str) -> None:
    with pytest.raises(EngineRefusedError, match=rf"{feature} .*engine rust cannot write.*lake.engine to spark"):
        refuse_features("rust", Location(path="lake/t"), [feature], {})
    refuse_features("spark", Location(path="lake/t"), [feature], {})


def test_an_append_only_table_is_refused_to_either_engine(lake: Path) -> None:
    spec = history.spec(Location(path=str(lake / "h")), {"delta.appendOnly": "true"})
    with pytest.raises(EngineRefusedError, match=r"append-only .*delta.appendOnly"):
        RustTable(spec)


def test_rust_refuses_a_catalogs_table() -> None:
    with pytest.raises(EngineRefusedError, match=r"by path; main\.cars is a catalog's"):
        RustTable(history.spec(Location(name="main.cars"), {}))


def test_a_table_that_somebody_else_made_under_our_name_is_not_written(lake: Path) -> None:
    rust(lake / "t", schema_log.spec(Location()))
    with pytest.raises(EngineRefusedError, match=r"not a table of this service: it has no column _op"):
        rust(lake / "t", history.spec(Location(), {}))


# --- claim checks


class Shelf:
    """An object store in memory."""

    def __init__(self, objects: dict[str, bytes]) -> None:
        self._objects = objects

    def get(self, bucket: str, key: str) -> bytes | None:
        return self._objects.get(key)


class UnreachableShelf:
    def get(self, bucket: str, key: str) -> bytes | None:
        raise ClaimCheckUnreachableError(f"s3://{bucket}/{key} cannot be fetched", hint="wait")


IMAGES = b'{"new":{"id":"a","n":1.50,"big":12345678901234567890123456789012345678},"old":null,"types":{"/new/b":"B"}}'


def claim(sha256: str | None = None) -> Change:
    sha256 = sha256 or hashlib.sha256(IMAGES).hexdigest()
    ref = {"bucket": "b", "key": "claims/a", "bytes": len(IMAGES), "sha256": sha256}
    return Change({"id": "a"}, 1, ref=ref, types={"/key/id": "B"})


def parsed(changes: pa.Table) -> pa.Table:
    """Stands in for decode: the envelope's images back into the columns, numbers kept."""
    envelopes = [json.loads(line, parse_float=str, parse_int=str) for line in changes["data"].to_pylist()]
    return replaced(
        replaced(changes, "new", pa.array([str(e["new"]) for e in envelopes])),
        "ref",
        pa.nulls(len(envelopes), pa.string()),
    )


def test_a_claim_check_puts_the_images_back_exactly_and_keeps_the_keys_types() -> None:
    envelope = json.loads(whole_envelope(claim().line(), IMAGES), parse_float=str, parse_int=str)
    assert envelope["new"] == {"id": "a", "n": "1.50", "big": "12345678901234567890123456789012345678"}
    assert envelope["types"] == {"/new/b": "B", "/key/id": "B"}
    assert envelope["ref"] is None


def test_changes_beside_a_claim_check_are_not_touched_by_it() -> None:
    changes = collected([put("b", 1), claim()])
    whole, refused = Resolver(Shelf({"claims/a": IMAGES}), parsed).resolve(changes)
    assert refused.num_rows == 0
    assert whole["key"].to_pylist() == ['{"id":"b"}', '{"id":"a"}']
    assert "12345678901234567890123456789012345678" in whole["new"].to_pylist()[1]


@pytest.mark.parametrize(
    ("objects", "sha256", "reason"),
    [({}, None, r"claims/a is missing"), ({"claims/a": IMAGES}, "0" * 64, r"has SHA-256 .*, not 0000")],
)
def test_a_claim_check_that_cannot_be_honoured_is_a_reject_with_its_record(
    objects: dict[str, bytes], sha256: str | None, reason: str
) -> None:
    whole, refused = Resolver(Shelf(objects), parsed).resolve(collected([put("b", 1), claim(sha256)]))
    assert whole["key"].to_pylist() == ['{"id":"b"}']
    assert refused["data"].to_pylist() == [claim(sha256).line()]
    (said,) = refused["reject"].to_pylist()
    assert re.search(reason, said)


@pytest.mark.parametrize(
    "body",
    [
        *(b"", b"\xff", b"nonsense", b"5", b"[]", b"null", b"{}", b'{"new":{},"old":null}', b'{"new":{},"types":{}}'),
        *(b'{"new":{},"old":null,"types":[1]}', b'{"new":{"a":NaN},"old":null,"types":{}}'),
        *(b'{"new":{"a":"\\ud800"},"old":null,"types":{}}', b'{"new":' + b"[" * 100_000),
    ],
)
def test_a_claim_check_that_holds_no_images_is_a_reject_though_its_hash_is_right(body: bytes) -> None:
    claimed = claim(hashlib.sha256(body).hexdigest())
    whole, refused = Resolver(Shelf({"claims/a": body}), parsed).resolve(collected([put("b", 1), claimed]))
    assert whole["key"].to_pylist() == ['{"id":"b"}']
    assert refused["data"].to_pylist() == [claimed.line()]
    assert refused["reject"].to_pylist() == ["claim check s3://b/claims/a holds no images"]


def test_a_claim_check_says_nothing_but_images_and_their_types() -> None:
    """What else stands in it does not make it another change."""
    body = IMAGES[:-1] + b',"key":{"id":"z"},"table":"other","seq":"9","v":2}'
    assert whole_envelope(claim().line(), body) == whole_envelope(claim().line(), IMAGES)


def test_what_a_claim_check_filled_in_keeps_its_records_own_bytes() -> None:
    """A strict table may reject it yet, and the whole of it may be more than a record holds."""
    whole, _ = Resolver(Shelf({"claims/a": IMAGES}), parsed).resolve(collected([claim()]))
    assert whole["data"].to_pylist() == [claim().line()]


def test_a_claim_check_of_an_envelope_without_types_is_filled_in() -> None:
    line = claim().line().replace(b'"types":{"/key/id":"B"}', b'"types":null')
    assert json.loads(whole_envelope(line, IMAGES))["types"] == {"/new/b": "B"}


def test_an_unreachable_claim_check_is_no_reject_but_to_be_tried_again() -> None:
    with pytest.raises(ClaimCheckUnreachableError):
        Resolver(UnreachableShelf(), parsed).resolve(collected([claim()]))


# --- deletes by policy


@pytest.mark.parametrize(
    ("deletes", "expiries", "change", "keeps"),
    [
        ("ignore", None, remove("a", 1), True),
        ("ignore", None, remove("a", 1, ttl=True), True),
        ("ignore", "soft", remove("a", 1, ttl=True), False),
        ("soft", "ignore", remove("a", 1, ttl=True), True),
        ("soft", "ignore", remove("a", 1), False),
        ("ignore", None, remove("a", 1, filtered=True), False),
        ("ignore", None, put("a", 1), False),
    ],
)
def test_which_deletes_keep_their_row(deletes: str, expiries: str | None, change: Change, keeps: object) -> None:
    rules = LakeRules.model_validate(
        {"name": "t", "deletes": {"policy": deletes}, "expiries": {"policy": expiries} if expiries else None}
    )
    assert current.Ignored(rules).keeps_row(collected([change])).to_pylist() == [keeps]


def test_an_ignored_delete_carries_its_old_image_and_that_images_types() -> None:
    types = {"/old/b": "B", '/old/x"/old/y': "B", "/key/id": "B"}
    changes = collected([remove("a", 2, old={"id": "a", "b": "AA=="}, types=types)])
    ignored = current.Ignored(LakeRules(name="t", deletes=DeleteRule(policy="ignore")))
    row = current.with_old_as_new(changes, ignored.keeps_row(changes)).to_pylist()[0]
    assert json.loads(row["new"]) == {"id": "a", "b": "AA=="}
    assert json.loads(row["types"]) == {"/new/b": "B", '/new/x"/old/y': "B", "/key/id": "B"}

"""From a stream record to an envelope: order, marks, filter, claim checks, and what is poison."""

import copy
import hashlib
import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge_lambda.envelope import Change, encode_change, encode_snapshot, key_text, origin_of, partition_key
from bridge_lambda.errors import PoisonRecordError
from bridge_lambda.images import digest, parse, restore
from bridge_lambda.rules import HashKey, TableRules, table_rules
from config.limits import KINESIS_RECORD_BYTES_MAX
from tests.support.dynamodb_items import Item, items, thoroughly, unordered

SCHEMA = json.loads((Path(__file__).parents[2] / "config" / "envelope.schema.json").read_text(encoding="utf-8"))
ARN = "arn:aws:dynamodb:us-east-1:123456789012:table/things/stream/2026-03-01T12:30:45.678"
SEQUENCE = "111100000000000000000000123"


def rules(**changed: Any) -> dict[str, TableRules]:
    body = {
        "version": 1,
        "key": ["id"],
        "drop": [],
        "hash": [],
        "secret": {"name": "s", "version": None},
        "keep_old_image": True,
        "filter": None,
        "origin": None,
    }
    key = HashKey("k", b"0123456789abcdef")
    return {"things": table_rules("things", {**body, **changed}, lambda name, version: key)}


def record(operation: str = "MODIFY", new: Item | None = None, old: Item | None = None, **changed: Any) -> Any:
    change: dict[str, Any] = {
        "ApproximateCreationDateTime": 1_790_000_000,
        "Keys": {"id": {"S": "1"}},
        "SequenceNumber": SEQUENCE,
        "StreamViewType": "NEW_AND_OLD_IMAGES",
    }
    if new is not None:
        change["NewImage"] = {"id": {"S": "1"}, **new}
    if old is not None:
        change["OldImage"] = {"id": {"S": "1"}, **old}
    return {
        "eventID": "event-1",
        "eventName": operation,
        "eventSource": "aws:dynamodb",
        "eventSourceARN": ARN,
        "dynamodb": change,
        **changed,
    }


def encoded(raw: Any, tables: dict[str, TableRules] | None = None) -> Change | None:
    return encode_change(raw, tables or rules(), 1_790_000_000_100, "claims-bucket")


def envelope(raw: Any, tables: dict[str, TableRules] | None = None) -> dict[str, Any]:
    change = encoded(raw, tables)
    assert change is not None
    line = change.line(1_790_000_000_200)
    assert len(line) + len(change.partition_key.encode()) == change.cost
    content: dict[str, Any] = json.loads(line)
    jsonschema.validate(content, SCHEMA)
    return content


@given(items, items)
@thoroughly()
def test_any_change_becomes_a_valid_envelope_that_restores_both_images(new: Item, old: Item) -> None:
    new, old = {**new, "id": {"S": "1"}}, {**old, "id": {"S": "1"}}
    change = encoded(record("MODIFY", new, old))
    assert change is not None
    line = change.line(1_790_000_000_200)
    content = parse(line)
    jsonschema.validate(json.loads(line), SCHEMA)
    assert unordered(restore(content["new"], content["types"], "/new")) == unordered(new)
    assert unordered(restore(content["old"], content["types"], "/old")) == unordered(old)
    assert content["digest"] == digest(new)
    assert line.count(b"\n") == 1
    assert len(line) + len(change.partition_key.encode()) == change.cost


# --- order ------------------------------------------------------------------------------------------------------------


@given(st.lists(st.integers(10**20, 10**40 - 1), min_size=2, max_size=5))
@thoroughly()
def test_padded_sequence_numbers_order_as_text_as_they_do_as_numbers(numbers: list[int]) -> None:
    """21 to 40 digits: no number type of the lake would hold them."""
    texts = []
    for number in numbers:
        raw = record(new={})
        raw["dynamodb"]["SequenceNumber"] = str(number)
        texts.append(envelope(raw)["seq"])
    assert sorted(texts) == [f"{number:040d}" for number in sorted(numbers)]


def test_the_generation_is_the_streams_creation_time_in_17_digits() -> None:
    assert origin_of(ARN) == ("things", "20260301123045678")
    assert origin_of(ARN.removesuffix(".678")).generation == "20260301123045000"


def test_a_snapshot_row_is_older_than_any_change_of_its_generation() -> None:
    item = {"id": {"S": "1"}, "a": {"N": "1"}}
    snapshot = encode_snapshot(item, rules()["things"], "20260301123045678", 1_790_000_000_100, "claims-bucket")
    assert snapshot is not None
    content = json.loads(snapshot.line(1))
    jsonschema.validate(content, SCHEMA)
    assert content["op"] == "SNAPSHOT"
    assert content["seq"] == "0" * 40
    assert content["digest"] == digest(item)
    assert content["seq"] < envelope(record(new={}))["seq"]


def test_a_snapshot_row_obeys_the_filter_and_needs_its_key() -> None:
    table = rules(filter={"path": ["region"], "equals": [["S", "eu"]]})["things"]
    item = {"id": {"S": "1"}, "region": {"S": "us"}}
    assert encode_snapshot(item, table, "2" * 17, 1, "claims-bucket") is None
    with pytest.raises(PoisonRecordError, match="has not the key"):
        encode_snapshot({"region": {"S": "eu"}}, table, "2" * 17, 1, "claims-bucket")


# --- keys -------------------------------------------------------------------------------------------------------------


def test_one_key_has_one_text_however_its_number_is_written() -> None:
    table = rules(key=["at", "id"])["things"]
    assert key_text({"id": {"S": "é"}, "at": {"N": "1.50E1"}}, table) == '{"at":15,"id":"é"}'
    assert key_text({"at": {"N": "15"}, "id": {"S": "é"}}, table) == '{"at":15,"id":"é"}'


@pytest.mark.parametrize(
    ("key", "is_hashed"),
    [("k" * 256, False), ("k" * 257, True), ("é" * 256, False), ("🚗" * 128, False), ("🚗" * 129, True)],
)
def test_a_key_longer_than_256_characters_is_routed_by_its_hash(key: str, is_hashed: bool) -> None:  # noqa: FBT001 - a table's column
    """Characters outside the basic plane count twice, as they do in the service."""
    assert partition_key(key) == (hashlib.sha256(key.encode()).hexdigest() if is_hashed else key)


def test_a_hashed_key_leaves_only_as_its_hash() -> None:
    change = encoded(record(new={"v": {"N": "1"}}), rules(hash=[["id"]]))
    assert change is not None
    key = json.loads(change.line(1))["key"]
    assert json.loads(change.partition_key) == key
    assert len(key["id"]) == 64


# --- marks ------------------------------------------------------------------------------------------------------------

EXPIRY = {"type": "Service", "principalId": "dynamodb.amazonaws.com"}
IDENTITIES = (
    ("REMOVE", EXPIRY, True),
    ("REMOVE", {"Type": "Service", "PrincipalId": "dynamodb.amazonaws.com"}, True),
    ("REMOVE", {"type": "Service", "principalId": "other.amazonaws.com"}, False),
    ("REMOVE", {"type": "AssumedRole", "principalId": "dynamodb.amazonaws.com"}, False),
    ("REMOVE", None, False),
    ("MODIFY", EXPIRY, False),
)


@pytest.mark.parametrize(("operation", "identity", "is_expiry"), IDENTITIES)
def test_an_expiry_by_ttl_is_told_from_a_users_deletion(operation: str, identity: Any, is_expiry: bool) -> None:  # noqa: FBT001 - a table's column
    new = None if operation == "REMOVE" else {"a": {"S": "x"}}
    assert envelope(record(operation, new, {}, userIdentity=identity))["ttl"] is is_expiry


def test_the_creation_time_is_whole_seconds_and_the_origin_the_producers_own() -> None:
    tables = rules(origin={"path": ["at"], "ms_per_unit": 1})
    content = envelope(record(new={"at": {"N": "1789999999123"}}), tables)
    assert content["created_ms"] == 1_790_000_000_000
    assert content["origin_ms"] == 1_789_999_999_123
    assert content["bridge_in_ms"] == 1_790_000_000_100
    assert content["bridge_out_ms"] == 1_790_000_000_200
    assert envelope(record("REMOVE", None, {"at": {"N": "1"}}), tables)["origin_ms"] is None


# --- filter -----------------------------------------------------------------------------------------------------------

IN: Item = {"region": {"S": "eu"}}
OUT: Item = {"region": {"S": "us"}}
FILTERED = (
    # operation, new, old -> op sent (None: kept back), whether marked as filtered, images that leave
    (("INSERT", IN, None), ("INSERT", False, {"new"})),
    (("INSERT", OUT, None), None),
    (("MODIFY", IN, IN), ("MODIFY", False, {"new", "old"})),
    (("MODIFY", IN, OUT), ("MODIFY", False, {"new"})),
    (("MODIFY", IN, None), ("MODIFY", False, {"new"})),
    (("MODIFY", OUT, IN), ("REMOVE", True, {"old"})),
    (("MODIFY", OUT, OUT), None),
    (("MODIFY", OUT, None), ("REMOVE", True, set())),
    (("REMOVE", None, IN), ("REMOVE", False, {"old"})),
    (("REMOVE", None, OUT), ("REMOVE", False, set())),
    (("REMOVE", None, None), ("REMOVE", False, set())),
)


@pytest.mark.parametrize(("change", "sent"), FILTERED)
def test_an_item_that_leaves_the_filter_is_removed_and_one_outside_never_leaves(change: Any, sent: Any) -> None:
    """Skipped is only what was out and stays out; where the old image is not known, it may have been in."""
    tables = rules(filter={"path": ["region"], "equals": [["S", "eu"]]})
    if sent is None:
        assert encoded(record(*change), tables) is None
        return
    content = envelope(record(*change), tables)
    images = {name for name in ("new", "old") if content[name] is not None}
    assert (content["op"], content["filtered"], images) == sent
    assert (content["digest"] is None) == ("new" not in images)


def test_the_filter_looks_at_the_item_and_not_at_what_the_rules_leave_of_it() -> None:
    tables = rules(drop=[["region"]], filter={"path": ["region"], "equals": [["S", "eu"]]})
    assert envelope(record(new=IN), tables)["new"] == {"id": "1"}
    assert encoded(record("INSERT", OUT), tables) is None


def test_without_keep_old_image_none_leaves() -> None:
    content = envelope(record(new=IN, old=OUT), rules(keep_old_image=False))
    assert content["old"] is None
    assert content["new"] is not None


# --- privacy ----------------------------------------------------------------------------------------------------------


def test_what_the_rules_drop_or_hash_is_nowhere_in_what_leaves() -> None:
    """Line, partition key and claim check alike; in the key, in both images, below lists."""
    secret = "never-to-be-seen"
    big = {"S": "x" * KINESIS_RECORD_BYTES_MAX}
    image: Item = {
        "id": {"S": secret},
        "dropped": {"M": {"deep": {"L": [{"S": secret}]}}},
        "people": {"L": [{"M": {"name": {"S": secret}, "age": {"N": "1"}}}]},
        "sets": {"SS": [secret]},
    }
    tables = rules(drop=[["dropped"], ["people", "name"], ["sets"]], hash=[["id"]])
    for extra in ({}, {"big": big}):
        raw = record("MODIFY", {**image, **extra}, image)
        raw["dynamodb"]["Keys"] = {"id": {"S": secret}}
        change = encoded(raw, tables)
        assert change is not None
        parts = [change.line(1), change.partition_key.encode()]
        if change.claim:
            parts += [change.claim.body, change.claim.name.encode()]
        assert len(parts) == (4 if extra else 2)
        assert not any(secret.encode() in part for part in parts)


# --- claim checks -----------------------------------------------------------------------------------------------------


def of_cost(cost: int) -> Any:
    """A change whose whole record costs exactly so many bytes."""
    empty = encoded(record("INSERT", {"a": {"S": ""}}))
    assert empty is not None
    return record("INSERT", {"a": {"S": "x" * (cost - empty.cost)}})


def test_a_record_of_exactly_the_limit_goes_whole_and_one_byte_more_by_claim_check() -> None:
    whole, claimed = encoded(of_cost(KINESIS_RECORD_BYTES_MAX)), encoded(of_cost(KINESIS_RECORD_BYTES_MAX + 1))
    assert whole is not None
    assert whole.claim is None
    assert whole.cost == len(whole.line(1)) + len(whole.partition_key) == KINESIS_RECORD_BYTES_MAX
    assert claimed is not None
    assert claimed.claim is not None
    assert claimed.cost < 2000


def test_a_claim_check_holds_both_images_and_their_types_and_the_envelope_says_where() -> None:
    """Named by table, key and sequence: the same change finds the same name again."""
    image: Item = {"id": {"S": "1"}, "a": {"S": "\x01" * 300_000}, "b": {"B": "AQ=="}, "n": {"N": "1.50"}}
    tables = rules(key=["id"])
    change = encoded(record("MODIFY", image, image), tables)
    assert change is not None
    claim = change.claim
    assert claim is not None
    content = json.loads(change.line(1))
    jsonschema.validate(content, SCHEMA)
    assert (content["new"], content["old"], content["types"]) == (None, None, {})
    assert content["digest"] == digest(image)
    assert content["ref"] == {
        "bucket": "claims-bucket",
        "key": claim.name,
        "bytes": len(claim.body),
        "sha256": hashlib.sha256(claim.body).hexdigest(),
    }
    key_hash = hashlib.sha256(b'{"id":"1"}').hexdigest()
    assert claim.name == f"claims/things/{key_hash}/20260301123045678-{SEQUENCE:0>40}.json"
    assert not claim.secret
    held = parse(claim.body)
    for name in ("new", "old"):
        assert restore(held[name], held["types"], f"/{name}") == image
    again = encoded(record("MODIFY", image, image), tables)
    assert again is not None
    assert again.claim == claim


# --- poison -----------------------------------------------------------------------------------------------------------

POISON: dict[str, tuple[str, Any]] = {
    "not an object": ("bad-record", "text"),
    "no stream's name": ("bad-record", {"eventSourceARN": None}),
    "another service's name": ("bad-record", {"eventSourceARN": "arn:aws:kinesis:us-east-1:1:stream/s"}),
    "a table's name without a stream": ("bad-record", {"eventSourceARN": ARN.split("/stream", maxsplit=1)[0]}),
    "a label without a time": ("bad-record", {"eventSourceARN": ARN.rsplit("/", 1)[0] + "/latest"}),
    "an unknown table": ("unknown-table", {"eventSourceARN": ARN.replace("things", "others")}),
    "an unknown operation": ("bad-record", {"eventName": "TRUNCATE"}),
    "no event id": ("bad-record", {"eventID": ""}),
    "no change": ("bad-record", {"dynamodb": None}),
    "no keys": ("no-keys", {"dynamodb.Keys": None}),
    "empty keys": ("no-keys", {"dynamodb.Keys": {}}),
    "other keys": ("no-keys", {"dynamodb.Keys": {"pk": {"S": "1"}}}),
    "a key too many": ("no-keys", {"dynamodb.Keys": {"id": {"S": "1"}, "sk": {"S": "1"}}}),
    "no new image": ("no-image", {"dynamodb.NewImage": None}),
    "no sequence number": ("bad-record", {"dynamodb.SequenceNumber": None}),
    "a sequence number that is none": ("bad-record", {"dynamodb.SequenceNumber": "12a"}),
    "a sequence number of 41 digits": ("bad-record", {"dynamodb.SequenceNumber": "1" * 41}),
    "a key that is no value": ("bad-image", {"dynamodb.Keys": {"id": "1"}}),
    "an image that is no item": ("bad-image", {"dynamodb.NewImage": {"id": {"S": "1"}, "a": {"X": "secret"}}}),
    "an image with half a character": ("bad-image", {"dynamodb.NewImage": {"id": {"S": "\ud800"}}}),
    "an old image that is no item": ("bad-image", {"dynamodb.OldImage": {"id": ["secret"]}}),
    "a creation time that is none": ("bad-image", {"dynamodb.ApproximateCreationDateTime": float("nan")}),
}


@pytest.mark.parametrize("case", POISON)
def test_a_record_that_can_never_become_an_envelope_is_poison_with_a_reason_and_no_item_data(case: str) -> None:
    reason, changes = POISON[case]
    raw = record("MODIFY", {"a": {"S": "secret"}}, {})
    if isinstance(changes, dict):
        for path, value in changes.items():
            *parent, name = path.split(".")
            (raw[parent[0]] if parent else raw)[name] = value
    else:
        raw = changes
    before = copy.deepcopy(raw)
    with pytest.raises(PoisonRecordError) as caught:
        encoded(raw)
    assert caught.value.reason == reason
    assert "secret" not in str(caught.value)
    assert caught.value.hint
    assert str(raw) == str(before)

"""A table's rules: what they drop or hash is nowhere in what leaves, and rules that can't be meant are refused."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge_lambda.errors import RefusalError
from bridge_lambda.images import encode
from bridge_lambda.masks import mask_of
from bridge_lambda.rules import Filter, HashKey, TableRules, load_rules, table_rules
from tests.support.dynamodb_items import Item, items, names, thoroughly

KEY = HashKey("key-1", b"0123456789abcdef")
BODY: dict[str, Any] = {
    "version": 7,
    "key": ["id"],
    "drop": [],
    "hash": [],
    "secret": None,
    "keep_old_image": True,
    "filter": None,
    "origin": None,
}


def rules(**changed: Any) -> TableRules:
    body = {**BODY, **changed}
    if body["hash"]:
        body["secret"] = {"name": "secret", "version": None}
    return table_rules("things", body, lambda name, version: KEY)


# --- masking ----------------------------------------------------------------------------------------------------------

PERSON: Item = {
    "id": {"S": "p-1"},
    "email": {"S": "ada@example.com"},
    "name": {"M": {"first": {"S": "Ada"}, "last": {"S": "Lovelace"}}},
    "visits": {"L": [{"M": {"ip": {"S": "192.0.2.1"}}}, {"L": [{"M": {"ip": {"S": "192.0.2.2"}}}]}, {"S": "odd"}]},
}


def test_what_is_dropped_is_gone_and_the_rest_stays() -> None:
    masked = rules(drop=[["email"], ["name", "last"]]).mask(PERSON)
    assert masked == {**{k: PERSON[k] for k in ("id", "visits")}, "name": {"M": {"first": {"S": "Ada"}}}}


def test_paths_pass_through_lists_however_deep() -> None:
    masked = rules(drop=[["visits", "ip"]]).mask(PERSON)
    assert masked["visits"] == {"L": [{"M": {}}, {"L": [{"M": {}}]}, {"S": "odd"}]}


def test_masking_leaves_the_record_itself_whole() -> None:
    before = json.dumps(PERSON)
    rules(drop=[["visits", "ip"], ["name"]], hash=[["email"]]).mask(PERSON)
    assert json.dumps(PERSON) == before


def test_equal_values_have_equal_hashes_in_every_attribute_and_other_values_or_keys_other_ones() -> None:
    item: Item = {
        "a": {"S": "x"},
        "b": {"S": "x"},
        "c": {"S": "y"},
        "d": {"N": "1"},
        "e": {"S": "1"},
        "f": {"N": "1.0"},
    }
    paths = [[name] for name in item]
    hashed = {name: typed["S"] for name, typed in rules(hash=paths).mask(item).items()}
    assert hashed["a"] == hashed["b"] != hashed["c"]
    assert hashed["d"] == hashed["f"] != hashed["e"]
    assert all(len(text) == 64 for text in hashed.values())
    other_key = replace(rules(hash=paths), hash_key=HashKey("key-2", b"fedcba9876543210"))
    assert other_key.mask(item)["a"]["S"] != hashed["a"]


@given(
    items,
    st.lists(st.lists(names, min_size=1, max_size=3), max_size=3),
    st.lists(st.lists(names, min_size=1, max_size=3), max_size=3),
)
@thoroughly()
def test_the_quick_mask_of_a_tree_is_the_mask_of_its_item(item: Item, drop: list[Any], hash_: list[Any]) -> None:
    """Pruning the plain tree, and masking a copy first, come to the same text, types and digest."""
    taken: list[list[str]] = []
    for path in [*drop, *hash_]:
        if not any(path[: len(other)] == other or other[: len(path)] == path for other in taken):
            taken.append(path)
    # Each path once: the rules refuse one that is named twice.
    mask = mask_of([path for path in taken if path in drop], [path for path in taken if path not in drop])
    table = replace(rules(hash=[["x"]]), masks=mask)
    assert encode(item, table, digested=True) == encode(table.mask(item), digested=True)


def test_rules_name_their_version_and_the_key_of_their_hashes() -> None:
    assert rules().label == "7"
    assert rules(hash=[["email"]]).label == "7:key-1"


# --- filter and origin ------------------------------------------------------------------------------------------------

ADMITTED = (
    ([["S", "eu"]], {"S": "eu"}, True),
    ([["S", "eu"]], {"S": "us"}, False),
    ([["S", "eu"], ["S", "us"]], {"S": "us"}, True),
    ([["N", "1"]], {"N": "1.0"}, True),
    ([["N", "1"]], {"S": "1"}, False),
    ([["BOOL", True]], {"BOOL": True}, True),
    ([["BOOL", True]], {"N": "1"}, False),
    ([["N", "1"]], {"BOOL": True}, False),
    ([["S", "eu"]], {"L": [{"S": "eu"}]}, False),
    ([["S", "eu"]], {"NULL": True}, False),
)


@pytest.mark.parametrize(("equals", "typed", "admitted"), ADMITTED)
def test_the_filter_admits_equal_values_of_the_same_type_only(equals: Any, typed: Item, admitted: bool) -> None:  # noqa: FBT001 - a table's column
    table = rules(filter={"path": ["a", "b"], "equals": equals})
    assert table.filter == Filter(("a", "b"), frozenset((tag, value) for tag, value in equals))
    assert table.admits({"a": {"M": {"b": typed}}}) is admitted


def test_an_item_without_the_filtered_attribute_is_out() -> None:
    table = rules(filter={"path": ["a", "b"], "equals": [["S", "eu"]]})
    assert not table.admits({"a": {"S": "eu"}})
    assert not table.admits({})


TIMES = (
    ({"N": "1790000000123"}, 1, 1_790_000_000_123),
    ({"N": "1790000000"}, 1000, 1_790_000_000_000),
    ({"N": "1790000000.5"}, 1000, 1_790_000_000_500),
    ({"S": "1790000000123"}, 1, 1_790_000_000_123),
    ({"S": "yesterday"}, 1, None),
    ({"N": "-1"}, 1, None),
    ({"N": "1E+120"}, 1, None),
    ({"BOOL": True}, 1, None),
    ({"NULL": True}, 1, None),
)


@pytest.mark.parametrize(("typed", "ms_per_unit", "time_ms"), TIMES)
def test_the_origin_is_a_time_or_nothing(typed: Item, ms_per_unit: int, time_ms: int | None) -> None:
    table = rules(origin={"path": ["at"], "ms_per_unit": ms_per_unit})
    assert table.origin_ms({"at": typed}) == time_ms
    assert table.origin_ms({}) is None


# --- loading ----------------------------------------------------------------------------------------------------------

UNREADABLE = {
    "not JSON": "{",
    "not an object": "[]",
    "another format": '{"format": 2, "tables": {}}',
    "no tables": '{"format": 1}',
    "a table without a word of it": '{"format": 1, "tables": {"t": {}}}',
    "a table that is none": '{"format": 1, "tables": {"t": 5}}',
}


@pytest.mark.parametrize("case", UNREADABLE)
def test_rules_that_cannot_be_read_refuse_the_start_and_say_what_to_do(case: str, tmp_path: Path) -> None:
    path = tmp_path / "rules.json"
    path.write_text(UNREADABLE[case], encoding="utf-8")
    with pytest.raises(RefusalError, match=r"python -m config\.rules"):
        load_rules(path, lambda name, version: KEY)


def test_rules_that_are_not_there_refuse_the_start(tmp_path: Path) -> None:
    with pytest.raises(RefusalError, match="cannot read the rules"):
        load_rules(tmp_path / "none.json", lambda name, version: KEY)


def test_a_table_that_hashes_refuses_the_start_without_its_key(tmp_path: Path) -> None:
    """And one that hashes nothing asks for none."""

    def no_secret(name: str, version: str | None) -> HashKey:
        raise RefusalError(f"no secret {name}", hint="create it")

    path = tmp_path / "rules.json"
    path.write_text(json.dumps({"format": 1, "tables": {"t": BODY}}), encoding="utf-8")
    assert load_rules(path, no_secret)["t"].label == "7"
    hashing = {**BODY, "hash": [["email"]], "secret": {"name": "people", "version": None}}
    path.write_text(json.dumps({"format": 1, "tables": {"t": hashing}}), encoding="utf-8")
    with pytest.raises(RefusalError, match="no secret people"):
        load_rules(path, no_secret)

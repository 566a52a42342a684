"""DynamoDB JSON to plain JSON and back: nothing is lost, nothing is rounded."""

import json
import random
from decimal import Decimal
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge_lambda.images import MALFORMED, Literal, canonical_number, digest, encode, parse, plain, restore
from tests.support.dynamodb_items import (
    Item,
    item_meaning,
    items,
    meaning,
    numbers,
    rewritten,
    thoroughly,
    unordered,
    values,
)


def through_json(item: Item) -> Item:
    encoded = encode(item)
    return restore(parse(encoded.text), encoded.types)


@given(items)
@thoroughly()
def test_every_item_comes_back_from_its_plain_json_as_it_was(item: Item) -> None:
    """Number texts included; only a set's order is not kept, for it has none."""
    assert unordered(through_json(item)) == unordered(item)


@given(items)
@thoroughly()
def test_an_items_plain_json_is_json_with_sorted_names(item: Item) -> None:
    text = plain(item)
    assert list(orjson.loads(text)) == sorted(item, key=lambda name: name.encode())
    json.loads(text)


@given(st.dictionaries(st.text(max_size=3), st.integers(-(10**38) + 1, 10**38 - 1).map(lambda n: {"N": str(n)})))
@thoroughly()
def test_whole_numbers_of_38_digits_are_plain_literals_and_need_no_types(item: Item) -> None:
    encoded = encode(item)
    assert encoded.types == {}
    assert json.loads(encoded.text) == {name: int(typed["N"]) for name, typed in item.items()}


@given(numbers())
@thoroughly()
def test_a_number_has_one_canonical_text_of_the_same_value(number: str) -> None:
    text = canonical_number(number)
    assert Decimal(text) == Decimal(number)
    assert canonical_number(text) == text
    assert parse(text) == Literal(text)
    assert "E" not in text
    assert text != "-0"


@given(items, st.randoms(use_true_random=False))
@thoroughly()
def test_equal_items_have_one_digest_however_they_are_written(item: Item, rng: random.Random) -> None:
    """Maps and sets in another order, numbers in other words."""
    assert digest(rewritten(item, rng)) == digest(item)


@given(items, items)
@thoroughly()
def test_different_items_have_different_digests(one: Item, other: Item) -> None:
    assert (digest(one) == digest(other)) == (item_meaning(one) == item_meaning(other))


@given(values, values)
@thoroughly()
def test_a_change_of_one_value_changes_the_digest(one: Item, other: Item) -> None:
    """Values that plain JSON writes alike are the hard ones: "1" and 1, a set and a list, binary and its base64."""
    same = meaning(one) == meaning(other)
    assert (digest({"a": {"L": [one]}}) == digest({"a": {"L": [other]}})) == same


ALIKE = (
    ({"S": "AQ=="}, {"B": "AQ=="}),
    ({"S": "1"}, {"N": "1"}),
    ({"L": [{"S": "a"}]}, {"SS": ["a"]}),
    ({"SS": ["AQ=="]}, {"BS": ["AQ=="]}),
    ({"L": [{"N": "1"}]}, {"NS": ["1"]}),
    ({"S": "null"}, {"NULL": True}),
    ({"BOOL": True}, {"S": "true"}),
    ({"M": {}}, {"L": []}),
    ({"L": [{"S": ""}]}, {"L": [{"B": ""}]}),
    ({"S": '","b":"'}, {"S": '","b":'}),
)


@pytest.mark.parametrize(("one", "other"), ALIKE)
def test_what_plain_json_would_write_alike_is_told_apart_by_the_digest(one: Item, other: Item) -> None:
    assert digest({"a": one}) != digest({"a": other})


def test_types_point_at_names_with_slashes_tildes_and_indexes() -> None:
    item = {"a/b": {"M": {"c~d": {"L": [{"S": "x"}, {"B": "AQ=="}]}}}, "": {"SS": ["x"]}}
    assert encode(item).types == {"/a~1b/c~0d/1": "B", "/": "SS"}


def test_items_of_a_client_and_of_an_event_are_encoded_alike() -> None:
    """A client hands out bytes where an event holds base64."""
    of_event = {"a": {"B": "AAH/"}, "b": {"BS": ["/w==", "AA=="]}}
    of_client = {"a": {"B": b"\x00\x01\xff"}, "b": {"BS": [b"\xff", b"\x00"]}}
    assert encode(of_client, digested=True) == encode(of_event, digested=True)


def test_an_item_nested_as_deep_as_dynamodb_nests_comes_back() -> None:
    typed: Item = {"SS": ["deep"]}
    for level in range(32):
        typed = {"M": {"m": typed}} if level % 2 else {"L": [typed]}
    assert through_json({"top": typed}) == {"top": typed}


MALFORMED_IMAGES: dict[str, Any] = {
    "no type": {"a": {}},
    "an unknown type": {"a": {"X": "1"}},
    "two unknown types": {"a": {"X": "1", "Y": "2"}},
    "a bare value": {"a": "text"},
    "no map": "text",
    "a number that is a word": {"a": {"N": "twelve"}},
    "a number that is none": {"a": {"N": "NaN"}},
    "a number beyond dynamodb": {"a": {"N": "1E200"}},
    "a number of a billion digits": {"a": {"N": "1E999999999"}},
    "a number with a separator": {"a": {"N": "1_000"}},
    "a number that would pass for two": {"a": {"N": "1,2"}},
    "a number with a space": {"a": {"N": " 1"}},
    "a number in arabic digits": {"a": {"N": "٣"}},
    "an empty number": {"a": {"N": ""}},
    "a number among others that is empty": {"a": {"N": "1"}, "b": {"N": ""}},
    "a number that is not text": {"a": {"N": 1}},
    "a flag in words": {"a": {"BOOL": "true"}},
    "broken base64": {"a": {"B": "A"}},
    "a set of numbers with a word": {"a": {"NS": ["1", "two"]}},
    "a set of texts that is a text": {"a": {"SS": "ab"}},
    "a set of texts with a number": {"a": {"SS": [1]}},
    "a set of numbers that is a number": {"a": {"NS": "12"}},
    "half a character": {"a": {"S": "\ud800"}},
    "a list that is a map": {"a": {"L": {"S": "x"}}},
    "nesting without end": None,
}


@pytest.mark.parametrize("case", MALFORMED_IMAGES)
def test_what_is_not_dynamodb_json_is_refused(case: str) -> None:
    image = MALFORMED_IMAGES[case]
    if case == "nesting without end":
        typed: Item = {"S": "x"}
        for _ in range(3000):
            typed = {"L": [typed]}
        image = {"a": typed}
    with pytest.raises(MALFORMED):
        encode(image, digested=True)

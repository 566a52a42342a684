"""Maps and lists go through functions made for their shape: they come out as they went in, and no name enters code."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge_lambda.images import encode, parse, restore
from bridge_lambda.masks import Mask
from bridge_lambda.rules import TableRules, table_rules
from bridge_lambda.shapes import DEPTH_MAX, ELEMENTS_MIN, SHAPES_MAX, for_list, for_map
from bridge_lambda.walk import Walk
from tests.support.dynamodb_items import Item, names, texts, thoroughly


def rules(drop: list[list[str]]) -> TableRules:
    compiled: dict[str, Any] = {"version": 1, "key": ["id"], "drop": drop, "hash": [], "secret": None}
    compiled |= {"keep_old_image": True, "filter": None, "origin": None}
    return table_rules("things", compiled, lambda name, version: (_ for _ in ()).throw(AssertionError(name, version)))


def masked_and_back(item: Item, table: TableRules) -> Item:
    encoded = encode(item, table)
    return restore(parse(encoded.text), encoded.types)


SCALARS: dict[str, st.SearchStrategy[Any]] = {
    "S": texts,
    "N": st.sampled_from(["0", "7", "-12", "1.5", "1789999995552"]),
    "BOOL": st.booleans(),
}
"""Numbers as DynamoDB writes them: an item with any other is walked with care, and its loops' work is thrown away."""


@st.composite
def lists_of_like_maps(draw: st.DrawFn) -> list[Item]:
    """Mostly alike: now and then one lacks a name, has one more, another one in its place, or one of another type."""
    kinds = draw(st.dictionaries(names, st.sampled_from(["S", "N", "N", "S", "BOOL", "M"]), min_size=1, max_size=5))
    below = draw(st.dictionaries(names, st.sampled_from(["S", "N"]), max_size=3))
    elements: list[Item] = []
    for _ in range(draw(st.integers(ELEMENTS_MIN, 7))):
        attributes = {name: draw(_values(kind, below)) for name, kind in kinds.items()}
        odd = draw(st.sampled_from(["no"] * 5 + ["less", "more", "other", "retyped", "text"]))
        name = draw(st.sampled_from(sorted(attributes)))
        if odd in {"less", "other"}:
            del attributes[name]
        if odd in {"more", "other"}:
            attributes[draw(names)] = {"S": "odd"}
        if odd == "retyped":
            attributes[name] = draw(
                st.sampled_from([{"N": "7"}, {"S": "7"}, {"NULL": True}, {"L": []}, {"BOOL": True}])
            )
        elements.append({"S": "odd"} if odd == "text" else {"M": attributes})
    return elements


def _values(kind: str, below: dict[str, str]) -> st.SearchStrategy[Item]:
    if kind == "M":
        return st.fixed_dictionaries({name: _values(tag, {}) for name, tag in below.items()}).map(lambda m: {"M": m})
    return SCALARS[kind].map(lambda value: {kind: value})


@given(lists_of_like_maps(), st.lists(st.lists(names, min_size=1, max_size=2), max_size=3))
@thoroughly(2)
def test_a_list_of_like_maps_is_its_masked_self_whatever_is_odd_in_it(elements: list[Item], drop: list[Any]) -> None:
    paths: list[list[str]] = []
    for path in drop:
        if not any(path[: len(other)] == other or other[: len(path)] == path for other in paths):
            paths.append(path)
    item = {"rows": {"L": elements}}
    assert masked_and_back(item, rules([])) == item
    table = rules([["rows", *path] for path in paths])
    assert masked_and_back(item, table) == table.mask(item)


def test_an_attribute_in_the_place_of_a_dropped_one_is_not_dropped_with_it() -> None:
    row: Item = {"M": {"kept": {"S": "k"}, "secret": {"S": "s"}}}
    other: Item = {"M": {"kept": {"S": "k"}, "public": {"S": "p"}}}
    item = {"rows": {"L": [*[row] * ELEMENTS_MIN, other, row]}}
    plain = {"M": {"kept": {"S": "k"}}}
    assert masked_and_back(item, rules([["rows", "secret"]])) == {
        "rows": {"L": [*[plain] * ELEMENTS_MIN, other, plain]}
    }


def test_a_loop_deals_with_all_that_is_alike_and_stops_at_what_is_not() -> None:
    row: Item = {"M": {"name": {"S": "a"}, "at": {"M": {"ms": {"N": "1"}}}}}
    odd: Item = {"M": {"name": {"N": "1"}, "at": {"M": {"ms": {"N": "1"}}}}}
    for elements, dealt_with in (([row] * 5, 5), ([row, row, odd, row], 2)):
        loop = for_list(elements, Mask())
        assert loop is not None
        plain: list[Any] = []
        loop(elements, Walk(None), plain)
        assert len(plain) == dealt_with


def test_a_map_of_another_shape_is_a_misfit() -> None:
    made = for_map({"a": {"S": "x"}, "b": {"N": "1"}}, Mask())
    assert made is not None
    assert made({"a": {"S": "y"}, "b": {"N": "2"}}, Walk(None)) is not None
    for other in ({"a": {"S": "y"}}, {"a": {"S": "y"}, "c": {"N": "2"}}, {"a": {"N": "1"}, "b": {"N": "2"}}):
        assert made(other, Walk(None)) is None


def test_of_short_lists_and_lists_of_no_maps_each_element_is_taken_by_itself() -> None:
    rows: list[Item] = [{"M": {"name": {"S": "a"}}}] * ELEMENTS_MIN
    assert for_list(rows[1:], Mask()) is None
    assert for_list([{"S": "a"}, *rows], Mask()) is None
    assert for_list([], Mask()) is None


def test_what_a_name_says_is_never_code() -> None:
    """Quotes, ends of lines and calls; at the top and in a list."""
    hostile = ["'] ; raise SystemExit #", '"', "\\", "\n  raise SystemExit", "c0", "{tree}", "__import__('os').abort()"]
    row: Item = {name: {"S": name} for name in hostile}
    item = {**row, "rows": {"L": [{"M": row}] * ELEMENTS_MIN}}
    assert masked_and_back(item, rules([])) == item
    table = rules([path for name in hostile[1:] for path in ([name], ["rows", name])])
    left = {hostile[0]: {"S": hostile[0]}}
    assert masked_and_back(item, table) == {**left, "rows": {"L": [{"M": left}] * ELEMENTS_MIN}}


def test_misfits_below_misfits_are_walked_once_each() -> None:
    """Found before a map's own maps are gone into: else each level would double what is below it, up to a billion."""
    for leaf in ({"S": "s"}, {"N": "1"}):
        item: Item = {}
        for _ in range(30):
            item = {"below": {"L": [{"M": item}]}, "kind": {"M": {"leaf": leaf}}}
        assert masked_and_back(item, rules([])) == item


@pytest.mark.parametrize("depth", [DEPTH_MAX, DEPTH_MAX + 1, 150])
def test_maps_deeper_than_a_function_goes_are_walked(depth: int) -> None:
    """Python's parser takes 200 brackets within each other, and what is no item of DynamoDB's may have any number."""
    item: Item = {"bottom": {"N": "1"}}
    for _ in range(depth):
        item = {"below": {"M": item}}
    assert masked_and_back(item, rules([])) == item


def test_items_that_are_all_of_another_shape_do_not_fill_the_memory_with_functions() -> None:
    mask = Mask()
    for number in range(SHAPES_MAX + 5):
        attributes: Item = {f"name-{number}": {"S": "a"}}
        rows: list[Item] = [{"M": attributes}] * ELEMENTS_MIN
        assert (for_list(rows, mask) is None) == (number >= SHAPES_MAX)
        assert (for_map(attributes, mask) is None) == (number >= SHAPES_MAX)
    assert (len(mask.shapes.of_lists), len(mask.shapes.of_maps)) == (SHAPES_MAX, SHAPES_MAX)

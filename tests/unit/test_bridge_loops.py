"""Lists of like maps go through loops made for them: they come out as any list does, and no name enters code."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from bridge_lambda.images import encode, parse, restore
from bridge_lambda.loops import ELEMENTS_MIN, LOOPS_MAX, loop_for
from bridge_lambda.masks import Mask, mask_of
from bridge_lambda.rules import TableRules, table_rules
from tests.support.dynamodb_items import Item, names, texts, thoroughly


def rules(drop: list[list[str]]) -> TableRules:
    compiled: dict[str, Any] = {"version": 1, "key": ["id"], "drop": drop, "hash": [], "secret": None}
    compiled |= {"keep_old_image": True, "filter": None, "origin": None}
    return table_rules("things", compiled, lambda name, version: (_ for _ in ()).throw(AssertionError(name, version)))


def masked_and_back(item: Item, table: TableRules) -> Item:
    encoded = encode(item, table.masking)
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
        loop = loop_for(elements, Mask())
        assert loop is not None
        plain: list[Any] = []
        try:
            loop(elements, plain, [])
        except KeyError:
            assert dealt_with < len(elements)
        assert len(plain) == dealt_with


def test_under_a_hash_and_in_short_lists_there_is_no_loop() -> None:
    rows: list[Item] = [{"M": {"name": {"S": "a"}}}] * ELEMENTS_MIN
    assert loop_for(rows, mask_of([], [["name"]])) is None
    assert loop_for(rows[1:], Mask()) is None


def test_what_a_name_says_is_never_code() -> None:
    """Quotes, ends of lines and calls, where a loop is made of them."""
    hostile = [
        "'] ; raise SystemExit #",
        '"',
        "\\",
        "\n  raise SystemExit",
        "c0",
        "{plain}",
        "__import__('os').abort()",
    ]
    row: Item = {"M": {name: {"S": name} for name in hostile}}
    item = {"rows": {"L": [row] * ELEMENTS_MIN}}
    assert masked_and_back(item, rules([])) == item
    table = rules([["rows", name] for name in hostile[1:]])
    assert masked_and_back(item, table) == {"rows": {"L": [{"M": {hostile[0]: {"S": hostile[0]}}}] * ELEMENTS_MIN}}


def test_items_that_are_all_of_another_kind_do_not_fill_the_memory_with_loops() -> None:
    mask = Mask()
    for number in range(LOOPS_MAX + 5):
        rows: list[Item] = [{"M": {f"name-{number}": {"S": "a"}}}] * ELEMENTS_MIN
        assert (loop_for(rows, mask) is None) == (number >= LOOPS_MAX)
    assert len(mask.loops) == LOOPS_MAX

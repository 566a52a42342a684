"""Hypothesis strategies for DynamoDB items, and a model of when two are the same item. No code of the bridge's."""

import base64
import os
import random
from decimal import Decimal
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

EXAMPLES = int(os.environ.get("LAKESTREAM_EXAMPLES", "80"))


def thoroughly(times: int = 1) -> settings:
    """So many examples; never a failure because the machine is slow."""
    return settings(max_examples=EXAMPLES * times, deadline=None, suppress_health_check=[HealthCheck.too_slow])


Item = dict[str, Any]

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
"""Anything UTF-8 can say: control characters, astral ones, none at all."""
names = st.one_of(
    st.sampled_from(["id", "a", "a/b", "c~d", "", ".", "é", "🚗", "S", "N", "M", "0", "__proto__", "new\nline"]), texts
)
binaries = st.binary(max_size=12).map(lambda raw: base64.b64encode(raw).decode())


@st.composite
def numbers(draw: st.DrawFn) -> str:
    """Up to 38 digits, anywhere DynamoDB's numbers reach, in any of the ways a client may write them."""
    digits = draw(st.integers(0, 10 ** draw(st.integers(1, 38)) - 1))
    text = str(digits)
    kind = draw(st.sampled_from(["plain", "point", "exponent", "bare", "zeros"]))
    if kind == "point":
        at = draw(st.integers(0, len(text)))
        text = f"{text[:at] or '0'}.{text[at:] or '0'}"
    elif kind == "exponent":
        text += draw(st.sampled_from(["E", "e", "E+", "e-", "E-"])) + str(draw(st.integers(0, 85)))
    elif kind == "bare":
        text = draw(st.sampled_from(["." + text, text + "."]))
    elif kind == "zeros":
        text = "0" * draw(st.integers(1, 3)) + text + draw(st.sampled_from(["", ".0", ".50"]))
    return draw(st.sampled_from(["", "-", "+"])) + text


def _sets(members: st.SearchStrategy[str]) -> st.SearchStrategy[list[str]]:
    return st.lists(members, min_size=1, max_size=4, unique=True)


leaves = st.one_of(
    texts.map(lambda text: {"S": text}),
    numbers().map(lambda number: {"N": number}),
    st.integers(0, 2_000_000_000_000).map(lambda number: {"N": str(number)}),
    binaries.map(lambda binary: {"B": binary}),
    st.booleans().map(lambda flag: {"BOOL": flag}),
    st.just({"NULL": True}),
    _sets(texts).map(lambda members: {"SS": members}),
    _sets(binaries).map(lambda members: {"BS": members}),
    st.lists(numbers(), min_size=1, max_size=4, unique_by=Decimal).map(lambda members: {"NS": members}),
)
values = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4).map(lambda elements: {"L": elements}),
        st.dictionaries(names, inner, max_size=4).map(lambda attributes: {"M": attributes}),
    ),
    max_leaves=12,
)
items = st.dictionaries(names, values, max_size=6)


def meaning(typed: Any) -> Any:
    """Of a typed value: what DynamoDB would compare. Equal meanings are equal values."""
    ((tag, value),) = typed.items()
    if tag == "N":
        return tag, Decimal(value)
    if tag == "NS":
        return tag, frozenset(map(Decimal, value))
    if tag in ("SS", "BS"):
        return tag, frozenset(value)
    if tag == "L":
        return tag, tuple(map(meaning, value))
    if tag == "M":
        return tag, item_meaning(value)
    return tag, value


def item_meaning(item: Item) -> Any:
    return frozenset((name, meaning(typed)) for name, typed in item.items())


def unordered(typed: Any) -> Any:
    """The very texts, but sets have no order: what a restored item is compared by."""
    if isinstance(typed, list):
        return [unordered(element) for element in typed]
    if not isinstance(typed, dict):
        return typed
    return {
        tag: sorted(v) if tag in ("SS", "NS", "BS") and isinstance(v, list) else unordered(v)
        for tag, v in typed.items()
    }


def rewritten(item: Item, rng: random.Random) -> Item:
    """The same item otherwise said: maps and sets in another order, numbers in other words."""
    return {name: _rewritten(item[name], rng) for name in rng.sample(sorted(item), len(item))}


def _rewritten(typed: Item, rng: random.Random) -> Item:
    ((tag, value),) = typed.items()
    if tag == "M":
        return {tag: rewritten(value, rng)}
    if tag == "L":
        return {tag: [_rewritten(element, rng) for element in value]}
    if tag == "N":
        return {tag: _said_otherwise(value, rng)}
    if tag in ("SS", "BS", "NS"):
        members = rng.sample(value, len(value))
        return {tag: [_said_otherwise(member, rng) for member in members] if tag == "NS" else members}
    return typed


def _said_otherwise(number: str, rng: random.Random) -> str:
    exact = Decimal(number)
    if rng.random() < 0.5:
        return str(exact)
    sign, digits, exponent = exact.as_tuple()
    shift = rng.randint(0, 3)
    assert isinstance(exponent, int)
    return f"{'-' if sign else '+'}{''.join(map(str, digits))}{'0' * shift}e{exponent - shift}"

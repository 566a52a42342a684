"""JSON text through the pipeline's own reader and writer: not a digit, not a name, not a level is lost."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streaming_job.pipeline.exact_json import DEPTH_MAX, Binary, NotJsonError, Number, dumps, parse, parse_distinct

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=6)
LITERALS = st.from_regex(r"-?(0|[1-9][0-9]{0,40})(\.[0-9]{1,40})?([eE][+-]?[0-9]{1,3})?", fullmatch=True).filter(
    lambda text: text != "-0"
)
JSON = st.recursive(
    st.one_of(LITERALS, TEXTS.map(lambda text: json.dumps(text, ensure_ascii=False)), st.just("null"), st.just("true")),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3).map(lambda parts: "[" + ",".join(parts) + "]"),
        st.dictionaries(TEXTS, inner, max_size=3).map(
            lambda parts: (
                "{" + ",".join(f"{json.dumps(name, ensure_ascii=False)}:{part}" for name, part in parts.items()) + "}"
            )
        ),
    ),
    max_leaves=10,
)


def exact(text: str) -> Any:
    return json.loads(text, parse_int=lambda digits: ("n", digits), parse_float=lambda digits: ("n", digits))


@given(JSON)
def test_what_was_read_is_written_with_the_same_literals(text: str) -> None:
    assert exact(dumps(parse(text))) == exact(text)
    assert parse_distinct(text) == parse(text)


@given(st.lists(st.sampled_from(['"a":1', '"b":{"a":2}', '"c":":"', '"a" : 2', '"d":[{"a":1,"a":2}]']), max_size=5))
def test_a_name_that_repeats_is_seen_wherever_it_stands(members: list[str]) -> None:
    text = "{" + ",".join(members) + "}"

    def repeats(pairs: list[tuple[str, Any]]) -> Any:
        nonlocal repeated
        repeated |= len(dict(pairs)) < len(pairs)
        return dict(pairs)

    repeated = False
    json.loads(text, object_pairs_hook=repeats)
    if repeated:
        with pytest.raises(NotJsonError):
            parse_distinct(text)
    else:
        assert parse_distinct(text) == json.loads(text)


@pytest.mark.parametrize(
    "text", ["", "{", "[1,]", "NaN", "{'a':1}", '{"a":1} x', "01", '"\\ud800"', "\ufeff{}", "1" * 5000, '"\n"']
)
def test_what_is_no_json_is_refused(text: str) -> None:
    with pytest.raises(NotJsonError):
        parse(text)


def test_values_nested_to_the_limit_are_kept_and_deeper_ones_refused() -> None:
    text = "[" * DEPTH_MAX + "]" * DEPTH_MAX
    assert dumps(parse(text)) == text
    for levels in (DEPTH_MAX + 1, 100_000):
        with pytest.raises(NotJsonError):
            parse("[" * levels + "]" * levels)


def test_what_the_envelope_types_is_written_as_the_text_it_was() -> None:
    assert dumps([Binary("AA=="), Number("1.50"), Number("+5"), 2**70]) == '["AA==",1.50,"+5",1180591620717411303424]'

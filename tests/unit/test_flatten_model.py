"""Random items through the product and through the model: the same columns, the same values, the same rescues."""

import json
import os
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyspark.sql.types import StructType

from config.tables import TableConfig
from streaming_job.pipeline.flatten import Flattener
from tests.support.flattening import Model, changes, flat_rows, parse, plain, rescued_of

EXAMPLES = int(os.environ.get("LAKESTREAM_EXAMPLES", "150"))
CONFIG = TableConfig.model_validate(
    {
        "table": "t",
        "version": 1,
        "key": [{"name": "id"}],
        "lake": {
            "name": "t",
            "flatten": {
                "pivot": [
                    {"list": "signals", "name": "{group}_{name}", "value": "body", "embedded": True, "fields": ["meta"]}
                ],
                "index": ["list", "m.list"],
                "embedded": ["payload"],
                "json": ["whole"],
                "depth_max": 3,
                "columns_max": 60,
            },
        },
    }
)
NAMES = st.sampled_from(
    (
        *("a", "A", "b", "a b", "a.b", "a/b", "a_b", "~", "é", "\U0001f697", "\x01", "\\", "n" * 450),
        *("_seq", "key", "op", "id", "value", "list", "m"),
        *("x');DROP TABLE t;--", '"q"', "${a}", "`t`"),
    )
)
TEXTS = st.one_of(
    st.sampled_from(["", "true", "12", "'x", "#1.5", "null", '"', "\\", "{}", "é\U0001f697", "\x00", "${x}", "'"]),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=8),
)


class Literal(str):
    __slots__ = ()


@st.composite
def numbers(draw: st.DrawFn) -> Literal:
    digits = draw(st.integers(0, 10**38 - 1) | st.integers(0, 10**6))
    text = str(digits)
    point = draw(st.integers(0, len(text)))
    if draw(st.booleans()):
        text = (text[:point] or "0").lstrip("0").rjust(1, "0") + "." + (text[point:] or "0")
    exponent = draw(st.sampled_from(["", "", "", "E+5", "e-7", "E100", "E400", "e-400"]))
    return Literal(draw(st.sampled_from(["", "-"])) + text + exponent)


SCALARS = st.one_of(TEXTS, numbers(), st.booleans(), st.none())
VALUES: st.SearchStrategy[Any] = st.recursive(
    SCALARS,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(NAMES, inner, max_size=3)),
    max_leaves=6,
)


def dumps(value: Any) -> str:
    """JSON with literals as they are."""
    if isinstance(value, Literal):
        return str(value)
    if isinstance(value, dict):
        return (
            "{"
            + ",".join(f"{json.dumps(name, ensure_ascii=False)}:{dumps(part)}" for name, part in value.items())
            + "}"
        )
    if isinstance(value, list):
        return "[" + ",".join(map(dumps, value)) + "]"
    return json.dumps(value, ensure_ascii=False)


BROKEN = st.sampled_from(
    (
        *("", "{", '{"a":1} x', "NaN", "{'a':1}", '{"a":1,"a":2}', '"\\ud800"', '{"a":"\\ud83d\\ude97"}', " 5 ", "\n5"),
        *('1,"z":2', '{"a":1},{"b":2}', '{"a":1}],"z":0}', '{"a":007}', "[1]]", "\ufeff{}", "null"),
        *('{"value":{"a":{"b":{"c":1}}}}', '{"value":1},"1":{"value":2}', '{"value":1}},"x":{'),
    )
)
TEXT_OF_JSON = st.one_of(VALUES.map(dumps), st.dictionaries(NAMES, VALUES, max_size=2).map(dumps), BROKEN)
WORDS = st.sampled_from(["Charge", "Odo_meter", "a/b", "é", "x y", "~"])
SIGNAL = st.one_of(
    st.fixed_dictionaries(
        {"group": WORDS, "name": WORDS, "body": st.one_of(TEXT_OF_JSON, VALUES)},
        optional={"meta": VALUES, "code": TEXTS},
    ),
    st.dictionaries(st.sampled_from(["group", "name", "body"]), VALUES, max_size=3),
    VALUES,
)
ITEM = st.one_of(
    st.dictionaries(NAMES, VALUES, max_size=4),
    st.fixed_dictionaries(
        {},
        optional={
            "id": TEXTS,
            "signals": st.one_of(st.lists(SIGNAL, max_size=4), VALUES),
            "payload": st.one_of(TEXT_OF_JSON, VALUES),
            "list": st.one_of(st.lists(VALUES, max_size=3), VALUES),
            "whole": VALUES,
            "m": st.dictionaries(NAMES, VALUES, max_size=3),
        },
    ),
)


@settings(
    max_examples=EXAMPLES,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(
    batches=st.lists(st.lists(ITEM.map(dumps), min_size=1, max_size=15), min_size=1, max_size=2),
    cut=st.integers(0, 15),
)
def test_random_items_flatten_as_the_model_says(batches: list[list[str]], cut: int) -> None:
    """Batch after batch, in parts; between them the job restarts and knows no more than the table's schema."""
    model = Model(CONFIG)
    model.learn([])
    model.columns["/whole"] = ("whole", "j")
    known: StructType | None = None
    for images in batches:
        flattener, rows = Flattener(CONFIG), changes([*images, None])
        parts = [flattener.part(part, known) for part in (rows.slice(0, cut), rows.slice(cut)) if part.num_rows]
        flattened = flattener.join(rows, known, parts)
        expected = [model.leaves(image) for image in images]
        model.learn(expected)
        assert flattened.schema.names == ["id", *(name for name, _ in model.columns.values())]
        json_columns = {name for name, kind in model.columns.values() if kind == "j"}
        for row, leaves in zip(flat_rows(flattened), [*expected, []], strict=True):
            values, rescued = model.row(leaves)
            found = {
                name: plain(parse(value)) if name in json_columns else value
                for name, value in row.items()
                if value is not None and name not in ("_rescued", "id")
            }
            assert found == values
            assert rescued_of(row["_rescued"]) == rescued
        known = StructType.fromJson(json.loads(flattened.schema.json()))

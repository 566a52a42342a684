"""Whatever lies in the stream, the job's reader judges it and the flattener makes a row of what it took.

One record that either of them raised for would park its table for good.
"""

import json
import os
import tracemalloc
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from config.tables import TableConfig
from streaming_job.pipeline.decode import Decoder
from streaming_job.pipeline.flatten import Flattener
from tests.unit.test_decode import ENVELOPE
from tests.unit.test_flatten_model import NAMES

EXAMPLES = int(os.environ.get("LAKESTREAM_EXAMPLES", "200"))
CONFIG = TableConfig.model_validate(
    {
        "table": "things",
        "version": 1,
        "key": [{"name": "id"}],
        "lake": {
            "name": "things",
            "time_zone": {"attribute": "zone", "zone": "Europe/Berlin"},
            "columns": {
                "n": "bigint",
                "m": "decimal(38,10)",
                "at": "timestamp",
                "ms": {"type": "timestamp", "unit": "ms"},
                "day": "date",
                "word": {"type": "timestamp", "format": "dd/MM/yyyy HH:mm"},
                "raw": "binary",
                "doc": "json",
                "yes": "boolean",
            },
            "flatten": {
                "pivot": [
                    {"list": "signals", "name": "{group}_{name}", "value": "body", "embedded": True, "fields": ["meta"]}
                ],
                "index": ["list"],
                "embedded": ["payload"],
                "json": ["whole"],
                "depth_max": 4,
                "columns_max": 40,
            },
        },
    }
)
FAR_OUT = "1e-99999999999999999999"
"""A number of JSON's that no decimal holds."""
FAR_STEP = "9" * 5_000
"""A place in a list, of more digits than Python makes a number of."""
NO_NUMBERS = ("", "NaN", "-sNaN1", "Infinity", "abc", "1_000", " 1", "1 ", "\u0661", "\uff11", "1e", ".", "+", "0x1")
"""Of some of them Python makes numbers."""
NUMBERED = {
    of_type: TableConfig.model_validate(
        {
            "table": "things",
            "version": 1,
            "key": [{"name": "id", "type": "N"}],
            "lake": {"name": "things", "columns": {"id": rule}},
        }
    )
    for of_type, rule in {
        **{of_type: of_type for of_type in ("bigint", "double", "decimal(38,10)")},
        "timestamp": {"type": "timestamp", "unit": "ms"},
    }.items()
}


class Literal(str):
    __slots__ = ()


literals = st.sampled_from(
    (
        *("0", "-0", "1.50", "-1E+2", "9" * 38, "9" * 5000),
        *("0." + "1" * 400, "1e400", "1e-400", FAR_OUT, "1e99999999999999999999"),
    )
).map(Literal)
texts = st.one_of(
    st.sampled_from(
        (
            *NO_NUMBERS,
            *("true", FAR_OUT, "-0", "+1", ".5", "007", "A" * 300, "AA==", "[[[", "{}"),
            *("2026-02-30", "2026-01-31 10:00:00+99:99", "9999-12-31T23:59:59.9999999Z", "0001-01-01T00:00:00+23:59"),
            *("31/02/2026 25:61", "Europe/Berlin", "../../etc/passwd"),
        )
    ),
    st.text(max_size=6),
)
members = st.one_of(
    NAMES,
    st.sampled_from(
        (
            *("n", "m", "at", "ms", "day", "word", "raw", "doc", "yes", "zone"),
            *("signals", "list", "payload", "whole", "group", "name", "body", "meta", "value"),
        )
    ),
)
plain = st.recursive(
    st.one_of(st.none(), st.booleans(), literals, texts),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(members, inner, max_size=4)),
    max_leaves=10,
)
values = st.one_of(plain, plain.map(lambda value: written(value)))  # noqa: PLW0108 - written below
"""A value, or the text of one: bodies hold JSON as text."""
steps = members | st.sampled_from(["0", "1", "~2", FAR_STEP])
pointers = st.lists(steps, min_size=1, max_size=3).map(lambda names: "/new/" + "/".join(names))
tags = st.dictionaries(pointers, st.sampled_from(["N", "B", "SS", "NS", "BS", "?", ""]), max_size=3)


def written(value: Any) -> str:
    """JSON text, with its literals as they are."""
    if isinstance(value, Literal):
        return str(value)
    if isinstance(value, dict):
        return "{" + ",".join(f"{json.dumps(name)}:{written(part)}" for name, part in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(written, value)) + "]"
    return json.dumps(value)


def line(new: Any, types: dict[str, str], key: Any = None) -> bytes:
    held = {**ENVELOPE, "types": types, "new": "NEW", "key": "KEY"}
    text = json.dumps(held, separators=(",", ":")).replace('"KEY"', written(key or ENVELOPE["key"]))
    return text.replace('"NEW"', written(new)).encode()


def changes(lines: list[bytes], config: TableConfig = CONFIG) -> pa.Table:
    count = len(lines)
    rows = pa.table(
        {
            "data": pa.array(lines, pa.binary()),
            "stream": ["s"] * count,
            "shardId": ["shardId-0"] * count,
            "sequenceNumber": [str(at) for at in range(count)],
            "approximateArrivalTimestamp": pa.array([0] * count, pa.timestamp("us", "UTC")),
        }
    )
    return Decoder({"things": config}).changes(rows)


@settings(max_examples=EXAMPLES * 3, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.dictionaries(members, values, max_size=6), tags)
@example({"payload": Literal(f'"{{\\"v\\":{FAR_OUT}}}"')}, {})
@example({"v": FAR_OUT}, {"/new/v": "N"})
@example({"v": Literal("1.5"), "n": "NaN", "m": "NaN", "ms": "NaN"}, {f"/new/{name}": "N" for name in ("n", "m", "ms")})
@example({"list": ["abc", "1.5"]}, {"/new/list/0": "N", "/new/list/1": "N", f"/new/list/{FAR_STEP}": "N"})
@example({"v": {"x": ["NaN"]}}, {"/new/v/x/0": "N", f"/new/v/x/{FAR_STEP}/y": "B"})
@example({"v": Literal("9" * 5000)}, {})
@example({"v": Literal("[" * 900 + "]" * 900)}, {})
@example({"v": {"x": Literal("1")}}, {"/new/v": "SS", "/new/v/x": "B"})
@example({"zone": "../../etc/passwd", "at": "2026-01-31T10:00:00"}, {})
def test_of_every_change_that_is_taken_the_flattener_makes_a_row(image: dict[str, Any], types: dict[str, str]) -> None:
    """Any JSON under any types: what has no column, or does not fit it, is rescued."""
    taken = changes([line({"id": "a", **image}, types), line({"id": "a", **image}, {})])
    good = taken.filter(pa.compute.is_null(taken["reject"]))
    flattener = Flattener(CONFIG)
    first = flattener.rows(good, None)
    again = flattener.rows(good, first.schema)
    assert all(len(column) == good.num_rows for column in (*first.columns, first.rescued, *again.columns))
    assert again.schema == first.schema
    for rescued in first.rescued.to_pylist():
        assert rescued is None or isinstance(json.loads(rescued, parse_int=str), dict)


@pytest.mark.parametrize("said", NO_NUMBERS)
def test_text_that_is_called_a_number_and_is_none_stays_text(said: str) -> None:
    """A column of numbers has no place for it: it is rescued as it was."""
    flattener = Flattener(CONFIG)
    known = flattener.rows(changes([line({"id": "a", "v": Literal("1.5")}, {})]), None).schema
    flattened = flattener.rows(changes([line({"id": "a", "v": said}, {"/new/v": "N"})]), known)
    assert flattened.columns[known.names.index("v")].to_pylist() == [None]
    assert [json.loads(text) for text in flattened.rescued.to_pylist()] == [{"/v": said}]


@pytest.mark.parametrize("config", NUMBERED.values(), ids=NUMBERED)
@settings(max_examples=EXAMPLES, deadline=None)
@given(texts | literals, st.sampled_from(["N", "B", "S", ""]))
@example("NaN", "N")
@example("abc", "N")
@example("1_000", "N")
@example(Literal("1e400"), "N")
@example(Literal("9" * 5000), "N")
def test_a_key_is_a_number_that_its_column_takes_or_its_record_a_reject(
    config: TableConfig, key: str, said: str
) -> None:
    """Whatever the text, and whatever its record calls it."""
    judged = changes([line({}, {"/key/id": said}, {"id": key}), line({}, {}, {"id": Literal("5")})], config)
    taken = judged.filter(pa.compute.is_null(judged["reject"]))
    assert taken["key"].to_pylist()[-1] == '{"id":5}'
    assert Flattener(config).rows(taken, None).columns[0].null_count == 0
    if key in NO_NUMBERS or said != "N":
        assert taken.num_rows == 1


@settings(max_examples=EXAMPLES * 3, deadline=None)
@given(st.lists(st.binary(max_size=60) | st.integers(0, 400).map(lambda cut: line({"id": "a"}, {})[:cut]), max_size=6))
@example([b"", b"null", b"[]", b"{}", b"\x00", b"\xff\xfe", b'{"v":1}', b'"' + b"\\" * 99])
@example([b"[" * 100_000, b'{"v":' * 50_000, b"1" * 100_000, b'{"v":1,"new":' + b"[" * 100_000])
def test_every_record_whatever_its_bytes_is_a_change_or_a_reject_with_its_reason(lines: list[bytes]) -> None:
    judged = changes(lines).to_pylist()
    assert len(judged) == len(lines)
    for verdict, data in zip(judged, lines, strict=True):
        assert (verdict["reject"] is None) != (verdict["table"] is None)
        assert verdict["reject"] is None or verdict["data"] == data


def test_what_a_record_takes_to_read_is_bounded_by_its_size() -> None:
    """The shapes that blow up careless readers: deep nesting, long numbers, many members, many pointers."""
    million = 10**6
    shapes = [
        line({"id": "a", "v": Literal("[" * (million // 2) + "]" * (million // 2))}, {}),
        line({"id": "a", "v": Literal("9" * million)}, {}),
        line({"id": "a", "v": Literal("1e" + "9" * million)}, {}),
        line({"id": "a", **{f"n{at}": at for at in range(60_000)}}, {}),
        line({"id": "a"}, {f"/new/{at}": "B" for at in range(60_000)}),
        line({"id": "a", "signals": [{"group": "g", "name": str(at), "body": "{}"} for at in range(20_000)]}, {}),
    ]
    for data in shapes:
        tracemalloc.start()
        judged = changes([data])
        Flattener(CONFIG).rows(judged.filter(pa.compute.is_null(judged["reject"])), None)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < 60 * len(data), (data[:60], peak / len(data))

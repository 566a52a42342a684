"""Whatever a checkpoint holds, the source reads it as it was written or refuses it by name."""

import json
import os
from contextlib import suppress
from typing import Any

from hypothesis import example, given, settings
from hypothesis import strategies as st

from streaming_job.kinesis.errors import OffsetError, OptionError
from streaming_job.kinesis.offsets import Offset
from streaming_job.kinesis.options import SPECS, parse_options
from streaming_job.kinesis.shards import Shard, adopt, prune, readable, vanished

EXAMPLES = int(os.environ.get("LAKESTREAM_EXAMPLES", "100"))
json_values = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.floats(),
        st.text(max_size=6),
        st.sampled_from(["1", "9" * 200, "٣"]),
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=2), st.dictionaries(st.text(max_size=6), inner, max_size=2)),
    max_leaves=5,
)
positions = st.fixed_dictionaries(
    {},
    optional={
        "after": json_values,
        "at_ms": json_values,
        "closed": json_values,
        "trim_horizon": json_values,
        "first": json_values,
        "seen_ms": json_values,
        "odd": json_values,
    },
)
streams = st.fixed_dictionaries(
    {},
    optional={
        "created_ms": st.integers() | json_values,
        "shards": st.dictionaries(st.sampled_from(["a", "b"]), positions) | json_values,
    },
)
documents = st.fixed_dictionaries(
    {"version": st.just(1) | json_values},
    optional={"streams": st.dictionaries(st.just("s"), streams) | json_values, "fresh": json_values},
)


@settings(max_examples=EXAMPLES * 10, deadline=None)
@given(documents)
@example({"version": 1, "streams": {"s": {"created_ms": float("inf"), "shards": {}}}})
@example({"version": 1, "streams": {"s": {"created_ms": 1, "shards": {"a": {"after": "1", "seen_ms": float("nan")}}}}})
@example({"version": 1, "streams": {"s": {"created_ms": 1, "shards": {"a": {"at_ms": "9" * 5000}}}}})
@example({"version": 1, "streams": {"s": {"created_ms": 1, "shards": {"a": []}}}})
@example({"version": 1, "streams": {"s": {"created_ms": 1, "shards": {"a": {"after": ["1"]}}}}})
@example({"version": 1, "streams": {"s": {"created_ms": 1, "shards": {"a": {"closed": {"x": 1}}}}}})
def test_an_offset_is_read_as_it_was_written_or_refused_by_name(document: dict[str, Any]) -> None:
    try:
        offset = Offset.from_json(document)
    except OffsetError:
        return
    text = json.dumps(offset.to_json())
    assert json.dumps(Offset.from_json(json.loads(text)).to_json()) == text
    listing = {"s": (Shard("a"), Shard("b", ("a",)), Shard("c", ("a", "b")))}
    adopted = prune(adopt(offset, listing), listing)
    assert set(readable(adopted, listing)) <= set(adopted.positions())
    assert set(vanished(adopted, listing)) <= set(adopted.positions())


@settings(max_examples=EXAMPLES * 5, deadline=None)
@given(
    st.dictionaries(
        st.sampled_from([spec.name for spec in SPECS]) | st.text(max_size=6),
        st.text(max_size=8)
        | st.sampled_from(["1", "-1", "1e400", "9" * 5000, "nan", "inf", "5m", "٣s", "true", "{}", "2026"]),
        max_size=4,
    )
)
@example({"streamName": "s", "maxFetchRate": "nan"})
@example({"streamName": "s", "fetchBufferSize": "9" * 400 + "gb"})
@example({"streamName": "s", "initialPosition": '{"at_timestamp": 1, "format": []}'})
@example({"streamName": "s", "initialPosition": "0001-01-01T00:00:00+23:59"})
def test_options_are_understood_or_refused_by_name(given_options: dict[str, str]) -> None:
    with suppress(OptionError):
        parse_options(given_options)

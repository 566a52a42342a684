"""Offsets: what a checkpoint holds, and what it refuses."""

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streaming_job.kinesis.errors import OffsetError
from streaming_job.kinesis.offsets import Offset, Position, ShardRef, StreamOffset, newer

sequences = st.integers(min_value=10**20, max_value=10**55).map(str)
times = st.integers(min_value=0, max_value=2**45)
positions = st.one_of(
    st.builds(lambda seen: Position.trim_horizon(seen_ms=seen), times),
    st.builds(lambda at, seen: Position.at(at, seen_ms=seen), times, times),
    st.builds(lambda s, seen: Position.after(s, seen_ms=seen), sequences, times),
    st.builds(lambda s, first: replace(Position.after(s), first=first), sequences, sequences),
    st.builds(lambda s, seen: Position.closed(s, seen_ms=seen), st.one_of(st.just(""), sequences), times),
)
shard_names = st.integers(min_value=0, max_value=99).map(lambda n: f"shardId-{n:012d}")
offsets = st.builds(
    Offset,
    st.dictionaries(
        st.sampled_from(["a", "b.c", "D_e-f"]),
        st.builds(StreamOffset, times, st.dictionaries(shard_names, positions, max_size=5), times, times),
        max_size=3,
    ),
    fresh=st.booleans(),
)


@given(offsets)
def test_an_offset_survives_the_checkpoint_exactly(offset: Offset) -> None:
    assert Offset.from_json(json.loads(json.dumps(offset.to_json()))) == offset


@given(offsets)
def test_the_text_of_an_offset_has_sorted_keys_so_that_equal_offsets_are_equal_text(offset: Offset) -> None:
    text = json.dumps(offset.to_json())
    assert text == json.dumps(offset.to_json(), sort_keys=True)
    again = Offset.from_json(json.loads(text))
    assert json.dumps(again.to_json()) == text


@given(offsets)
def test_an_offset_holds_only_primitives(offset: Offset) -> None:
    def check(value: Any) -> None:
        if isinstance(value, dict):
            assert all(isinstance(key, str) for key in value)
            for each in value.values():
                check(each)
        else:
            assert isinstance(value, (str, int, bool))

    check(offset.to_json())


@pytest.mark.parametrize("version", [None, 0, 2, "1"])
def test_an_offset_of_another_version_is_refused_by_name(version: object) -> None:
    with pytest.raises(OffsetError, match="version"):
        Offset.from_json({"version": version, "streams": {}})


@pytest.mark.parametrize(
    "shards",
    [
        {"shardId-0": {"after": "49x"}},
        {"shardId-0": {"after": "1", "closed": "2"}},
        {"shardId-0": {}},
        {"shardId-0": {"somewhere": 1}},
        ["shardId-0"],
        {"shardId-0": {"at_ms": "soon"}},
    ],
)
def test_a_damaged_offset_is_refused_and_never_guessed(shards: object) -> None:
    with pytest.raises(OffsetError):
        Offset.from_json({"version": 1, "streams": {"s": {"created_ms": 1, "shards": shards}}})


@given(st.integers(min_value=0, max_value=10**56), st.integers(min_value=0, max_value=10**56))
def test_sequence_numbers_compare_as_numbers_whatever_their_length(left: int, right: int) -> None:
    assert newer(str(left), str(right)) == (left > right)


def test_seeing_a_shard_again_never_moves_what_was_seen_back() -> None:
    position = Position.after("123", seen_ms=50)
    assert position.seen(40) is position
    assert position.seen(60).seen_ms == 60
    assert position.seen(60).same_place(position)


def test_moving_one_shard_leaves_the_others_and_the_original_as_they_were() -> None:
    offset = Offset({"s": StreamOffset(1, {"a": Position.trim_horizon(), "b": Position.after("1")})})
    moved = offset.moved({ShardRef("s", "a"): Position.after("2")})
    assert moved.positions() == {ShardRef("s", "a"): Position.after("2"), ShardRef("s", "b"): Position.after("1")}
    assert offset.positions()[ShardRef("s", "a")] == Position.trim_horizon()


def test_a_retention_that_rose_leaves_behind_what_may_have_been_trimmed_before_and_one_that_fell_nothing() -> None:
    kept = StreamOffset(1, retention_ms=100)
    assert kept.keeping(100, now_ms=1_000) is kept
    assert kept.keeping(50, now_ms=1_000) == StreamOffset(1, retention_ms=50)
    risen = kept.keeping(700, now_ms=1_000)
    assert risen == StreamOffset(1, retention_ms=700, trimmed_ms=900)
    assert risen.keeping(800, now_ms=1_200).trimmed_ms == 900
    assert Offset.from_json(Offset({"s": risen}).to_json()) == Offset({"s": risen})


def test_an_offset_of_a_release_that_knew_no_retention_is_read_and_takes_the_present_one() -> None:
    offset = Offset.from_json({"version": 1, "streams": {"s": {"created_ms": 1, "shards": {}}}})
    assert offset.streams["s"].keeping(700, now_ms=1_000) == StreamOffset(1, retention_ms=700)

"""Where a key's row may be: never a place too few, whatever two keys share, whatever is written twice or not at all."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streaming_job.pipeline import key_index
from streaming_job.pipeline.arrow import Column
from streaming_job.pipeline.key_index import KeyIndex

KEYS = st.integers(0, 30)


def moments(times: list[int]) -> pa.Array:
    return pa.array(times, pa.timestamp("us", "UTC"))


@dataclass(frozen=True)
class Write:
    """Of the keys that are there one may be refused, as a row that is not newer is; nothing then happens to it."""

    keys: list[int]
    refused: list[int]


WRITES = st.lists(
    st.builds(Write, st.lists(KEYS, min_size=1, max_size=6, unique=True), st.lists(KEYS, max_size=2)), max_size=25
)


@settings(deadline=None, max_examples=300)
@given(st.dictionaries(KEYS, st.integers(1, 5), max_size=20), WRITES, st.sampled_from([1, 3, 7, 1000]))
def test_a_row_is_always_among_the_places_its_key_is_looked_for(
    held: dict[int, int], writes: list[Write], hashes: int
) -> None:
    """With few hashes, so that many keys share one; a key that is refused stays where it was."""
    with pytest.MonkeyPatch.context() as patch:

        def colliding(keys: Column) -> key_index.Hashes:
            return np.array([int(key) % hashes for key in keys.to_pylist()], np.int64)

        patch.setattr(key_index, "_hashed", colliding)
        patch.setattr(key_index, "_RECENT_MAX", 4)
        rows = dict(held)
        index = KeyIndex([(pa.array(list(rows), pa.int64()), moments(list(rows.values())))])
        for at, write in enumerate(writes, start=10):
            keys = pa.array(write.keys)
            found = index.look_up(keys)
            for key, places in zip(write.keys, found.places, strict=True):
                assert (key not in rows) or rows[key] in places
            written = [key for key in write.keys if key not in rows or key not in write.refused]
            updated = sum(1 for key in written if key in rows)
            rows |= dict.fromkeys(written, at)
            times = moments([at] * len(write.keys))
            index.written(found, times, inserted=len(written) - updated, updated=updated)


def test_a_key_that_moves_leaves_no_place_behind() -> None:
    index = KeyIndex([(pa.array(["a", "b"]), moments([1, 2]))])
    for at in (3, 4):
        found = index.look_up(pa.array(["a"]))
        index.written(found, moments([at]), inserted=0, updated=1)
    assert index.look_up(pa.array(["a", "b", "c"])).places == [(4,), (2,), ()]


def test_a_row_that_was_not_newer_leaves_the_others_of_its_batch_no_more_places_with_each_update() -> None:
    index = KeyIndex([(pa.array(["a", "b"]), moments([1, 2]))])
    index.written(index.look_up(pa.array(["a", "b"])), moments([3, 3]), inserted=0, updated=1)
    assert index.look_up(pa.array(["a", "b"])).places == [(1, 3), (2, 3)]
    for at in range(4, 204):
        index.written(index.look_up(pa.array(["b"])), moments([at]), inserted=0, updated=1)
    assert index.look_up(pa.array(["a", "b"])).places == [(1, 3), (203,)]
    assert not index.is_worn


def test_an_index_says_when_a_key_may_be_in_too_many_places() -> None:
    """As when one row of each batch was not newer, and nobody says which."""
    index = KeyIndex([(pa.array(["a", "b"]), moments([1, 2]))])
    for at in range(3, 3 + key_index.PLACES_MAX - 1):
        assert not index.is_worn
        index.written(index.look_up(pa.array(["a", "b"])), moments([at, at]), inserted=0, updated=1)
    assert not index.is_worn
    index.written(index.look_up(pa.array(["a", "b"])), moments([99, 99]), inserted=0, updated=1)
    assert index.is_worn


def test_places_that_are_none_any_more_are_not_kept_when_keys_are_sorted_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(key_index, "_RECENT_MAX", 1)
    index = KeyIndex([])
    for at in range(100):
        keys = pa.array(["a", "b", f"new{at % 2}"])
        found = index.look_up(keys)
        inserted = 3 - found.known
        updated = found.known - (at % 4 == 1)
        index.written(found, moments([at] * 3), inserted=inserted, updated=updated)
    assert len(index) <= 4 * 3


def test_the_condition_covers_every_place_in_few_spans() -> None:
    times = [*range(0, 100_000_000, 1_000_000), 10**15]
    found = KeyIndex([(pa.array([str(time) for time in times]), moments(times))]).look_up(
        pa.array([str(time) for time in times])
    )
    condition = found.condition("t.at")
    assert condition.count(" OR ") < 16
    spans = [part for part in condition.split("'") if part.startswith(("19", "20"))]
    assert len(spans) % 2 == 0
    bounds = [datetime.fromisoformat(part) for part in spans]
    for time in times:
        moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=time)
        assert any(first <= moment <= last for first, last in zip(bounds[::2], bounds[1::2], strict=True))


def test_for_keys_that_are_surely_new_no_file_is_read() -> None:
    found = KeyIndex([(pa.array(["a"]), moments([5]))]).look_up(pa.array(["b"]))
    assert found.known == 0
    assert "1970-01-01T00:00:00" in found.condition("t.at")

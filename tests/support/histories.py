"""Random histories of items, and what the lake must hold of them: a model that shares no code with the product."""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from envelopes import DAY_MS, Change
from hypothesis import strategies as st

_TWICE: Final = 0.05
_LIFE_SPAN: Final = 5_000
_OUT_OF_ORDER: Final = 300


@dataclass
class Model:
    current: dict[str, tuple[str, bool, str | None]] = field(default_factory=dict)
    """By key: the newest version, whether it is a tombstone, the digest of its image."""
    items: dict[str, Any] = field(default_factory=dict)
    history: set[tuple[str, str, str]] = field(default_factory=set)


def model(delivered: Sequence[Sequence[Change]]) -> Model:
    """The plainest account: of all that was ever delivered, each change counts once and the highest number stands."""
    held = Model()
    for change in (change for batch in delivered for change in batch):
        held.history.add((change.table, change.key_text, change.seq))
        standing = held.current.get(change.key_text)
        if standing is None or standing[0] < change.seq:
            held.current[change.key_text] = (change.seq, change.op == "REMOVE", change.digest)
            held.items[change.key_text] = change.new
    return held


def check(expected: Model, rows: Sequence[dict[str, Any]]) -> None:
    """Rows of `current`, tombstones included: keys, versions, digests, and the columns themselves."""
    assert {row["_key"]: (row["_seq"], row["_deleted"], row["_digest"]) for row in rows} == expected.current
    assert len(rows) == len(expected.current)
    for row in rows:
        item = expected.items[row["_key"]] or {}
        assert (row["n"], row["s"]) == (item.get("n"), item.get("s"))
        assert row["_rescued"] is None
        assert (row["_row_digest"] is None) == row["_deleted"]


def life(key: str, *, length: int, pick: Callable[[int, int], int]) -> list[Change]:
    """One item's life: inserted, changed, removed, inserted again, in the order of its numbers.

    `pick` chooses between two numbers, both included.
    """
    changes: list[Change] = []
    standing: dict[str, Any] | None = None
    number = pick(0, 3)
    for _ in range(length):
        number += pick(1, 3)
        removed = standing is not None and pick(0, 2) == 0
        new = None if removed else {"id": key, "n": number, "s": ("", "a", "ü", "'\\")[pick(0, 3)]}
        op = "REMOVE" if removed else "MODIFY" if standing is not None else "INSERT"
        created_ms = DAY_MS + number * 20_000_000
        ttl = removed and pick(0, 1) == 1
        changes.append(Change({"id": key}, number, op, new=new, old=standing, ttl=ttl, created_ms=created_ms))
        standing = new
    return changes


def long_history(rng: random.Random, changes: int) -> list[Change]:
    """So many changes of a tenth as many items, as they may be delivered: many lives at a time, out of order by up to
    some hundreds, one in twenty twice, and a long stretch of it again at the end.
    """
    lives: list[list[Change]] = []
    left = changes
    while left:
        lives.append(life(f"k{len(lives)}", length=min(left, rng.randint(1, 20)), pick=rng.randint))
        left -= len(lives[-1])
    # Each life is laid into a part of the whole, and each of its changes lands a little before or after its turn.
    placed: list[tuple[float, int, Change]] = []
    for each in lives:
        start, turns = rng.random() * changes, sorted(rng.random() for _ in each)
        for turn, change in zip(turns, each, strict=True):
            for _ in range(2 if rng.random() < _TWICE else 1):
                placed.append(
                    (start + turn * _LIFE_SPAN + rng.uniform(-_OUT_OF_ORDER, _OUT_OF_ORDER), len(placed), change)
                )
    delivered = [change for _, _, change in sorted(placed)]
    again = rng.randrange(len(delivered))
    return delivered + delivered[again : again + len(delivered) // 20]


@st.composite
def batches(draw: st.DrawFn, *, keys_min: int = 1, keys: int = 6, length_max: int = 6) -> list[list[Change]]:
    """Lives laid into one stream, shuffled, some of it twice, cut anywhere, some batches run again."""

    def pick(least: int, most: int) -> int:
        return draw(st.integers(least, most))

    lives = [life(f"k{number}", length=pick(1, length_max), pick=pick) for number in range(pick(keys_min, keys))]
    stream = [change for each in lives for change in each]
    stream += [stream[index] for index in draw(st.lists(st.integers(0, len(stream) - 1), max_size=len(stream)))]
    shuffled = draw(st.permutations(stream))
    cuts = sorted(draw(st.sets(st.integers(1, len(shuffled)), max_size=4)))
    cut = [shuffled[start:end] for start, end in zip([0, *cuts], [*cuts, len(shuffled)], strict=True) if start < end]
    again = draw(st.lists(st.integers(0, len(cut) - 1), max_size=2))
    return cut + [cut[index] for index in again]

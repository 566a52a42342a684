"""Random histories of items, and what the lake must hold of them: a model that shares no code with the product."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from envelopes import DAY_MS, Change
from hypothesis import strategies as st


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


@st.composite
def life(draw: st.DrawFn, key: str, *, length_max: int) -> list[Change]:
    """One item's life: inserted, changed, removed, inserted again, in the order of its numbers."""
    changes: list[Change] = []
    standing: dict[str, Any] | None = None
    number = draw(st.integers(0, 3))
    for _ in range(draw(st.integers(1, length_max))):
        number += draw(st.integers(1, 3))
        removed = standing is not None and draw(st.integers(0, 2)) == 0
        new = None if removed else {"id": key, "n": number, "s": draw(st.sampled_from(["", "a", "ü", "'\\"]))}
        op = "REMOVE" if removed else "MODIFY" if standing is not None else "INSERT"
        created_ms = DAY_MS + number * 20_000_000
        ttl = removed and draw(st.booleans())
        changes.append(Change({"id": key}, number, op, new=new, old=standing, ttl=ttl, created_ms=created_ms))
        standing = new
    return changes


@st.composite
def batches(draw: st.DrawFn, *, keys_min: int = 1, keys: int = 6, length_max: int = 6) -> list[list[Change]]:
    """Lives laid into one stream, shuffled, some of it twice, cut anywhere, some batches run again."""
    lives = [draw(life(f"k{number}", length_max=length_max)) for number in range(draw(st.integers(keys_min, keys)))]
    stream = [change for each in lives for change in each]
    stream += [stream[index] for index in draw(st.lists(st.integers(0, len(stream) - 1), max_size=len(stream)))]
    shuffled = draw(st.permutations(stream))
    cuts = sorted(draw(st.sets(st.integers(1, len(shuffled)), max_size=4)))
    cut = [shuffled[start:end] for start, end in zip([0, *cuts], [*cuts, len(shuffled)], strict=True) if start < end]
    again = draw(st.lists(st.integers(0, len(cut) - 1), max_size=2))
    return cut + [cut[index] for index in again]

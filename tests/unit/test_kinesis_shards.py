"""Which shards may be read, through splits and merges."""

import random

import pytest

from streaming_job.kinesis.offsets import Offset, Position, ShardRef, StreamOffset
from streaming_job.kinesis.shards import Shard, StreamInfo, adopt, initial_offset, prune, readable, vanished

INFO = StreamInfo("s", 1, 86_400_000)


def offset_of(**shards: Position) -> Offset:
    return Offset({"s": StreamOffset(1, shards)})


def names(offset: Offset, *shards: Shard) -> set[str]:
    return {ref.shard for ref in readable(offset, {"s": shards})}


def test_a_query_starts_every_shard_at_the_same_place_so_that_children_lose_nothing_after_that_time() -> None:
    listing = {"s": (Shard("a"), Shard("b", ("a",)))}
    offset = initial_offset([INFO], listing, Position.at(5))
    assert set(offset.positions().values()) == {Position.at(5)}
    assert names(offset, *listing["s"]) == {"a"}


@pytest.mark.parametrize("parents", [("a",), ("a", "b")])
def test_a_child_is_read_only_when_all_its_parents_are_read(parents: tuple[str, ...]) -> None:
    child = Shard("c", parents)
    half = offset_of(a=Position.closed("9"), b=Position.after("3"), c=Position.trim_horizon())
    assert ("c" in names(half, Shard("a"), Shard("b"), child)) is (len(parents) == 1)
    whole = offset_of(a=Position.closed("9"), b=Position.closed("7"), c=Position.trim_horizon())
    assert names(whole, Shard("a"), Shard("b"), child) == {"c"}


def test_a_child_whose_parents_are_forgotten_is_read() -> None:
    assert names(offset_of(c=Position.trim_horizon()), Shard("c", ("long-gone",))) == {"c"}


def test_a_shard_that_appears_later_starts_at_its_trim_horizon_and_inherits_when_its_parents_were_seen() -> None:
    offset = offset_of(a=Position.closed("9", seen_ms=70), b=Position.closed("8", seen_ms=60))
    listing = {"s": (Shard("a"), Shard("b"), Shard("c", ("a", "b")))}
    adopted = adopt(offset, listing)
    assert adopted.positions()[ShardRef("s", "c")] == Position.trim_horizon(seen_ms=60)
    assert adopt(adopted, listing) is adopted


def test_a_merges_child_takes_over_what_is_known_of_the_parent_that_was_seen_last() -> None:
    offset = offset_of(
        a=Position.closed("9", seen_ms=70), b=Position.closed("", seen_ms=60), c=Position.trim_horizon(seen_ms=60)
    )
    listing = {"s": (Shard("a"), Shard("b"), Shard("c", ("a", "b")))}
    assert readable(offset, listing) == {ShardRef("s", "c"): Position.trim_horizon(seen_ms=70)}


def test_a_shard_knows_of_its_lineage_though_several_generations_appear_at_once_or_one_was_never_seen() -> None:
    """Nothing known of it, what was trimmed before its first reading would be passed over in silence."""
    offset = offset_of(a=Position.closed("9", seen_ms=70), b=Position.after("8", seen_ms=60))
    at_once = {"s": (Shard("d", ("c",)), Shard("c", ("a",)), Shard("a"), Shard("b"))}
    assert adopt(offset, at_once).positions()[ShardRef("s", "d")] == Position.trim_horizon(seen_ms=70)
    came_and_went = {"s": (Shard("b"), Shard("d", ("c",)))}
    assert adopt(offset, came_and_went).positions()[ShardRef("s", "d")] == Position.trim_horizon(seen_ms=60)


def test_a_read_shard_is_dropped_only_when_kinesis_has_forgotten_it() -> None:
    offset = offset_of(a=Position.closed("9"), b=Position.after("3"))
    assert prune(offset, {"s": (Shard("a"), Shard("b"))}) is offset
    assert set(prune(offset, {"s": (Shard("b"),)}).positions()) == {ShardRef("s", "b")}


def test_a_shard_that_disappears_with_something_left_to_read_is_named() -> None:
    offset = offset_of(a=Position.closed("9"), b=Position.after("3"))
    assert vanished(offset, {"s": (Shard("c"),)}) == [ShardRef("s", "b")]


@pytest.mark.parametrize("seed", range(20))
def test_whatever_is_split_and_merged_every_shard_is_read_once_and_after_its_parents(seed: int) -> None:
    """Random reshardings of a growing tree; shards are read to their end in random order as `readable` allows."""
    rng = random.Random(seed)
    tree = {f"s{n}": Shard(f"s{n}") for n in range(rng.randint(1, 4))}
    open_shards = list(tree)
    offset = initial_offset([INFO], {"s": tuple(tree.values())}, Position.trim_horizon()).written()
    read: list[str] = []
    for step in range(60):
        if rng.random() < 0.4 and step < 40:
            merge = len(open_shards) > 1 and rng.random() < 0.5
            parents = tuple(rng.sample(open_shards, 2 if merge else 1))
            for _ in range(1 if merge else 2):
                child = Shard(f"s{len(tree)}", parents)
                tree[child.id] = child
                open_shards.append(child.id)
            open_shards = [shard for shard in open_shards if shard not in parents]
        listing = {"s": tuple(tree.values())}
        offset = adopt(offset, listing)
        ended = [ref for ref in readable(offset, listing) if ref.shard not in open_shards]
        if ended:
            ref = rng.choice(ended)
            assert all(parent in read for parent in tree[ref.shard].parents)
            read.append(ref.shard)
            offset = offset.moved({ref: Position.closed(str(step + 1))})
    assert len(read) == len(set(read))
    unread = set(tree) - set(read) - set(open_shards)
    assert all(
        any(parent not in read for parent in tree[s].parents)
        or s in {ref.shard for ref in readable(offset, {"s": tuple(tree.values())})}
        for s in unread
    )

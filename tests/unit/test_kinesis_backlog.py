"""What a batch takes from the buffers: within limits, in order, never part of an aggregated record."""

from hypothesis import given
from hypothesis import strategies as st

from streaming_job.kinesis.backlog import Backlog, runs, share, take_all
from streaming_job.kinesis.offsets import Position, ShardRef
from streaming_job.kinesis.rows import Rows


def rows_of(*counts: int, first: int = 1, size: int = 10) -> Rows:
    """Kinesis records with so many user records each."""
    sequences = [str(first + index) for index, count in enumerate(counts) for _ in range(count)]
    return Rows.of(
        sequences, [1000 + int(s) for s in sequences], ["k"] * len(sequences), [b"x" * size] * len(sequences)
    )


def backlog_of(*chunks: Rows) -> Backlog:
    backlog = Backlog(Position.trim_horizon())
    for rows in chunks:
        backlog.add(rows, Position.after(rows.sequences[-1], seen_ms=rows.arrivals_ms[-1]))
    return backlog


def taken(backlog: Backlog, end: Position) -> list[str]:
    return [s for segment in backlog.between(backlog.start, end) or [] for s in (segment.rows or Rows()).sequences]


record_counts = st.lists(st.integers(min_value=1, max_value=5), min_size=1, max_size=12)


@given(st.lists(record_counts, min_size=1, max_size=4), st.integers(1, 40), st.integers(1, 400))
def test_batches_are_within_both_limits_and_whole_records_and_together_everything_once_in_order(
    chunks: list[list[int]], rows_max: int, bytes_max: int
) -> None:
    first, built = 1, []
    for counts in chunks:
        built.append(rows_of(*counts, first=first))
        first += len(counts)
    backlog = backlog_of(*built)
    everything = [sequence for rows in built for sequence in rows.sequences]
    seen: list[str] = []
    ref = ShardRef("s", "a")
    while len(seen) < len(everything):
        end = take_all({ref: backlog}, rows_max, bytes_max)[ref]
        batch = taken(backlog, end)
        assert batch
        alone = len(set(batch)) == 1
        assert alone or (len(batch) <= rows_max and len(batch) * 10 <= bytes_max)
        following = everything[len(seen) + len(batch) :]
        assert not following or following[0] != batch[-1], "the batch ends inside an aggregated record"
        seen += batch
        assert backlog.forget_through(end)
    assert seen == everything


@given(st.dictionaries(st.integers(0, 9).map(lambda n: ShardRef("s", str(n))), st.integers(0, 50)), st.integers(0, 99))
def test_a_limit_is_shared_fairly_and_never_exceeded(wanted: dict[ShardRef, int], limit: int) -> None:
    shares = share(wanted, limit)
    assert sum(shares.values()) <= limit
    assert all(shares[ref] <= want for ref, want in wanted.items())
    if sum(wanted.values()) <= limit:
        assert shares == wanted
    short = [shares[ref] for ref, want in wanted.items() if shares[ref] < want]
    assert not short or min(short) + 1 >= max(shares.values()) - len(wanted)


def test_one_busy_shard_does_not_starve_the_others() -> None:
    busy, quiet = ShardRef("s", "a"), ShardRef("s", "b")
    backlogs = {busy: backlog_of(rows_of(*[1] * 100)), quiet: backlog_of(rows_of(*[1] * 5, first=500))}
    ends = take_all(backlogs, 20, 10**9)
    assert ends[quiet].sequence == "504"
    assert ends[busy].sequence == "15"


def test_a_batch_planned_once_can_be_found_again_until_it_is_let_go() -> None:
    backlog = backlog_of(rows_of(1, 1, 1), rows_of(1, 1, first=4))
    start, end = backlog.start, backlog.take(4, 10**9)
    assert taken(backlog, end) == ["1", "2", "3", "4"]
    assert taken(backlog, end) == ["1", "2", "3", "4"]
    assert backlog.between(start, Position.after("99")) is None
    assert backlog.forget_through(end)
    assert backlog.between(start, end) is None
    assert not backlog.forget_through(Position.after("99"))


def test_a_span_for_executors_is_taken_whole_and_apart_from_buffered_rows() -> None:
    backlog = backlog_of(rows_of(1, 1))
    backlog.add_span(50, 500, Position.after("60"))
    backlog.add_span(50, 500, Position.after("120"))
    end = backlog.take(60, 10**9)
    assert end == Position.after("60")
    segments = backlog.between(backlog.start, end) or []
    assert [[segment.count for segment in run] for run in runs(segments)] == [[2], [50]]


def test_a_span_that_was_estimated_above_the_limit_still_moves_its_shard() -> None:
    slow, other = ShardRef("s", "a"), ShardRef("s", "b")
    spans = Backlog(Position.after("1"))
    spans.add_span(500, 5000, Position.after("60"))
    ends = take_all({slow: spans, other: backlog_of(rows_of(*[1] * 50))}, 20, 10**9)
    assert ends[slow] == Position.after("60")
    assert not ends[other].same_place(Position.trim_horizon())


def test_a_shard_read_to_its_tip_says_when_it_was_seen_there() -> None:
    backlog = backlog_of(rows_of(1, 1))
    backlog.tip_ms = 777_777
    assert backlog.take(1, 10**9).seen_ms == 1001, "rows are left behind: seen only as far as its last row"
    assert backlog.take(10, 10**9).seen_ms == 777_777


def test_a_batch_that_begins_where_nothing_was_read_names_its_first_record() -> None:
    ref = ShardRef("s", "a")
    backlog = backlog_of(rows_of(1, 1, first=41))
    end = take_all({ref: backlog}, 1, 10**9)[ref]
    assert end.first == "41"
    backlog.forget_through(end)
    assert not take_all({ref: backlog}, 1, 10**9)[ref].first


def test_a_backlog_tells_from_when_on_anything_may_be_unread() -> None:
    """The oldest record that is not committed; at the tip, the time it was seen; of a span, when it begins."""
    backlog = Backlog(Position.after("1", seen_ms=500))
    assert backlog.read_until_ms == 500
    backlog.tip_ms = 900
    assert backlog.read_until_ms == 900
    backlog.add(rows_of(1, 1, first=2), Position.after("3", seen_ms=1_003))
    assert backlog.read_until_ms == 1_002
    backlog.shed()
    assert backlog.read_until_ms == 500
    assert Backlog(Position.trim_horizon()).read_until_ms == 0


def test_a_span_larger_than_the_limits_goes_alone_and_leaves_nothing_of_them_to_the_rows_behind_it() -> None:
    backlog = backlog_of(rows_of(1))
    backlog.forget_through(backlog.end)
    span_end = Position.after("50")
    backlog.add_span(49, 490, span_end)
    backlog.add(rows_of(3, first=51), Position.after("51"))
    assert backlog.take(10, 100).same_place(span_end)


def move_on(backlogs: dict[ShardRef, Backlog], ends: dict[ShardRef, Position]) -> list[ShardRef]:
    moved = [ref for ref, end in ends.items() if not end.same_place(backlogs[ref].start)]
    for ref in moved:
        assert backlogs[ref].forget_through(ends[ref])
    return moved


def rows_in(backlogs: dict[ShardRef, Backlog], ends: dict[ShardRef, Position]) -> int:
    return sum(len(taken(backlog, ends[ref])) for ref, backlog in backlogs.items())


def test_a_shard_whose_next_record_exceeds_its_share_moves_beside_others_within_the_limit() -> None:
    large, busy = ShardRef("s", "a"), ShardRef("s", "b")
    backlogs = {large: backlog_of(rows_of(30)), busy: backlog_of(rows_of(*[1] * 100, first=2))}
    ends = take_all(backlogs, 40, 10**9)
    assert rows_in(backlogs, ends) == 40
    assert move_on(backlogs, ends) == [large, busy]


def test_of_shards_whose_next_records_exceed_their_shares_the_oldest_goes_in_each_plan() -> None:
    """The third is always full, and each plan leaves the two one step more at most."""
    young, old, busy = (ShardRef("s", name) for name in "abc")
    backlogs = {
        young: backlog_of(rows_of(30, 30, first=500)),
        old: backlog_of(rows_of(30, 30, first=400)),
        busy: Backlog(Position.after("999")),
    }
    order: list[ShardRef] = []
    for turn in range(4):
        begin = 1000 + 100 * turn
        backlogs[busy] = Backlog(Position.after(str(begin - 1)))
        backlogs[busy].add(rows_of(*[1] * 100, first=begin), Position.after(str(begin + 99)))
        ends = take_all(backlogs, 40, 10**9)
        assert rows_in(backlogs, ends) <= 40
        moved = move_on(backlogs, ends)
        assert busy in moved
        order += [ref for ref in moved if ref != busy]
    assert order == [old, old, young, young]


@given(st.lists(record_counts, min_size=1, max_size=4), st.integers(1, 12), st.integers(10, 400))
def test_a_batch_of_several_shards_is_within_its_limits_but_for_a_single_record(
    shards: list[list[int]], rows_max: int, bytes_max: int
) -> None:
    backlogs = {ShardRef("s", str(n)): backlog_of(rows_of(*counts, first=1 + n)) for n, counts in enumerate(shards)}
    while any(backlog.segments for backlog in backlogs.values()):
        ends = take_all(backlogs, rows_max, bytes_max)
        records = {(ref, s) for ref, backlog in backlogs.items() for s in taken(backlog, ends[ref])}
        rows = rows_in(backlogs, ends)
        assert records
        assert len(records) == 1 or (rows <= rows_max and 10 * rows <= bytes_max)
        move_on(backlogs, ends)


def test_of_more_shards_than_a_batch_has_rows_the_least_filled_moves_too() -> None:
    """The even part of what it asks for is no row at all."""
    little, *busy = (ShardRef("s", str(index)) for index in range(5))
    backlogs = {little: backlog_of(rows_of(1, 1))} | {ref: backlog_of(rows_of(*[1] * 100)) for ref in busy}
    assert little in move_on(backlogs, take_all(backlogs, 3, 10**9))

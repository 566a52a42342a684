"""The probe's judgement: order, duplicates and gaps, and nothing called a gap too early."""

import hashlib
import json
from pathlib import Path

import pytest

from infra.local import kcl
from infra.local.jars import JarsError, locked
from streaming_job.latency.probe.balance import CLOCKS_S, QUIET_S, Balance
from streaming_job.latency.probe.judge import TIP_LOOKS, Judge
from streaming_job.latency.probe.observation import Observation, observe

SHARD = "shardId-0"
NOW_S = 1_790_000_000


def envelope(**changed: object) -> bytes:
    fields = {"table": "t", "op": "MODIFY", "gen": "1" * 17, "seq": "5".zfill(40), "key": {"id": "a"}}
    return json.dumps({**fields, "bridge_out_ms": NOW_S * 1000, **changed}).encode()


def seen(sequence: int, seq: int = 1, key: str = "k") -> Observation:
    return Observation(str(sequence), NOW_S * 1000, "t", key, f"{'1' * 17}-{seq:040d}", NOW_S * 1000, is_change=True)


# --- what is kept of a record -----------------------------------------------------------------------------------------


def test_of_an_envelope_only_its_place_and_times_are_kept_and_the_key_as_a_hash() -> None:
    kept = observe("7", 1_234, envelope(key={"id": "secret"}, new={"name": "secret"}))
    assert (kept.table, kept.seq, kept.sent_ms, kept.is_change) == ("t", f"{'1' * 17}-{5:040d}", NOW_S * 1000, True)
    assert "secret" not in json.dumps(kept.packed())
    assert Observation.unpacked(json.loads(json.dumps(kept.packed()))) == kept


def test_keys_are_the_same_however_they_are_written_and_differ_between_tables() -> None:
    one, other = (observe("1", 1, envelope(key=key)) for key in ({"a": 1, "b": 2}, {"b": 2, "a": 1}))
    assert one.key == other.key
    assert observe("1", 1, envelope(key={"a": 1, "b": 2}, table="u")).key != one.key


@pytest.mark.parametrize(
    "data", [b"", b"\xff", b"[]", b"null", b"{}", envelope(seq="5"), envelope(bridge_out_ms="x"), envelope(table=1)]
)
def test_what_is_no_envelope_is_a_record_all_the_same(data: bytes) -> None:
    assert observe("7", 1_234, data) == Observation("7", 1_234)


def test_a_snapshots_row_is_no_change_that_a_bridge_sent() -> None:
    assert not observe("1", 1, envelope(op="SNAPSHOT")).is_change


# --- order and duplicates ---------------------------------------------------------------------------------------------


def test_a_change_that_comes_again_is_a_duplicate_and_one_behind_a_newer_is_counted_apart() -> None:
    judge = Judge()
    judge.took(SHARD, [seen(1, 5), seen(2, 6), seen(3, 6), seen(4, 5), seen(5, 5, key="other")], 0, 1)
    counts = judge.counts
    assert (counts.records, counts.duplicates, counts.older_after_newer) == (5, 1, 1)


def test_order_is_held_across_a_split_since_a_key_goes_on_in_a_child() -> None:
    judge = Judge()
    judge.took("parent", [seen(1, 6)], 0, 1)
    judge.ended("parent")
    judge.began("child", None)
    judge.took("child", [seen(10, 5), seen(11, 7)], 0, 2)
    assert judge.counts.older_after_newer == 1


def test_what_the_library_hands_over_again_after_a_kill_is_not_counted_twice() -> None:
    judge = Judge()
    judge.began(SHARD, None)
    assert len(judge.took(SHARD, [seen(1), seen(2, 2)], 0, 1)) == 2
    judge.ended(SHARD)
    judge.began(SHARD, "1")
    assert [new.sequence for new in judge.took(SHARD, [seen(2, 2), seen(3, 3)], 0, 2)] == ["3"]
    assert (judge.counts.records, judge.counts.redelivered, judge.counts.duplicates) == (3, 1, 0)
    assert judge.counts.breaks == 0


def test_a_shard_taken_up_behind_what_another_process_read_breaks_the_count() -> None:
    judge = Judge()
    judge.took(SHARD, [seen(1)], 0, 1)
    judge.began(SHARD, "7")
    judge.began("never-seen", "3")
    assert judge.counts.breaks == 2


def test_records_that_are_no_envelopes_are_counted_and_judged_no_further() -> None:
    judge = Judge()
    judge.took(SHARD, [Observation("1", 5), Observation("2", 5)], 0, 1)
    assert (judge.counts.records, judge.counts.foreign, judge.counts.duplicates) == (2, 2, 0)


def test_memory_is_bounded_by_the_keys_heard_of_last() -> None:
    judge = Judge(keys_max=2)
    judge.took(SHARD, [seen(1, 9, "a"), seen(2, 9, "b"), seen(3, 9, "c"), seen(4, 1, "a"), seen(5, 1, "c")], 0, 1)
    assert judge.counts.older_after_newer == 1, "of `a` nothing is known any more"


def test_the_tip_is_reached_only_when_no_answer_can_be_from_before() -> None:
    """In each shard that takes records; one that nobody holds keeps all from being known."""
    judge = Judge()
    for look in range(TIP_LOOKS - 1):
        judge.took(SHARD, [], 0, 100 + look)
    assert judge.read_until_ms([SHARD]) is None
    judge.took(SHARD, [], 0, 200)
    assert judge.read_until_ms([SHARD]) == 100
    assert judge.read_until_ms([SHARD, "shardId-1"]) is None
    assert judge.read_until_ms([]) is None
    judge.took(SHARD, [], 1_000, 300)
    assert judge.read_until_ms([SHARD]) is None


# --- against the bridge's count ---------------------------------------------------------------------------------------


def test_as_many_seen_as_sent_is_no_gap_and_what_is_under_way_is_none_either() -> None:
    balance = Balance()
    balance.said(0, NOW_S)
    for number in range(50):
        balance.saw((NOW_S + number) * 1000)
        balance.said(max(0, number - 3), NOW_S + number + 1)
        balance.settle(NOW_S + number + 1)
    assert balance.gaps == 0
    assert balance.settled_s == NOW_S + 50


def test_records_that_never_came_are_gaps_counted_once_however_often_it_is_looked() -> None:
    balance = Balance()
    balance.said(0, NOW_S)
    for _ in range(9):
        balance.saw((NOW_S + 1) * 1000)
    for second in range(2, 2 * QUIET_S):
        balance.said(12, NOW_S + second)
        balance.settle(NOW_S + second)
        assert balance.gaps == 3


def test_an_invocation_that_counts_only_at_its_end_makes_no_gap() -> None:
    """Its records are seen long before the bridge says that they were sent."""
    balance = Balance()
    balance.said(0, NOW_S)
    for _ in range(9):
        balance.saw((NOW_S + 1) * 1000)
    for second in range(2, QUIET_S):
        balance.said(9 if second > QUIET_S - 10 else 0, NOW_S + second)
        balance.settle(NOW_S + second)
    assert balance.gaps == 0


def test_nothing_is_judged_before_the_stream_was_read_to_where_the_bridge_counted() -> None:
    balance = Balance()
    balance.said(0, NOW_S)
    balance.said(5, NOW_S + 10)
    balance.settle(NOW_S + 9)
    assert balance.gaps == 0
    balance.settle(NOW_S + 10)
    assert balance.gaps == 5


def test_a_probe_that_comes_later_learns_from_a_quiet_moment_how_the_counts_are_set_off() -> None:
    balance = Balance()
    balance.saw(NOW_S * 1000)
    for second in range(QUIET_S + 2 * CLOCKS_S + 2):
        balance.said(1_000, NOW_S + second)
        balance.settle(NOW_S + second)
        assert (balance.settled_s == 0) == (second <= QUIET_S + CLOCKS_S)
    later_s = NOW_S + 2 * QUIET_S
    balance.said(1_002, later_s)
    balance.saw(later_s * 1000)
    balance.settle(later_s)
    assert balance.gaps == 1


def test_after_a_break_nothing_is_claimed_until_the_next_quiet_moment() -> None:
    balance = Balance()
    balance.said(0, NOW_S)
    balance.settle(NOW_S)
    assert balance.settled_s
    balance.broken()
    balance.said(100, NOW_S + 1)
    balance.settle(NOW_S + 1)
    assert (balance.gaps, balance.settled_s) == (0, 0)


# --- the library ------------------------------------------------------------------------------------------------------

CONTENT = {"amazon_kclpy/kcl.py": b"one", "amazon_kclpy/jars/a.jar": b"two"}


@pytest.fixture
def lock(tmp_path: Path) -> Path:
    file = tmp_path / "kcl.sha256"
    file.write_text("".join(f"{hashlib.sha256(body).hexdigest()}  {name}\n" for name, body in CONTENT.items()))
    return file


def write(folder: Path, content: dict[str, bytes]) -> None:
    for name, body in content.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(body)


def test_the_library_is_installed_once_and_again_when_a_file_is_not_what_the_lock_says(
    tmp_path: Path, lock: Path
) -> None:
    folder = tmp_path / "kcl"
    with pytest.raises(JarsError, match="setup-probe"):
        kcl.check(folder, lock)
    assert kcl.ensure(folder, lock, get=lambda scratch: write(scratch, CONTENT))
    kcl.check(folder, lock)
    assert not kcl.ensure(folder, lock, get=lambda _: pytest.fail("nothing was to be installed"))
    (folder / "amazon_kclpy/jars/a.jar").write_bytes(b"half")
    with pytest.raises(JarsError, match=r"a\.jar"):
        kcl.check(folder, lock)
    assert kcl.ensure(folder, lock, get=lambda scratch: write(scratch, CONTENT))
    kcl.check(folder, lock)


@pytest.mark.parametrize("name", CONTENT)
def test_a_jar_that_is_missing_or_forged_is_refused_and_nothing_is_left(tmp_path: Path, lock: Path, name: str) -> None:
    folder = tmp_path / "kcl"
    for wrong in ({name: b"forged"}, {}):
        rest = {other: body for other, body in CONTENT.items() if other != name}
        with pytest.raises(JarsError, match="lock"):
            kcl.ensure(folder, lock, get=lambda scratch, wrong=wrong, rest=rest: write(scratch, {**rest, **wrong}))
        assert not folder.exists()


def test_the_shipped_lock_names_every_jar_of_the_library() -> None:
    names = locked(kcl.LOCK)
    assert sum(name.endswith(".jar") for name in names) == 79
    assert "amazon_kclpy/kcl.py" in names

"""Which of a batch's changes count."""

from dataclasses import replace

from envelopes import Change, collected, put, remove
from hypothesis import given
from hypothesis import strategies as st

from streaming_job.pipeline import dedupe

CHANGES = st.lists(st.builds(put, st.sampled_from("abc"), st.integers(1, 5)), max_size=20)


def test_each_change_counts_once_and_the_first_that_arrived_stays() -> None:
    changes = collected([put("a", 1), put("b", 1), put("a", 1), remove("a", 2), put("b", 1)])
    unique = dedupe.once(changes)
    assert unique["kinesis_seq"].to_pylist() == [f"{n:056d}" for n in (1, 2, 4)]


def test_the_same_key_and_number_in_two_tables_are_two_changes() -> None:
    assert dedupe.once(collected([put("a", 1), replace(put("a", 1), table="others")])).num_rows == 2


@given(CHANGES)
def test_newest_is_the_highest_version_of_each_key_in_whatever_order_it_came(changes: list[Change]) -> None:
    expected: dict[str, str] = {}
    for change in changes:
        expected[change.key_text] = max(expected.get(change.key_text, ""), change.seq)
    newest = dedupe.newest(dedupe.once(collected(changes)))
    assert dict(zip(newest["key"].to_pylist(), newest["change_seq"].to_pylist(), strict=True)) == expected

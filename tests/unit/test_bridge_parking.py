"""What an invocation cannot send as it is: poison goes to the dead letters, what is too large by claim check."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from bridge_lambda.errors import ParkError
from config.limits import KINESIS_RECORD_BYTES_MAX
from tests.support.bridge_rig import ARN, SECRET, Rig, change, fresh_rig, oversized, poison


@pytest.fixture
def rig() -> Iterator[Rig]:
    with fresh_rig() as made:
        yield made


# --- poison -----------------------------------------------------------------------------------------------------------


def test_poison_goes_to_the_dead_letters_whole_and_with_its_reason_and_the_shard_goes_on(rig: Rig) -> None:
    assert rig.invoke([change(1), poison(2), change(3)]) == []
    assert rig.sent() == [1, 3]
    (letter,) = rig.bucket.letters()
    assert letter["record"] == poison(2)
    assert letter["reason"] == "bad-image"
    assert (letter["table"], letter["gen"]) == ("things", "20260301123045678")
    assert letter["hint"]
    (parked,) = rig.bucket.objects.values()
    assert parked.secret
    assert parked.name.startswith(f"dead-letters/things/date=2026-09-21/{2:0>40}-")


def test_poison_that_comes_again_makes_no_second_dead_letter(rig: Rig) -> None:
    rig.invoke([poison(2)])
    rig.clock.pass_ms(1000)
    rig.invoke([poison(2)])
    assert len(rig.bucket.objects) == 1


@pytest.mark.parametrize(
    "record",
    [
        "text",
        None,
        7,
        [],
        {},
        {"eventSource": "aws:dynamodb"},
        {"eventSource": "aws:dynamodb", "eventSourceARN": ARN, "dynamodb": {"ApproximateCreationDateTime": 1e300}},
    ],
    ids=str,
)
def test_any_json_at_all_is_parked_whole(rig: Rig, record: Any) -> None:
    """Among the records of a stream; an event of strangers is refused before."""
    record = {**record, "eventSource": "aws:dynamodb"} if isinstance(record, dict) else record
    assert rig.invoke([change(1), record, change(3)]) == []
    assert rig.sent() == [1, 3]
    assert [letter["record"] for letter in rig.bucket.letters()] == [record]


def test_a_record_with_broken_text_is_parked_and_reads_back_as_it_was(rig: Rig) -> None:
    record = change(1, text={"S": "half \ud800"})
    assert rig.invoke([record]) == []
    assert [letter["record"] for letter in rig.bucket.letters()] == [record]


def test_records_of_an_unknown_table_are_parked(rig: Rig) -> None:
    record = {**change(1), "eventSourceARN": ARN.replace("things", "strangers")}
    assert rig.invoke([record, change(2)]) == []
    assert [letter["reason"] for letter in rig.bucket.letters()] == ["unknown-table"]
    assert next(iter(rig.bucket.objects)).startswith("dead-letters/strangers/")


def test_a_record_kinesis_will_never_take_is_parked_and_the_others_go(rig: Rig) -> None:
    bad = change(5)
    rig.kinesis.poison = frozenset({json.dumps({"id": f"{SECRET}-2"}, separators=(",", ":"))})
    assert rig.invoke([change(3), change(4), bad, change(6)]) == []
    assert sorted(rig.sent()) == [3, 4, 6]
    (letter,) = rig.bucket.letters()
    assert (letter["reason"], letter["record"]) == ("refused-by-kinesis", bad)


def test_poison_that_cannot_be_parked_is_reported_and_nothing_after_it_counts_as_done(rig: Rig) -> None:
    rig.bucket.refuses = True
    assert rig.invoke([change(1), poison(2), change(3), poison(4)]) == ["2"]
    assert rig.sent() == [1]


def test_poison_without_a_name_that_cannot_be_parked_fails_the_whole_batch(rig: Rig) -> None:
    """There is no sequence number to report."""
    rig.bucket.refuses = True
    with pytest.raises(ParkError):
        rig.invoke([change(1), "text"])


# --- claim checks -----------------------------------------------------------------------------------------------------


def test_an_oversized_change_goes_by_claim_check_and_the_object_is_there_first(rig: Rig) -> None:
    assert rig.invoke([oversized(1), change(2)]) == []
    assert rig.sent() == [1, 2]
    ref = json.loads(rig.kinesis.acknowledged()[0].data)["ref"]
    assert ref["bucket"] == "bucket"
    claim = rig.bucket.objects[ref["key"]]
    assert not claim.secret
    assert json.loads(claim.body)["new"]["big"] == "x" * KINESIS_RECORD_BYTES_MAX


def test_a_claim_check_that_cannot_be_written_is_reported_and_never_sent(rig: Rig) -> None:
    rig.bucket.refuses = True
    assert rig.invoke([change(1), oversized(2), change(3)]) == ["2"]
    assert rig.sent() == [1]

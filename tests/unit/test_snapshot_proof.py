"""What must be proven before a first load begins, and how long it is said to take."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
from botocore.exceptions import ClientError
from first_load import ARN, GENERATION, TABLE

from config.errors import ConfigurationError
from config.tables import KeyAttribute, LakeRules, TableConfig
from streaming_job.operations.doctor_findings import Finding, ok, problem, warning
from streaming_job.operations.lake_past import HistoryPast
from streaming_job.operations.snapshot_proof import (
    NotProvenError,
    Proof,
    Source,
    TooSlowError,
    describe,
    estimate_export,
    estimate_scan,
)

CONFIG = TableConfig(table=TABLE, version=1, key=(KeyAttribute(name="id"),), lake=LakeRules(name=TABLE))

# --- proof ------------------------------------------------------------------------------------------------------------


class Streams:
    """DynamoDB Streams with so many records in each of two shards."""

    def __init__(self, *records: int) -> None:
        self.records = records

    def describe_stream(self, *, StreamArn: str, **more: str) -> dict[str, Any]:  # noqa: N803 - AWS's names
        first, *rest = range(len(self.records))
        if more:
            return {"StreamDescription": {"Shards": [{"ShardId": str(number)} for number in rest]}}
        return {"StreamDescription": {"Shards": [{"ShardId": str(first)}], "LastEvaluatedShardId": str(first)}}

    def get_shard_iterator(self, *, ShardId: str, **_: str) -> dict[str, Any]:  # noqa: N803
        return {"ShardIterator": ShardId}

    def get_records(self, *, ShardIterator: str, **_: Any) -> dict[str, Any]:  # noqa: N803
        return {"Records": [{}] * self.records[int(ShardIterator)], "NextShardIterator": ShardIterator}


class History:
    """Answers what `history` would, of changes (generation, created)."""

    def __init__(self, *changes: tuple[str, int]) -> None:
        self.changes = list(changes)

    def has_change(self, generation: str, *, until_ms: int | None = None) -> bool:
        return any(gen == generation and (until_ms is None or ms <= until_ms) for gen, ms in self.changes)

    def has_newer_than(self, generation: str) -> bool:
        return any(gen > generation for gen, _ in self.changes)


SOURCE = Source(TABLE, GENERATION, ARN, 1_000, 1_000_000)
ENABLED = [ok("mapping of things", "is Enabled")]


def proof_of(
    past: History, streams: Streams, mapping: Sequence[Finding] = ENABLED, happens: Callable[[], None] = lambda: None
) -> Proof:
    now = 0.0

    def sleep(seconds: float) -> None:
        nonlocal now
        now += seconds
        if now > 20:
            happens()

    return Proof(SOURCE, past, streams, lambda: mapping, 60, lambda _: None, clock=lambda: now, sleep=sleep)


def test_a_change_of_this_stream_in_the_lake_proves_that_the_stream_is_read() -> None:
    assert "has reached the lake" in proof_of(History((GENERATION, 1)), Streams(5, 5)).of_now()


def test_a_change_that_comes_while_it_waits_proves_it_too() -> None:
    past = History(("20250101000000000", 1))
    proof = proof_of(past, Streams(1, 0), happens=lambda: past.changes.append((GENERATION, 2)))
    assert "has reached the lake" in proof.of_now()


def test_an_empty_stream_read_from_its_beginning_proves_it_and_any_record_or_doubt_does_not() -> None:
    assert "empty" in proof_of(History(), Streams(0, 0)).of_now()
    latest = [warning("mapping of things", "started at LATEST", "make it anew")]
    disabled = [problem("mapping of things", "is Disabled", "enable it")]
    for proof in (
        proof_of(History(), Streams(0, 1)),
        proof_of(History(), Streams(0, 0), latest),
        proof_of(History(), Streams(0, 0), disabled),
    ):
        with pytest.raises(NotProvenError, match="no change of the stream as it is now has reached the lake"):
            proof.of_now()


def test_what_is_wrong_with_the_mapping_stands_in_the_refusal() -> None:
    with pytest.raises(NotProvenError, match="mapping of things is Disabled"):
        proof_of(History(), Streams(1), [problem("mapping of things", "is Disabled", "enable it")]).of_now()


def test_an_export_needs_a_change_from_before_its_moment() -> None:
    assert "before the export" in proof_of(History((GENERATION, 999)), Streams(1)).of_export(1_000)
    with pytest.raises(NotProvenError, match="no change from before the export"):
        proof_of(History((GENERATION, 1_001)), Streams(0)).of_export(1_000)


def test_a_lake_that_knows_a_newer_stream_of_the_table_takes_no_snapshot_of_this_one() -> None:
    with pytest.raises(NotProvenError, match="newer stream"):
        proof_of(History(("20270101000000000", 1), (GENERATION, 1)), Streams(0)).of_now()


def test_history_is_asked_for_this_generation_alone_and_never_for_scanned_rows() -> None:
    asked: list[str] = []
    past = HistoryPast(lambda condition: bool(asked.append(condition)))
    past.has_change(GENERATION, until_ms=5)
    past.has_newer_than(GENERATION)
    assert asked == [
        f"_op <> 'SNAPSHOT' AND _seq > '{GENERATION}-' AND _seq < '{GENERATION}.' AND _created_ms <= 5",
        f"_op <> 'SNAPSHOT' AND _seq > '{GENERATION}.'",
    ]


def test_a_table_without_a_stream_or_that_is_not_there_is_refused_with_the_way_out() -> None:
    class Dynamo:
        def __init__(self, table: dict[str, Any] | None) -> None:
            self.table = table

        def describe_table(self, *, TableName: str) -> dict[str, Any]:  # noqa: N803 - AWS's name
            if self.table is None:
                raise ClientError({"Error": {"Code": "ResourceNotFoundException", "Message": ""}}, "DescribeTable")
            return {"Table": self.table}

    with pytest.raises(ConfigurationError, match="lakestream pull"):
        describe(Dynamo({}), CONFIG)
    with pytest.raises(ConfigurationError, match="there is no table things"):
        describe(Dynamo(None), CONFIG)
    found = describe(Dynamo({"StreamSpecification": {"StreamEnabled": True}, "LatestStreamArn": ARN}), CONFIG)
    assert found.generation == GENERATION


# --- how long ---------------------------------------------------------------------------------------------------------


def test_the_estimate_follows_capacity_pages_and_segments_and_is_held_against_the_retention() -> None:
    """10 GiB by 500 units a second: 2,621,440 units, an hour and a half."""
    source = replace(SOURCE, items=1_000_000, bytes=10 * 1024**3)
    by_units = estimate_scan(source, segments=4, units_per_s=500, page_s=0.02, retention_h=24)
    assert round(by_units.reading_s) == 5_243
    assert "reading takes about 87 min" in str(by_units)
    assert "keeps changes for 24 h" in str(by_units)
    assert round(estimate_scan(source, segments=4, units_per_s=None, page_s=0.2, retention_h=24).reading_s) == 512
    by_units.check()
    with pytest.raises(TooSlowError, match="would be lost"):
        estimate_scan(source, segments=4, units_per_s=10, page_s=0.02, retention_h=24).check()
    with pytest.raises(TooSlowError):
        estimate_export(100_000_000, 24).check()

"""A load's plan is decided by its seed alone, and its writes keep the order of each key."""

import random
import threading
import time
from collections import defaultdict
from collections.abc import Mapping
from typing import Any

import pytest
from boto3.dynamodb.types import TypeDeserializer
from botocore.exceptions import EndpointConnectionError
from hypothesis import given
from hypothesis import strategies as st

from config.errors import ConfigurationError
from infra.local.load import Load, LoadPlan
from infra.local.plan import Mix, operations
from infra.local.telemetry import CATALOGUE, telemetry_item, to_dynamodb

NOW_MS = 1_790_000_000_000
mixes = st.builds(Mix, st.integers(1, 100), st.integers(0, 100), st.integers(0, 100))


@given(st.integers(), mixes)
def test_the_same_seed_and_run_plan_the_same_operations(seed: int, mix: Mix) -> None:
    assert list(operations(seed, "r", mix, 50)) == list(operations(seed, "r", mix, 50))


@given(st.integers(), mixes)
def test_updates_and_deletes_go_to_keys_that_live(seed: int, mix: Mix) -> None:
    live = set()
    for operation in operations(seed, "r", mix, 200):
        if operation.op == "insert":
            assert operation.event_id not in live
            live.add(operation.event_id)
        else:
            assert operation.event_id in live
            if operation.op == "delete":
                live.remove(operation.event_id)


def test_two_runs_share_no_key() -> None:
    first, second = ({operation.event_id for operation in operations(1, run, Mix(), 500)} for run in ("a", "b"))
    assert not first & second


def test_the_mix_is_kept() -> None:
    counts: dict[str, int] = defaultdict(int)
    for operation in operations(7, "r", Mix(60, 30, 10), 5_000):
        counts[operation.op] += 1
    assert counts["insert"] == pytest.approx(3_000, rel=0.05)
    assert counts["update"] == pytest.approx(1_500, rel=0.1)
    assert counts["delete"] == pytest.approx(500, rel=0.2)


@pytest.mark.parametrize("text", ["", "80", "80,15", "a,b,c", "0,50,50", "-1,1,1", "80,15,5,1"])
def test_a_mix_that_cannot_be_is_refused(text: str) -> None:
    with pytest.raises(ConfigurationError, match="--mix"):
        Mix.parse(text)


def test_a_mix_is_three_whole_numbers() -> None:
    assert Mix.parse("70, 20,10") == Mix(70, 20, 10)


class RecordingTable:
    """Notes every write and fails the test's promise when two of one key are under way at once."""

    def __init__(self, *, takes_s: float = 0.0) -> None:
        self.writes: list[tuple[str, str, Any]] = []
        self.overlaps = 0
        self._takes_s = takes_s
        self._under_way: set[str] = set()
        self._lock = threading.Lock()

    def put_item(self, *, TableName: str, Item: Mapping[str, Any]) -> None:  # noqa: N803 - boto3's names
        self._write("put", Item["event_id"]["S"], Item)

    def delete_item(self, *, TableName: str, Key: Mapping[str, Any]) -> None:  # noqa: N803 - boto3's names
        self._write("delete", Key["event_id"]["S"], None)

    def _write(self, op: str, key: str, item: Any) -> None:
        with self._lock:
            self.overlaps += key in self._under_way
            self._under_way.add(key)
        time.sleep(self._takes_s)
        with self._lock:
            self._under_way.discard(key)
            self.writes.append((op, key, item))


class BrokenTable(RecordingTable):
    """Every `every`th write fails."""

    def __init__(self, every: int) -> None:
        super().__init__()
        self._every, self._count = every, 0

    def _write(self, op: str, key: str, item: Any) -> None:
        with self._lock:
            self._count += 1
            broken = self._count % self._every == 0
        if broken:
            raise EndpointConnectionError(endpoint_url="http://127.0.0.1:1")
        super()._write(op, key, item)


def plan(count: int, *, rate: float = 5_000, mix: Mix | None = None) -> LoadPlan:
    return LoadPlan(table="t", rate=rate, seconds=count / rate, seed=3, run="r", mix=mix or Mix(20, 60, 20))


def test_the_writes_of_one_key_never_overlap_and_keep_their_order() -> None:
    table = RecordingTable(takes_s=0.001)
    Load(plan(400), table).run()
    assert table.overlaps == 0
    wanted: dict[str, list[str]] = defaultdict(list)
    for operation in operations(3, "r", Mix(20, 60, 20), 400):
        wanted[operation.event_id].append("delete" if operation.op == "delete" else "put")
    found: dict[str, list[str]] = defaultdict(list)
    for op, key, _ in table.writes:
        found[key].append(op)
    assert found == wanted


def test_the_summary_counts_what_was_acknowledged() -> None:
    table = RecordingTable()
    summary = Load(plan(300), table).run()
    last = {key: op for op, key, _ in table.writes}
    assert summary.sent_total == summary.planned == 300
    assert summary.live_expected == sum(op == "put" for op in last.values())
    assert summary.keys == len(last)
    assert summary.errors == summary.unsure == 0


def test_a_failed_write_is_counted_and_its_key_is_unsure() -> None:
    summary = Load(plan(100, mix=Mix(1, 0, 0)), BrokenTable(every=10)).run()
    assert (summary.errors, summary.unsure, summary.sent_total) == (10, 10, 90)
    assert summary.error_last is not None
    assert "127.0.0.1:1" in summary.error_last


def test_a_slow_table_makes_late_writes_and_they_are_counted() -> None:
    """80 ms a write and 8 workers take 100/s; asked for 400/s."""
    summary = Load(plan(120, rate=400, mix=Mix(1, 0, 0)), RecordingTable(takes_s=0.08)).run()
    assert summary.sent_total == 120
    assert summary.late > 0
    assert summary.rate_achieved < 400


def test_a_stopped_load_begins_nothing_more_and_says_so() -> None:
    table = RecordingTable()
    load = Load(plan(100_000, rate=1_000), table)
    threading.Timer(0.2, load.stop).start()
    summary = load.run()
    assert summary.interrupted
    assert summary.sent_total == len(table.writes) < summary.planned


def test_an_item_carries_the_time_of_its_write() -> None:
    table = RecordingTable()
    Load(plan(20, mix=Mix(1, 0, 0)), table, clock_ms=lambda: NOW_MS).run()
    assert {item["meta"]["M"]["deliveredAt"]["N"] for _, _, item in table.writes} == {str(NOW_MS)}


@given(st.integers())
def test_an_item_is_decided_by_its_generator_and_its_time(seed: int) -> None:
    first, second = (telemetry_item(random.Random(seed), NOW_MS) for _ in range(2))
    assert first == second
    assert first["meta"]["deliveredAt"] == NOW_MS
    assert 20 <= len(first["signals"]) == first["meta"]["signalCount"] <= 26


def test_the_catalogue_has_more_than_thirty_signals_with_names_of_their_own() -> None:
    names = {(group, name) for group, name, _ in CATALOGUE}
    assert len(names) == len(CATALOGUE) > 30


@given(st.integers())
def test_both_forms_of_an_item_say_the_same(seed: int) -> None:
    item = telemetry_item(random.Random(seed), NOW_MS)
    assert {name: TypeDeserializer().deserialize(value) for name, value in to_dynamodb(item).items()} == item


def test_a_type_that_telemetry_does_not_have_is_refused() -> None:
    with pytest.raises(TypeError, match="float"):
        to_dynamodb({"a": 1.5})

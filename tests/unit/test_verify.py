"""`verify` against a source and a lake held in memory, with a clock that only moves when verify waits."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bridge_lambda.images import digest
from bridge_lambda.rules import Filter, TableRules
from config.tables import KeyAttribute, LakeRules, TableConfig
from streaming_job.operations.verify import LakeRow, Options, Report, Verification

START_S = 1_760_000_000.0
CONFIG = TableConfig(table="cars", version=1, key=(KeyAttribute(name="id"),), lake=LakeRules(name="cars"))
RULES = TableRules("cars", "1", ("id",), {}, None, keep_old_image=True, filter=None, origin=None)


def item(key: str, value: int) -> dict[str, Any]:
    return {"id": {"S": key}, "value": {"N": str(value)}}


class World:
    """A source, a lake, and what happens to them while verify waits."""

    def __init__(self, source: Sequence[dict[str, Any]], lake: Sequence[dict[str, Any]]) -> None:
        self.now_s = START_S
        self.source = {entry["id"]["S"]: entry for entry in source}
        self.lake = {entry["id"]["S"]: LakeRow(digest(entry), intact=True) for entry in lake}
        self.newest_ms = 0
        self.happens: list[Callable[[World], None]] = []

    def clock(self) -> float:
        return self.now_s

    def sleep(self, seconds: float) -> None:
        self.now_s += seconds
        if self.happens:
            self.happens.pop(0)(self)

    def scan(self, **_: Any) -> Any:
        return {"Items": list(self.source.values())}

    def batch_get_item(self, **request: Any) -> Any:
        keys = [key["id"]["S"] for key in request["RequestItems"]["cars"]["Keys"]]
        return {"Responses": {"cars": [self.source[key] for key in keys if key in self.source]}}

    def write_all(self, folder: Path) -> None:
        folder.mkdir()
        rows = [{"key": self._key(key), "digest": row.digest, "intact": row.intact} for key, row in self.lake.items()]
        schema = pa.schema([("key", pa.string()), ("digest", pa.string()), ("intact", pa.bool_())])
        pq.write_table(pa.Table.from_pylist(rows, schema=schema), folder / "rows.parquet")

    def of(self, keys: Sequence[str]) -> dict[str, LakeRow]:
        return {self._key(key): row for key, row in self.lake.items() if self._key(key) in keys}

    def newest_created_ms(self) -> int:
        return self.newest_ms

    def _key(self, key: str) -> str:
        return f'{{"id":"{key}"}}'


def verify(world: World, rules: TableRules = RULES) -> Report:
    options = Options(segments=1, settle_s=10)
    return Verification(world, CONFIG, rules, world, options, clock=world.clock, sleep=world.sleep).run()


def test_equal_sides_are_equal_without_a_second_look() -> None:
    report = verify(World([item("a", 1), item("b", 2)], [item("a", 1), item("b", 2)]))
    assert report.equal
    assert (report.source_items, report.lake_rows) == (2, 2)


def test_a_change_in_flight_is_not_called_a_difference() -> None:
    world = World([item("a", 2)], [item("a", 1)])
    world.happens = [lambda w: w.lake.update(a=LakeRow(digest(item("a", 2)), intact=True))]
    assert verify(world).equal


@pytest.mark.parametrize(
    ("source", "lake", "finding"),
    [
        ([item("a", 1)], [], "missing"),
        ([], [item("a", 1)], "extra"),
        ([item("a", 2)], [item("a", 1)], "stale"),
    ],
)
def test_a_difference_counts_once_a_later_change_was_committed_and_is_unproven_before(
    source: list[dict[str, Any]], lake: list[dict[str, Any]], finding: str
) -> None:
    quiet = verify(World(source, lake))
    assert (quiet.unproven, quiet.differences) == (1, 0)

    world = World(source, lake)
    world.happens = [lambda w: setattr(w, "newest_ms", int(w.now_s * 1000) + 5_000)]
    report = verify(world)
    assert (getattr(report, finding), report.differences, report.unproven) == (1, 1, 0)
    assert list(report.examples[finding]) == ['{"id":"a"}']


def test_a_row_altered_by_hand_is_different_though_its_digest_agrees() -> None:
    world = World([item("a", 1)], [item("a", 1)])
    world.lake["a"] = LakeRow(digest(item("a", 1)), intact=False)
    report = verify(world)
    assert (report.different, report.equal) == (1, False)


def test_items_outside_the_tables_filter_are_counted_apart_and_expected_to_be_absent() -> None:
    only_ones = Filter(("value",), frozenset({("N", "1")}))
    rules = TableRules("cars", "1", ("id",), {}, None, keep_old_image=True, filter=only_ones, origin=None)
    report = verify(World([item("a", 1), item("b", 2)], [item("a", 1)]), rules)
    assert report.equal
    assert (report.excluded, report.source_items) == (1, 1)


def test_a_row_whose_masked_key_does_not_lead_back_to_the_source_is_unproven() -> None:
    rules = TableRules("cars", "1", ("id",), {"id": "hash"}, None, keep_old_image=True, filter=None, origin=None)
    world = World([], [item("a", 1)])
    world.newest_ms = int(START_S * 1000) + 60_000
    report = verify(world, rules)
    assert (report.unproven, report.differences) == (1, 0)

"""What pulling cannot see, found and mended: the source in memory, the lake as the rows that were handed over."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from index_memory import NOW_MS, IndexInMemory

from bridge_lambda.rules import HashKey, table_rules
from config.rules import compile_table
from config.tables import TableConfig
from streaming_job.operations.pull import Pull
from streaming_job.operations.pull_cursors import Cursors
from streaming_job.operations.pull_index import Index
from streaming_job.operations.pull_reconcile import Reconcile
from streaming_job.operations.pull_versions import Versions
from streaming_job.operations.source_scan import CapacityBudget
from streaming_job.operations.source_side import SourceSide


class Lake:
    """The newest of each key, by the number it goes under."""

    def __init__(self) -> None:
        self.rows: dict[str, Any] = {}

    def take(self, lines: Sequence[bytes]) -> None:
        for line in lines:
            envelope = json.loads(line)
            key = json.dumps(envelope["key"], separators=(",", ":"))
            if key not in self.rows or envelope["seq"] > self.rows[key]["seq"]:
                self.rows[key] = envelope

    @property
    def live(self) -> dict[str, Any]:
        return {key: row for key, row in self.rows.items() if row["op"] != "REMOVE"}

    def write_all(self, folder: Path) -> None:
        folder.mkdir()
        digests = [row["digest"] for row in self.live.values()]
        rows = {"key": list(self.live), "digest": pa.array(digests, pa.string()), "intact": [True] * len(digests)}
        rows["kept"] = [False] * len(digests)
        pq.write_table(pa.table(rows), folder / "rows.parquet")  # type: ignore[no-untyped-call]

    def sequences(self, keys: Sequence[str]) -> dict[str, str]:
        return {key: f"{row['gen']}-{row['seq']}" for key, row in self.rows.items() if key in keys}


class World:
    def __init__(self, folder: Path, **bridge: Any) -> None:
        self.folder = folder
        self.table = IndexInMemory()
        self.lake = Lake()
        self.config = TableConfig.model_validate(
            {
                "table": "things",
                "version": 1,
                "key": [{"name": "id"}],
                "bridge": bridge,
                "lake": {"name": "things"},
                "pull": {"index": "by_tenant", "version": "ms", "overlap": 60},
            }
        )
        self.rules = table_rules("things", compile_table(self.config), lambda *_: HashKey("k", b"0" * 32))
        versions = Versions("ms", 60)
        index = Index.describe(self.table, self.config, versions, CapacityBudget())
        cursors = Cursors(folder / "cursors.json", "things", "by_tenant")
        self.pull = Pull(index, self.rules, versions, cursors, print, "b", lambda: NOW_MS)

    def once(self) -> None:
        for portion in self.pull.read(["S:a"]):
            self.lake.take(portion.lines)
            self.pull.cursors.commit(portion.cursors)

    def reconcile(self) -> dict[str, int]:
        work = Reconcile(self.pull, SourceSide(self.config, self.rules), self.lake, segments=2)
        for lines in list(work.read()):
            self.lake.take(lines)
        return {name: count for name, count in work.counts.as_dict().items() if count and name != "scanned"}

    def agrees(self) -> bool:
        source = SourceSide(self.config, self.rules)
        items = source.admitted(list(self.table.items.values()))
        return {source.key(item): source.digest(item) for item in items} == {
            key: row["digest"] for key, row in self.lake.live.items()
        }


@pytest.mark.parametrize("bridge", [{}, {"hash": ["id"], "hash_secret": "s"}], ids=["plain keys", "hashed keys"])
def test_deletes_late_writes_and_items_outside_the_index_are_found_and_mended_once(
    tmp_path: Path, bridge: dict[str, Any]
) -> None:
    world = World(tmp_path, **bridge)
    for number in range(20):
        world.table.put(f"k{number}", "a", NOW_MS - number)
    world.once()
    assert world.reconcile() == {}
    del world.table.items["k3"], world.table.items["k4"]
    world.table.put("late", "a", NOW_MS - 3_600_000)
    world.table.put("k5", "a", NOW_MS - 3_600_000, n={"N": "5"})
    world.table.put("no-version", "a", None)
    world.once()
    assert not world.agrees()
    assert world.reconcile() == {"removed": 2, "missing": 2, "stale": 1}
    assert world.agrees()
    assert world.reconcile() == {}


def test_a_tie_that_the_digests_decided_wrongly_is_mended(tmp_path: Path) -> None:
    """Both states of an item carry one version: whichever the digest chose, the lake ends with what the table holds."""
    for order in (("1", "2"), ("2", "1")):
        folder = tmp_path / "".join(order)
        folder.mkdir()
        world = World(folder)
        for value in order:
            world.table.put("x", "a", NOW_MS, n={"N": value})
            world.once()
        world.reconcile()
        assert world.agrees()


def test_an_item_that_comes_back_after_its_removal_was_marked_lives_again(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.table.put("x", "a", NOW_MS - 30_000)
    world.once()
    del world.table.items["x"]
    assert world.reconcile() == {"removed": 1}
    world.table.put("x", "a", NOW_MS - 29_999)
    world.once()
    assert world.agrees()
    assert world.lake.live


def test_an_item_that_left_the_filter_goes_as_filtered(tmp_path: Path) -> None:
    world = World(tmp_path, filter={"attribute": "region", "equals": ["eu"]})
    world.table.put("x", "a", NOW_MS - 1_000, region={"S": "eu"})
    world.once()
    world.table.put("x", "a", NOW_MS, region={"S": "us"})
    world.once()
    assert world.pull.counts.filtered == 1
    assert world.reconcile() == {"removed": 1}
    ((_, row),) = world.lake.rows.items()
    assert (row["op"], row["filtered"], row["new"]) == ("REMOVE", True, None)

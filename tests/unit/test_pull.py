"""Pulling from an index held in memory: what is read, how far the cursors go, what is counted."""

import itertools
import json
import os
import stat
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import Any

import pytest
from index_memory import NOW_MS, UNITS_A_PAGE, IndexInMemory, table_config

from bridge_lambda.rules import HashKey, TableRules, table_rules
from config.errors import ConfigurationError
from config.rules import compile_table
from config.tables import TableConfig
from streaming_job.operations.pull import Portion, Pull
from streaming_job.operations.pull_cursors import Cursor, Cursors, alone
from streaming_job.operations.pull_index import Index
from streaming_job.operations.pull_versions import Versions
from streaming_job.operations.source_scan import CapacityBudget

ITEMS = int(os.environ.get("LAKESTREAM_PULL_ITEMS", "20000"))
"""1000000 is the size it is made for."""


def rules_of(config: TableConfig) -> TableRules:
    return table_rules(config.table, compile_table(config), lambda *_: HashKey("k", b"0" * 32))


@dataclass
class World:
    folder: Path
    table: IndexInMemory = field(default_factory=IndexInMemory)
    now_ms: int = NOW_MS
    pull_rules: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.lake: dict[tuple[str, str], Any] = {}
        """What was handed over, by key and number."""
        self.restart()

    def restart(self) -> None:
        """A process of its own: nothing is known but the file of cursors."""
        config = table_config(**self.pull_rules)
        assert config.pull is not None
        versions = Versions(config.pull.version, config.pull.overlap)
        index = Index.describe(self.table, config, versions, CapacityBudget())
        cursors = Cursors.load(self.folder / "cursors.json", config.table, config.pull.index)
        self.pull = Pull(index, rules_of(config), versions, cursors, print, "b", lambda: self.now_ms)

    def portions(self, *tenants: str) -> Any:
        return self.pull.read([f"S:{tenant}" for tenant in tenants or ("a",)])

    def take(self, portion: Portion) -> int:
        """As the command does: into the lake, then the cursors. How many were not there."""
        new = 0
        for line in portion.lines:
            envelope = json.loads(line)
            place = (envelope["key"]["id"], envelope["seq"])
            new += place not in self.lake
            known = self.lake.setdefault(place, envelope)
            assert known["created_ms"] == envelope["created_ms"], "`history` finds a change by its time"
        self.pull.cursors.commit(portion.cursors)
        return new

    def once(self, *tenants: str) -> int:
        return sum(self.take(portion) for portion in self.portions(*tenants))

    @property
    def current(self) -> dict[str, Any]:
        """The newest of each key."""
        return {key: envelope for (key, _), envelope in sorted(self.lake.items())}


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


# --- what is read -----------------------------------------------------------------------------------------------------


def test_every_item_of_every_tenant_comes_once_however_many_pages_it_takes(world: World) -> None:
    for tenant, number in itertools.product("abc", range(50)):
        world.table.put(f"{tenant}{number}", tenant, NOW_MS - number)
    assert world.once("a", "b", "c") == 150
    assert world.pull.counts.read == world.pull.counts.sent == 150
    assert world.once("a", "b", "c") == 0
    assert world.pull.counts.sent == 0
    assert world.pull.counts.again == 150


def test_an_item_written_again_replaces_its_row(world: World) -> None:
    world.table.put("x", "a", NOW_MS - 5_000, n={"N": "1"})
    world.once()
    world.table.put("x", "a", NOW_MS - 4_000, n={"N": "2"})
    assert world.once() == 1
    assert world.current["x"]["new"]["n"] == 2


def test_a_pass_reads_no_further_back_than_the_overlap(world: World) -> None:
    for number in range(500):
        world.table.put(f"k{number}", "a", NOW_MS - number * 1_000)
    world.once()
    world.table.queries.clear()
    world.once()
    assert world.pull.counts.read == 61
    assert len(world.table.queries) == 9


def test_a_new_process_hands_the_overlap_over_again_under_the_same_numbers(world: World) -> None:
    for number in range(100):
        world.table.put(f"k{number}", "a", NOW_MS - number * 1_000)
    world.once()
    world.restart()
    assert world.once() == 0
    assert world.pull.counts.sent == 61


def test_what_is_written_late_is_found_within_the_overlap_and_counted(world: World) -> None:
    world.table.put("x", "a", NOW_MS)
    world.once()
    world.table.put("late", "a", NOW_MS - 50_000)
    world.table.put("too-late", "a", NOW_MS - 70_000)
    assert world.once() == 1
    assert world.pull.counts.late == 1
    assert set(world.current) == {"x", "late"}


def test_a_clock_that_is_ahead_does_not_hide_what_others_write_meanwhile(world: World) -> None:
    world.table.put("ahead", "a", NOW_MS + 86_400_000)
    world.table.put("x", "a", NOW_MS)
    assert world.once() == 2
    assert world.pull.counts.ahead == 1
    world.now_ms += 600_000
    world.restart()
    world.table.put("y", "a", NOW_MS + 500_000)
    assert world.once() == 1


def test_our_own_clock_stepping_back_loses_nothing(world: World) -> None:
    world.table.put("x", "a", NOW_MS)
    world.once()
    world.now_ms -= 7_200_000
    world.table.put("y", "a", NOW_MS + 1_000)
    assert world.once() == 1
    world.now_ms += 7_300_000
    world.table.put("z", "a", NOW_MS + 2_000)
    assert world.once() == 1


def test_a_clock_that_steps_back_within_the_overlap_is_counted(world: World) -> None:
    for number in range(20):
        world.table.put(f"k{number}", "a", NOW_MS + number * 100)
        world.now_ms += 100
        world.once()
    for number in range(20):
        world.table.put(f"back{number}", "a", NOW_MS - 30_000 + number * 100)
    assert world.once() == 20
    assert world.pull.counts.late == 20


def test_two_states_under_one_version_are_two_changes_and_ever_in_the_same_order(world: World) -> None:
    orders = set()
    for first, second in itertools.permutations(("1", "2")):
        world.lake.clear()
        world.restart()
        for value in (first, second):
            world.table.put("x", "a", NOW_MS, n={"N": value})
            world.once()
        assert len(world.lake) == 2
        orders.add(world.current["x"]["new"]["n"])
    assert len(orders) == 1


def test_an_index_of_keys_only_has_its_items_fetched_and_what_is_gone_is_counted(world: World) -> None:
    world.table.projection = "KEYS_ONLY"
    world.restart()
    for number in range(20):
        world.table.put(f"k{number}", "a", NOW_MS - number, n={"N": str(number)})
    real = world.table.query

    def deletes_meanwhile(**request: Any) -> Any:
        answer = real(**request)
        world.table.items.pop("k13", None)
        return answer

    world.table.query = deletes_meanwhile  # type: ignore[method-assign]  # an item goes between index and table
    assert world.once() == 19
    assert world.pull.counts.gone == 1
    assert world.current["k7"]["new"]["n"] == 7


def test_items_without_the_index_s_attributes_are_not_seen_and_their_number_is_told(world: World) -> None:
    world.table.put("x", "a", NOW_MS)
    world.table.put("no-version", "a", None)
    world.table.put("no-tenant", None, NOW_MS)
    world.restart()
    assert world.pull.index.not_in_it == 2
    assert world.once() == 1


def test_versions_of_mixed_forms_are_sent_and_counted_and_the_cursor_follows_the_good_ones(world: World) -> None:
    world.table.version_type = "S"
    world.pull_rules = {"version": "iso"}
    world.restart()
    forms = ("2026-09-21T10:00:00Z", "21/09/2026", "zzz", "2026-09-21T12:00:00.5+02:00", "2026-09-22 10:00:01")
    for number, text in enumerate(forms):
        world.table.put(f"k{number}", "a", text)
    assert world.once() == 5
    assert world.pull.counts.odd == 4
    assert world.pull.cursors.tenants["S:a"].newest == {"S": "2026-09-21T10:00:00Z"}
    assert world.current["k3"]["created_ms"] - world.current["k0"]["created_ms"] == 500
    world.table.put("k9", "a", "2026-09-21T10:00:02Z")
    assert world.once() == 1


def test_what_the_rules_hide_is_in_no_line(world: World) -> None:
    world.table.put("x", "a-secret-tenant", NOW_MS)
    portions = list(world.portions("a-secret-tenant"))
    assert portions[0].lines
    assert b"a-secret-tenant" not in b"".join(line for portion in portions for line in portion.lines)


# --- tenants ----------------------------------------------------------------------------------------------------------


def test_a_tenant_without_items_is_counted_and_the_others_go_on(world: World) -> None:
    world.table.put("x", "b", NOW_MS)
    assert world.once("a", "b", "c") == 1
    assert world.pull.counts.empty == 2


@pytest.mark.parametrize("after_pages", [0, 2])
def test_a_tenant_that_cannot_be_read_keeps_its_place_and_the_others_go_on(world: World, after_pages: int) -> None:
    for tenant, number in itertools.product("abc", range(30)):
        world.table.put(f"{tenant}{number:02}", tenant, NOW_MS - 3_600_000 + number * 60_000)
    left = iter([None] * after_pages)
    world.table.faults = lambda _, tenant: (
        next(left, "ProvisionedThroughputExceededException") if tenant == "b" else None
    )
    world.once("a", "b", "c")
    assert world.pull.counts.failed == 1
    assert len(world.current) == 60 + 7 * after_pages
    world.table.faults = lambda *_: None
    world.table.queries.clear()
    world.restart()
    world.once("b")
    assert len(world.current) == 90
    assert len(world.table.queries) == 5 - after_pages, "the pages that were read are not read again"


def test_tenants_are_discovered_by_a_scan_of_the_index(world: World) -> None:
    for tenant in "abc":
        world.table.put(f"x{tenant}", tenant, NOW_MS)
    assert world.pull.index.discover() == {"S:a", "S:b", "S:c"}


def test_reading_keeps_to_the_budget(world: World) -> None:
    for number in range(70):
        world.table.put(f"k{number}", "a", NOW_MS - number)
    slept: list[float] = []
    budget = CapacityBudget(4.0, clock=lambda: 0.0, sleep=slept.append)
    config = table_config()
    index = Index.describe(world.table, config, Versions("ms", 60), budget)
    pages = list(index.pages("S:a", Cursor()))
    assert slept[-1] == pytest.approx((len(pages) - 1) * UNITS_A_PAGE / 4.0)


# --- cut off ----------------------------------------------------------------------------------------------------------


def test_many_items_are_pulled_twice_alike_though_each_run_is_cut_off_and_goes_on(tmp_path: Path) -> None:
    """LAKESTREAM_PULL_ITEMS=1000000 is the size it is made for. Every portion is followed by a new process."""
    world = World(tmp_path)
    world.table.page = 1_000
    for number in range(ITEMS):
        world.table.put(f"k{number:07}", "a", NOW_MS - ITEMS + number)
    world.table.query = indexed(world.table)  # type: ignore[method-assign]  # the fake's own scan is too slow for so many
    first: set[bytes] = set()
    runs = 0
    while portion := next(iter(world.portions()), None):
        before = len(first)
        first |= {marked(line) for line in portion.lines}
        if len(first) == before:
            break
        world.pull.cursors.commit(portion.cursors)
        world.restart()
        runs += 1
    assert (len(first), runs) == (ITEMS, -(-ITEMS // 5_000))
    (tmp_path / "cursors.json").unlink()
    world.restart()
    again = [marked(line) for portion in world.portions() for line in portion.lines]
    assert len(again) == ITEMS
    assert set(again) == first


def marked(line: bytes) -> bytes:
    """The envelope without the times at which it was read and sent."""
    head, _, rest = line.partition(b',"bridge_in_ms":')
    return blake2b(head + rest[13:].partition(b',"bridge_out_ms":')[0], digest_size=16).digest()


def indexed(table: IndexInMemory) -> Any:
    """The same answers for one tenant whose items were put in the order of their versions."""
    items = list(table.items.values())
    places = {item["id"]["S"]: place for place, item in enumerate(items)}

    def query(**request: Any) -> Any:
        begin = request["ExpressionAttributeValues"].get(":v", {"N": "0"})
        after_key = request.get("ExclusiveStartKey")
        start = places[after_key["id"]["S"]] + 1 if after_key else max(0, int(begin["N"]) - (NOW_MS - ITEMS))
        some = items[start : start + table.page]
        more = {"LastEvaluatedKey": some[-1]} if start + table.page < len(items) else {}
        return {"Items": some, **more}

    return query


def test_cursors_move_only_with_what_is_in_the_lake(world: World) -> None:
    for number in range(20):
        world.table.put(f"k{number}", "a", NOW_MS - number)
    list(world.portions())  # read, and lost on its way
    world.restart()
    assert world.once() == 20


def test_the_file_of_cursors_is_its_owner_s_alone_and_survives_a_restart(tmp_path: Path) -> None:
    file = tmp_path / "c.json"
    cursors = Cursors(file, "t", "i", handed_over="pull-t-1")
    cursors.commit({"S:a": Cursor({"N": "1"}), "N:7": Cursor(None, {"N": "5"}, '{"id": {"S": "k"}}')})
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert Cursors.load(file, "t", "i") == cursors
    assert Cursors.load(tmp_path / "none", "t", "i").tenants == {}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("not json", "holds no cursors"),
        ('{"v": 1}', "holds no cursors"),
        ('{"v":1,"table":"t","index":"other","discovered_ms":0,"handed_over":"","tenants":{}}', "of t by other"),
        ('{"v":1,"table":"t","index":"i","discovered_ms":0,"tenants":{"S:a":{"x":1}}}', "holds no cursors"),
    ],
)
def test_a_file_of_other_cursors_is_refused_with_what_to_do(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "c.json"
    file.write_text(text)
    with pytest.raises(ConfigurationError, match=said) as error:
        Cursors.load(file, "t", "i")
    assert error.value.hint


def test_two_pulls_do_not_share_a_file_of_cursors(tmp_path: Path) -> None:
    with (
        alone(tmp_path / "c.json"),
        pytest.raises(ConfigurationError, match="another pull"),
        alone(tmp_path / "c.json"),
    ):
        pass

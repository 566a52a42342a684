"""`verify` against a source and a lake held in memory, with a clock that only moves when verify waits."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from botocore.exceptions import ClientError

from bridge_lambda.images import digest
from bridge_lambda.masks import Mask
from bridge_lambda.rules import Filter, TableRules
from config.tables import KeyAttribute, LakeRules, TableConfig
from streaming_job.cli import verify_notes
from streaming_job.operations.comparison import Finding
from streaming_job.operations.in_flight import SHOWN_AFTER_MS, StreamInFlight
from streaming_job.operations.verify import LakeRow, Options, Report, Verification

START_S = 1_760_000_000.0
KEY = '{"id":"a"}'
CONFIG = TableConfig(table="cars", version=1, key=(KeyAttribute(name="id"),), lake=LakeRules(name="cars"))
RULES = TableRules("cars", "1", ("id",), Mask(), None, keep_old_image=True, filter=None, origin=None)


def item(key: str, value: int) -> dict[str, Any]:
    return {"id": {"S": key}, "value": {"N": str(value)}}


class World:
    """A source, a lake, and what happens to them while verify waits."""

    def __init__(self, source: Sequence[dict[str, Any]], lake: Sequence[dict[str, Any]]) -> None:
        self.now_s = START_S
        self.source = {entry["id"]["S"]: entry for entry in source}
        self.lake = {entry["id"]["S"]: LakeRow(digest(entry), intact=True) for entry in lake}
        self.newest_ms = 0
        self.seqs: dict[str, str] = {}
        self.stream: dict[str, str] | None = None
        """Key -> newest version; None: there is no stream to ask."""
        self.whole_until_ms = 0
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
        rows = [{"key": self._key(key), **row._asdict()} for key, row in self.lake.items() for _ in range(row.rows)]
        schema = pa.schema(
            [("key", pa.string()), ("digest", pa.string()), ("intact", pa.bool_()), ("kept", pa.bool_())]
        )
        pq.write_table(pa.Table.from_pylist(rows, schema=schema), folder / "rows.parquet")

    def of(self, keys: Sequence[str]) -> dict[str, LakeRow]:
        return {self._key(key): row for key, row in self.lake.items() if self._key(key) in keys}

    def sequences(self, keys: Sequence[str]) -> dict[str, str]:
        return {key: self.seqs[key] for key in keys if key in self.seqs}

    def newest_created_ms(self) -> int:
        return self.newest_ms

    def look(self, keys: Collection[str]) -> None:
        """The table's stream, read to its end in one look, where there is one to be read."""
        if self.stream is not None:
            self.whole_until_ms = int(self.now_s * 1000) - SHOWN_AFTER_MS

    def newest(self, key: str) -> str | None:
        return (self.stream or {}).get(key)

    def _key(self, key: str) -> str:
        return f'{{"id":"{key}"}}'


def verify(world: World, rules: TableRules = RULES) -> Report:
    options = Options(segments=1, settle_s=10)
    return Verification(
        world, CONFIG, rules, world, options, in_flight=world, clock=world.clock, sleep=world.sleep
    ).run()


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


@pytest.mark.parametrize("source", [[item("a", 1)], [item("a", 2)], []])
def test_a_table_that_holds_a_key_twice_is_never_equal_and_a_rebuild_is_named_to_mend_it(
    source: list[dict[str, Any]],
) -> None:
    """Whatever the two rows hold: what is on its way, or a repair, would be written to both."""
    world = World(source, [])
    world.lake["a"] = LakeRow(digest(item("a", 1)), intact=True, rows=2)
    report = verify(world)
    assert (report.different, report.differences, report.doubled, report.lake_rows) == (1, 1, 1, 2)
    assert "`lakestream rebuild`" in next(iter(verify_notes([report])))


def test_items_outside_the_tables_filter_are_counted_apart_and_expected_to_be_absent() -> None:
    only_ones = Filter(("value",), frozenset({("N", "1")}))
    rules = TableRules("cars", "1", ("id",), Mask(), None, keep_old_image=True, filter=only_ones, origin=None)
    report = verify(World([item("a", 1), item("b", 2)], [item("a", 1)]), rules)
    assert report.equal
    assert (report.excluded, report.source_items) == (1, 1)


def test_a_row_whose_masked_key_does_not_lead_back_to_the_source_is_unproven() -> None:
    rules = TableRules("cars", "1", ("id",), Mask(hash=("id",)), None, keep_old_image=True, filter=None, origin=None)
    world = World([], [item("a", 1)])
    world.newest_ms = int(START_S * 1000) + 60_000
    report = verify(world, rules)
    assert (report.unproven, report.differences) == (1, 0)


# --- a quiet table ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "lake", "finding"),
    [
        ([item("a", 1)], [], "missing"),
        ([], [item("a", 1)], "extra"),
        ([item("a", 2)], [item("a", 1)], "stale"),
    ],
)
def test_on_a_quiet_table_a_difference_counts_once_the_tables_stream_tells_of_nothing_the_lake_has_not(
    source: list[dict[str, Any]], lake: list[dict[str, Any]], finding: str
) -> None:
    """No later change comes. The stream's last change of the key is the one the lake has, or it has none at all."""
    for stream, held in (({}, {}), ({KEY: "g-5"}, {KEY: "g-5"})):
        world = World(source, lake)
        world.stream, world.seqs = stream, held
        began_s = world.now_s
        report = verify(world)
        assert (getattr(report, finding), report.differences, report.unproven) == (1, 1, 0)
        assert world.now_s - began_s >= SHOWN_AFTER_MS / 1000


def test_a_change_that_stands_in_the_stream_and_not_in_the_lake_is_on_its_way_however_late() -> None:
    """Held up in one shard while another one goes on: a later commit proves nothing of it."""
    world = World([item("a", 2)], [item("a", 1)])
    world.stream, world.seqs, world.newest_ms = {KEY: "g-6"}, {KEY: "g-5"}, int(START_S * 1000) + 600_000
    report = verify(world)
    assert (report.unproven, report.differences) == (1, 0)

    def arrives(world: World) -> None:
        world.seqs[KEY], world.lake["a"] = "g-6", LakeRow(digest(item("a", 2)), intact=True)

    world.happens = [arrives]
    assert verify(world).equal


def test_rows_that_the_rules_keep_after_their_items_were_deleted_are_counted_apart() -> None:
    """A kept row whose item is there again is behind, until the new item comes."""
    world = World([item("b", 1)], [item("a", 1), item("b", 1)])
    world.lake["a"] = LakeRow(None, intact=True, kept=True)
    report = verify(world)
    assert report.equal
    assert (report.kept, report.lake_rows) == (1, 1)

    world.source["a"] = item("a", 2)
    world.stream = {}
    report = verify(world)
    assert (report.stale, report.kept, report.lake_rows) == (1, 0, 1)


class Streams:
    """A table's stream: shards of records, a few an answer; an empty answer in between, and any number at the end."""

    def __init__(self, **shards: list[dict[str, Any]]) -> None:
        self.shards = shards

    def describe_stream(self, *, StreamArn: str) -> dict[str, Any]:  # noqa: N803 - AWS's names
        return {"StreamDescription": {"Shards": [{"ShardId": name} for name in self.shards]}}

    def get_shard_iterator(self, *, ShardId: str, **_: str) -> dict[str, Any]:  # noqa: N803
        return {"ShardIterator": f"{ShardId} 0"}

    def get_records(self, *, ShardIterator: str, **_: Any) -> dict[str, Any]:  # noqa: N803
        shard, at = ShardIterator.split()
        start = int(at) // 2
        records = self.shards[shard][start : start + 2] if int(at) % 2 else []
        step = (2 * len(records) - 1 if len(records) == 2 else len(records)) if int(at) % 2 else 1
        return {"Records": records, "NextShardIterator": f"{shard} {int(at) + step}"}


def record(key: str, sequence: int, value: int = 1) -> dict[str, Any]:
    return {
        "eventID": "e",
        "eventName": "MODIFY",
        "dynamodb": {
            "Keys": {"id": {"S": key}},
            "NewImage": item(key, value),
            "OldImage": item(key, value),
            "SequenceNumber": str(sequence),
            "ApproximateCreationDateTime": datetime.fromtimestamp(START_S, UTC),
        },
    }


def in_flight(streams: Streams, rules: TableRules = RULES) -> StreamInFlight:
    now_s = START_S

    def sleep(seconds: float) -> None:
        nonlocal now_s
        now_s += seconds

    arn = "arn:aws:dynamodb:us-east-1:000000000000:table/cars/stream/2026-01-01T00:00:00.000"
    return StreamInFlight(streams, arn, rules, lambda seq, _: f"g-{seq[-3:]}", clock=lambda: now_s, sleep=sleep)


def test_the_stream_tells_of_each_key_its_newest_version_and_until_when_that_is_all() -> None:
    """Two shards; more records come between two looks, and are read on from where the first look ended."""
    streams = Streams(one=[record("a", 3), record("b", 9)], two=[record("a", 1)])
    flight = in_flight(streams)
    flight.look({KEY})
    assert (flight.newest(KEY), flight.newest('{"id":"b"}')) == ("g-003", None)
    assert flight.whole_until_ms == int(START_S * 1000) - SHOWN_AFTER_MS
    streams.shards["two"] += [record("b", 9), record("a", 7)]
    streams.shards["three"] = [record("a", 5)]
    flight.look({KEY})
    assert flight.newest(KEY) == "g-007"


def test_what_the_tables_filter_keeps_back_is_on_no_way() -> None:
    only_ones = Filter(("value",), frozenset({("N", "1")}))
    rules = TableRules("cars", "1", ("id",), Mask(), None, keep_old_image=True, filter=only_ones, origin=None)
    flight = in_flight(Streams(one=[record("a", 3), record("a", 4, value=2)]), rules)
    flight.look({KEY})
    assert flight.newest(KEY) == "g-003"


def test_a_stream_that_cannot_be_read_proves_nothing() -> None:
    class Denied(Streams):
        def describe_stream(self, *, StreamArn: str) -> dict[str, Any]:  # noqa: N803 - AWS's name
            raise ClientError({"Error": {"Code": "AccessDeniedException", "Message": "no"}}, "DescribeStream")

    flight = in_flight(Denied())
    flight.look({KEY})
    assert (flight.whole_until_ms, flight.newest(KEY)) == (0, None)


def test_the_answer_shows_keys_whole_what_is_kept_and_what_the_table_was_doubted_for() -> None:
    long = f'{{"id":"{"x" * 200}"}}'
    report = replace(
        verify(World([item("a", 1)], [item("a", 1)])),
        different=2,
        kept=3,
        examples={Finding.DIFFERENT: [long, KEY]},
        doubts=("near-expiry at 2026-11-01T12:00Z",),
    )
    assert list(verify_notes([report])) == [
        "cars: 3 rows of deleted items are kept, as its rules say",
        "cars: changes may have been lost (near-expiry at 2026-11-01T12:00Z): it stands",
        f"cars: different: {long} and 1 more listed by --json",
    ]

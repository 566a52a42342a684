"""What comes late after its item's tombstone was purged: from dead letters, from a scan. Real tables, no Spark."""

import random
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from envelopes import DAY_MS, put, remove
from first_load import ARN, GENERATION, RULES, TABLE, ChangingTable, Store, item
from lake_rig import table_config
from lanes_rig import LanesRig

from bridge_lambda.dead_letters import S3Store, dead_letter
from bridge_lambda.envelope import encode_change
from bridge_lambda.errors import PoisonRecordError
from streaming_job.objects import Bucket
from streaming_job.operations.maintain import Maintenance
from streaming_job.operations.redrive import Redrive
from streaming_job.operations.redrive_letters import Letters, Place
from streaming_job.operations.snapshot import Part, Snapshot, State
from streaming_job.operations.snapshot_load import scanned
from streaming_job.operations.source_scan import CapacityBudget
from streaming_job.pipeline.current import PURGED_PROPERTY
from streaming_job.pipeline.decode import Decoder
from streaming_job.pipeline.intake_rows import SOURCE, lines

HARD = table_config(deletes={"policy": "hard", "window_h": 1})
HOUR_MS = 3_600_000


def record(number: int, operation: str) -> dict[str, Any]:
    image = {"OldImage": item("a", number)} if operation == "REMOVE" else {"NewImage": item("a", number)}
    return {
        "eventID": str(number),
        "eventName": operation,
        "eventSourceARN": ARN,
        "dynamodb": {
            "Keys": {"id": {"S": "a"}},
            "SequenceNumber": str(number),
            "ApproximateCreationDateTime": DAY_MS / 1000,
            **image,
        },
    }


def sent(*records: dict[str, Any]) -> list[bytes]:
    changes = [encode_change(raw, {TABLE: RULES}, DAY_MS, "bucket") for raw in records]
    return [change.line(DAY_MS) for change in changes if change is not None]


class Rig(LanesRig):
    def take(self, envelopes: Iterable[bytes]) -> None:
        """As they arrive from Kinesis."""
        rows = [
            {
                "data": data,
                "stream": "changes",
                "shardId": "0",
                "sequenceNumber": str(number),
                "approximateArrivalTimestamp": datetime.fromtimestamp(DAY_MS / 1000, UTC),
            }
            for number, data in enumerate(envelopes, start=1)
        ]
        changes = Decoder({TABLE: self.config}).changes(pa.Table.from_pylist(rows, schema=SOURCE))
        assert changes["reject"].null_count == len(rows)
        with self.opened() as lanes:
            lanes.run(changes)

    def purge(self) -> None:
        """Hours later; nothing else is there."""
        self.clock.now_ms += 5 * HOUR_MS
        list(Maintenance(self.settings, self.tables, clock=self.clock, wait_s=0, sleep=lambda _: None).run([HARD]))
        assert self.items == []
        assert PURGED_PROPERTY in self.tables.properties(self.places.current)

    @property
    def items(self) -> list[str]:
        return [row["_key"] for row in self.rows("things/current", "_key")]


@pytest.fixture
def purged(lake: Path) -> Rig:
    """An item was written and deleted; hours later its tombstone is gone."""
    rig = Rig(lake, HARD)
    rig.take(sent(record(10, "INSERT"), record(30, "REMOVE")))
    rig.purge()
    return rig


class Kinesis:
    def __init__(self) -> None:
        self.lines: list[bytes] = []

    def put(self, records: Sequence[tuple[bytes, str]]) -> list[str | None]:
        self.lines += [data for data, _ in records]
        return ["0"] * len(records)


class Clock:
    def now_ms(self) -> int:
        return DAY_MS

    def elapsed_ms(self) -> float:
        return 0.0

    def sleep(self, _seconds: float) -> None:
        raise AssertionError("nothing has to be tried again")


def test_an_old_event_redriven_after_its_tombstone_was_purged_does_not_come_back(purged: Rig) -> None:
    """The change between insert and delete lay among the dead letters meanwhile. `history` has it then, once."""
    store = Store()
    letter = dead_letter(record(20, "MODIFY"), PoisonRecordError("unknown-table", "no rules", hint=""), DAY_MS)
    S3Store(lambda: store, "bucket", None).put(letter)
    kinesis = Kinesis()
    redrive = Redrive(
        letters=Letters(store, [Place("bucket", "dead-letters/")]),
        tables={TABLE: RULES},
        publisher=kinesis,
        store=S3Store(lambda: store, "bucket", None),
        bucket="bucket",
        clock=Clock(),
    )
    assert redrive.run().redriven == 1
    purged.take(kinesis.lines)
    purged.take(kinesis.lines)
    assert purged.items == []
    assert [row["_op"] for row in purged.rows("things/history", "_op")] == ["INSERT", "MODIFY", "REMOVE"]


def test_an_item_scanned_before_it_was_deleted_and_purged_does_not_come_back(purged: Rig) -> None:
    """The scan's rows arrive hours late; another item of the same scan is a new row."""
    store, table = Store(), ChangingTable(random.Random(1), {"a": item("a", 10), "b": item("b", 1)})
    state = State("snapshot-1", TABLE, GENERATION, RULES.label, "scan", 1_000, {0: Part()})
    Snapshot(Bucket(store, "bucket"), RULES, state, lambda _: None, lambda *_: None, lambda: DAY_MS).take(
        scanned(table, state, CapacityBudget())
    )
    (name,) = (name for name in store.objects if name.endswith(".gz"))
    purged.take(lines(store.objects[name][0]))
    assert purged.items == ['{"id":"b"}']


def test_an_item_inserted_anew_after_the_purge_is_a_row_again(purged: Rig) -> None:
    purged.take(sent(record(40, "INSERT")))
    assert purged.items == ['{"id":"a"}']


def test_of_a_strict_table_a_late_version_that_fits_stands_before_a_later_one_that_does_not(lake: Path) -> None:
    """Only a delete that history remembers makes an old change too late: what was rejected replaced nothing."""
    strict = table_config(deletes={"policy": "hard", "window_h": 1}, strict=True, columns={"n": "bigint"})
    rig = Rig(lake, strict)
    rig.run([put("gone", 1, n=1)], [remove("gone", 3)])
    rig.purge()
    fits, does_not = put("x", 1, n=1), put("x", 2, n="text")
    reports = rig.run([fits, does_not, put("gone", 2, n=2)], [put("y", 2, n="text")], [put("y", 1, n=2)])
    assert [report.late_rejects for report in reports] == [1, 1, 0]
    assert rig.rows("things/current", "id", "_seq", "n") == [
        {"id": "x", "_seq": fits.seq, "n": 1},
        {"id": "y", "_seq": fits.seq, "n": 2},
    ]

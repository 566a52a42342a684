"""`redrive` over a bucket in memory and a publisher that keeps what it is given; the bridge's code is the real one."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from botocore.exceptions import ClientError

from bridge_lambda.dead_letters import S3Store, dead_letter
from bridge_lambda.envelope import encode_change
from bridge_lambda.errors import CallInvalidError, PoisonRecordError, StreamGoneError
from bridge_lambda.masks import UNMASKED
from bridge_lambda.rules import Filter, TableRules
from streaming_job.operations.redrive import Redrive, RedriveStoppedError, Report
from streaming_job.operations.redrive_letters import Letters, Place

SCHEMA = json.loads((Path(__file__).parents[2] / "config" / "envelope.schema.json").read_text())
POISON = PoisonRecordError("unknown-table", "no rules", hint="add them")
BUCKET = "bucket-of-letters"
BATCHES = "bucket-of-batches"


def rules(table: str = "cars", **more: Any) -> TableRules:
    known = {"masks": UNMASKED, "hash_key": None, "keep_old_image": True, "filter": None, "origin": None} | more
    return TableRules(table=table, label="1", key=("id",), **known)


def record(seq: int, key: str = "a", *, value: int = 0, table: str = "cars", label: str = "2026-01-01T00:00:00.000",
           operation: str = "MODIFY") -> dict[str, Any]:  # fmt: skip
    image = {"id": {"S": key}, "value": {"N": str(value)}}
    return {
        "eventID": f"e{seq}",
        "eventName": operation,
        "eventSource": "aws:dynamodb",
        "eventSourceARN": f"arn:aws:dynamodb:us-east-1:000000000000:table/{table}/stream/{label}",
        "dynamodb": {
            "ApproximateCreationDateTime": 1_767_225_600 + seq,
            "Keys": {"id": {"S": key}},
            "SequenceNumber": str(seq * 10**25),
            "NewImage": image,
        },
    }


class Clock:
    def __init__(self) -> None:
        self.ms = 1_800_000_000_000

    def now_ms(self) -> int:
        return self.ms

    def elapsed_ms(self) -> float:
        return float(self.ms)

    def sleep(self, seconds: float) -> None:
        self.ms += int(seconds * 1000) + 1


class KeepingPublisher:
    """Takes everything, but stops after so many calls, or refuses what holds a word."""

    def __init__(self, *, calls_max: int = 10**9, refuses: bytes | None = None) -> None:
        self.lines: list[dict[str, Any]] = []
        self.partition_keys: list[str] = []
        self.calls_left = calls_max
        self.refuses = refuses

    def put(self, records: Sequence[tuple[bytes, str]]) -> list[str | None]:
        if not self.calls_left:
            raise StreamGoneError("stream changes: ResourceNotFoundException", hint="create the stream")
        if self.refuses is not None and any(self.refuses in data for data, _ in records):
            raise CallInvalidError("PutRecords refused", hint="see the dead letter")
        self.calls_left -= 1
        first = len(self.lines)
        self.lines += [json.loads(data) for data, _ in records]
        self.partition_keys += [key for _, key in records]
        return [str(first + offset) for offset in range(len(records))]


class S3InMemory:
    def __init__(self) -> None:
        self.objects: dict[tuple[str, str], bytes] = {}
        self.fails: dict[str, str] = {}

    def put_object(self, *, Bucket: str, Key: str, Body: bytes, **_: Any) -> None:  # noqa: N803
        self._fail("put")
        self.objects[Bucket, Key] = Body

    def get_object(self, *, Bucket: str, Key: str) -> Mapping[str, Any]:  # noqa: N803
        self._fail("get")
        if (Bucket, Key) not in self.objects:
            raise ClientError({"Error": {"Code": "NoSuchKey", "Message": "gone"}}, "GetObject")
        body = self.objects[Bucket, Key]
        return {"ETag": str(hash(body)), "Body": type("Body", (), {"read": lambda _: body})()}

    def delete_object(self, *, Bucket: str, Key: str) -> None:  # noqa: N803
        self._fail("delete")
        self.objects.pop((Bucket, Key), None)

    def get_paginator(self, _: str) -> "S3InMemory":
        return self

    def paginate(self, *, Bucket: str, Prefix: str) -> Iterator[Mapping[str, Any]]:  # noqa: N803
        self._fail("list")
        names = sorted(name for bucket, name in self.objects if bucket == Bucket and name.startswith(Prefix))
        for start in range(0, len(names), 2):
            yield {"Contents": [{"Key": name} for name in names[start : start + 2]]}
        yield {}

    def _fail(self, call: str) -> None:
        if call in self.fails:
            raise ClientError({"Error": {"Code": self.fails[call], "Message": "no"}}, call)


class World:
    def __init__(self) -> None:
        self.s3 = S3InMemory()
        self.tables = {"cars": rules()}
        self.publisher = KeepingPublisher()
        self.clock = Clock()

    def bury(self, raw: Any) -> str:
        letter = dead_letter(raw, POISON, 1_700_000_000_000)
        self.s3.objects[BUCKET, letter.name] = letter.body
        return letter.name

    def give_up(self, *records: Any, name: str = "aws/lambda/id/shard/2026-01-01") -> None:
        body = {
            "requestContext": {"condition": "RetryAttemptsExhausted"},
            "DDBStreamBatchInfo": {"batchSize": len(records)},
            "payload": json.dumps({"Records": records}),
        }
        self.s3.objects[BATCHES, name] = json.dumps(body).encode()

    def redrive(self, *, dry_run: bool = False) -> Report:
        return Redrive(
            letters=Letters(self.s3, [Place(BUCKET, "dead-letters/"), Place(BATCHES, "")]),
            tables=self.tables,
            publisher=self.publisher,
            store=S3Store(lambda: self.s3, BUCKET, None),  # type: ignore[arg-type, return-value]
            bucket=BUCKET,
            clock=self.clock,
            dry_run=dry_run,
        ).run()

    def names(self, prefix: str) -> list[str]:
        return sorted(name for _, name in self.s3.objects if name.startswith(prefix))

    def sequences(self) -> list[int]:
        return [int(line["seq"]) // 10**25 for line in self.publisher.lines]


@pytest.fixture
def world() -> World:
    return World()


def test_a_redriven_change_is_what_the_bridge_would_have_sent_its_own_sequence_included(world: World) -> None:
    raw = record(7, value=5)
    world.bury(raw)
    report = world.redrive()
    (line,) = world.publisher.lines
    sent = encode_change(raw, world.tables, world.clock.now_ms(), BUCKET)
    assert sent is not None
    assert line == json.loads(sent.line(world.clock.now_ms()))
    assert (line["seq"], line["gen"], line["id"]) == (f"{7 * 10**25:040d}", "20260101000000000", "e7")
    assert world.publisher.partition_keys == [sent.partition_key]
    jsonschema.validate(line, SCHEMA)
    assert (report.letters, report.redriven, report.sent, report.stay.total()) == (1, 1, 1, 0)


def test_running_it_twice_changes_nothing(world: World) -> None:
    world.bury(record(1))
    world.give_up(record(2), record(3))
    world.redrive()
    before = (list(world.publisher.lines), dict(world.s3.objects))
    assert world.redrive().letters == 0
    assert (world.publisher.lines, world.s3.objects) == before


def test_a_dry_run_says_what_would_happen_and_touches_nothing(world: World) -> None:
    world.bury(record(1))
    world.bury(record(2, table="unknown"))
    world.give_up(record(3), record(4, table="unknown"))
    before = dict(world.s3.objects)
    report = world.redrive(dry_run=True)
    assert (report.letters, report.redriven, report.sent) == (3, 2, 2)
    assert report.stay == {"unknown-table": 2}
    assert world.s3.objects == before
    assert not world.publisher.lines


def test_changes_go_in_the_order_they_happened_whatever_letter_they_lie_in(world: World) -> None:
    for seq in (9, 2, 4):
        world.bury(record(seq))
    world.give_up(record(3), record(8), name="late")
    world.give_up(record(1), record(7), name="soon")
    world.bury(record(5, label="2026-02-01T00:00:00.000"))
    world.redrive()
    assert world.sequences() == [1, 2, 3, 4, 7, 8, 9, 5]


def test_order_is_kept_across_more_letters_than_are_sent_at_once(world: World) -> None:
    for seq in reversed(range(1, 451)):
        world.bury(record(seq))
    report = world.redrive()
    assert world.sequences() == list(range(1, 451))
    assert report.redriven == 450
    assert world.names("dead-letters/") == []


def test_each_redriven_letter_leaves_a_receipt_without_item_data(world: World) -> None:
    name = world.bury(record(1, key="very-secret-key", value=424242))
    world.redrive()
    assert world.names("") == [f"redriven/{name}"]
    text = world.s3.objects[BUCKET, f"redriven/{name}"].decode()
    receipt = json.loads(text)
    assert (receipt["letter"], receipt["records"], receipt["table"]) == (name, 1, "cars")
    assert receipt["first_seq"] == receipt["last_seq"] == f"{10**25:040d}"
    assert "very-secret-key" not in text
    assert "424242" not in text


def test_a_letter_that_is_still_poison_stays_with_its_reason_and_the_others_go(world: World) -> None:
    stays = world.bury(record(1, table="unknown"))
    world.bury(record(2))
    report = world.redrive()
    assert world.names("dead-letters/") == [stays]
    assert world.sequences() == [2]
    assert report.stay == {"unknown-table": 1}
    assert "add config/tables/unknown.yaml" in report.examples["unknown-table"][0]
    world.tables["unknown"] = rules("unknown")
    assert world.redrive().redriven == 1
    assert world.names("dead-letters/") == []


def test_of_a_batch_only_the_poison_stays_in_a_letter_of_its_own(world: World) -> None:
    broken = record(2)
    del broken["dynamodb"]["NewImage"]
    world.give_up(record(1), broken, record(3))
    report = world.redrive()
    assert world.sequences() == [1, 3]
    assert report.stay == {"no-image": 1}
    (letter,) = world.names("dead-letters/cars/")
    assert json.loads(world.s3.objects[BUCKET, letter])["record"] == broken
    assert world.names("aws/") == []
    assert world.redrive().stay == {"no-image": 1}
    assert world.sequences() == [1, 3]


def test_a_record_that_kinesis_refuses_stays_and_the_others_go(world: World) -> None:
    names = [world.bury(record(seq, value=seq)) for seq in (1, 2, 3)]
    world.publisher = KeepingPublisher(refuses=b'"value":2')
    report = world.redrive()
    assert sorted(world.sequences()) == [1, 3]
    assert report.stay == {"refused-by-kinesis": 1}
    assert world.names("dead-letters/") == [names[1]]


def test_when_the_stream_is_gone_what_was_not_sent_stays_and_a_second_run_goes_on(world: World) -> None:
    for seq in range(1, 301):
        world.bury(record(seq))
    world.publisher.calls_left = 1
    with pytest.raises(RedriveStoppedError, match="after 200 letters"):
        world.redrive()
    assert len(world.names("dead-letters/")) == 100
    world.publisher.calls_left = 10
    world.redrive()
    assert world.sequences() == list(range(1, 301))
    assert world.names("dead-letters/") == []


@pytest.mark.parametrize("call", ["put", "delete"])
def test_a_letter_is_sent_again_rather_than_lost_when_its_receipt_or_its_deletion_fails(
    world: World, call: str
) -> None:
    world.bury(record(1))
    world.s3.fails = {call: "AccessDenied"}
    with pytest.raises(Exception, match="AccessDenied"):
        world.redrive()
    world.s3.fails = {}
    world.redrive()
    assert world.sequences() == [1, 1]
    assert world.names("dead-letters/") == []


def test_what_the_filter_keeps_back_is_counted_and_done(world: World) -> None:
    only_ones = Filter(("value",), frozenset({("N", "1")}))
    world.tables["cars"] = rules(filter=only_ones)
    world.bury(record(1, value=0, operation="INSERT"))
    report = world.redrive()
    assert (report.filtered, report.sent, report.redriven) == (1, 0, 1)
    assert world.names("dead-letters/") == []


def test_images_that_do_not_fit_become_claim_checks_before_their_change_is_sent(world: World) -> None:
    raw = record(1)
    raw["dynamodb"]["NewImage"]["text"] = {"S": "x" * 1_100_000}
    world.bury(raw)
    world.redrive()
    (line,) = world.publisher.lines
    assert line["new"] is None
    assert world.names("claims/") == [line["ref"]["key"]]


@pytest.mark.parametrize("body", [b"not json", b"[]", b"{}", b'{"payload": "{}", "requestContext": {"condition": 1}}'])
def test_an_object_that_is_no_dead_letter_is_left_alone_and_named(world: World, body: bytes) -> None:
    world.s3.objects[BUCKET, "dead-letters/notes.txt"] = body
    world.bury(record(1))
    report = world.redrive()
    assert report.stay == {"no-dead-letter": 1}
    assert world.names("dead-letters/") == ["dead-letters/notes.txt"]
    assert world.sequences() == [1]


def test_records_that_are_nothing_at_all_stay(world: World) -> None:
    for raw in (None, [], "text", {"dynamodb": 1}, {"eventSourceARN": 7}):
        world.bury(raw)
    report = world.redrive()
    assert report.stay.total() == report.letters == 5
    assert not world.publisher.lines

"""`redrive --rejects`: a real Delta table, S3 in memory, a publisher that keeps what it is given."""

import json
from collections.abc import Iterator, Mapping, Sequence
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from deltalake import write_deltalake

from bridge_lambda.errors import CallInvalidError, StreamGoneError
from bridge_lambda.publisher import SystemClock
from streaming_job.operations.redrive import RedriveStoppedError, Report
from streaming_job.operations.redrive_rejects import DeltaRejects, Receipts, RedriveRejects, Reject, line_of

GOOD = b'{"v":1,"table":"cars","key":{"id":"a","n":0.00000010}, "new":{"x":1.50}}\n'
BROKEN = b"\xff\xfe no envelope at all"


class KeepingPublisher:
    def __init__(self) -> None:
        self.sent: list[tuple[bytes, str]] = []
        self.calls_left = 10**9
        self.refuses = b"nothing like this"

    def put(self, records: Sequence[tuple[bytes, str]]) -> list[str | None]:
        if not self.calls_left:
            raise StreamGoneError("stream gone", hint="create it")
        if any(self.refuses in data for data, _ in records):
            raise CallInvalidError("refused", hint="")
        self.calls_left -= 1
        self.sent += records
        return [str(number) for number in range(len(records))]


class ReceiptsInMemory:
    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}

    def get_paginator(self, _: str) -> "ReceiptsInMemory":
        return self

    def paginate(self, *, Bucket: str, Prefix: str) -> Iterator[Mapping[str, Any]]:  # noqa: N803
        yield {"Contents": [{"Key": name} for name in self.objects if name.startswith(Prefix)]}

    def put_object(self, *, Key: str, Body: bytes, **_: Any) -> None:  # noqa: N803
        self.objects[Key] = Body


class World:
    def __init__(self, folder: Path) -> None:
        self.path = folder / "rejects"
        self.publisher = KeepingPublisher()
        self.s3 = ReceiptsInMemory()
        self.arrivals = 0

    def reject(self, *records: bytes) -> None:
        """As the job writes them."""
        self.arrivals += len(records)
        rows = {
            "_stream": ["s"] * len(records),
            "_sha256": [sha256(data).hexdigest() for data in records],
            "_reason": ["unknown envelope version"] * len(records),
            "_table": pa.array([None] * len(records), pa.string()),
            "_arrival_ms": list(range(self.arrivals, self.arrivals + len(records))),
            "_data": list(records),
        }
        write_deltalake(self.path, pa.table(rows), mode="append")

    def redrive(self, *, dry_run: bool = False, again: bool = False) -> Report:
        return RedriveRejects(
            rejects=DeltaRejects(str(self.path)),
            receipts=Receipts(self.s3, "bucket"),
            publisher=self.publisher,
            clock=SystemClock(),
            dry_run=dry_run,
            again=again,
        ).run()


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def test_a_reject_is_sent_byte_for_byte_under_the_key_it_was_sent_under(world: World) -> None:
    world.reject(GOOD, BROKEN)
    assert world.redrive().redriven == 2
    assert world.publisher.sent == [(GOOD, '{"id":"a","n":0.00000010}'), (BROKEN, sha256(BROKEN).hexdigest())]


def test_running_it_twice_changes_nothing_even_where_the_job_rejected_it_once_more(world: World) -> None:
    world.reject(GOOD)
    world.redrive()
    world.reject(GOOD)
    before = (list(world.publisher.sent), dict(world.s3.objects))
    assert world.redrive().letters == 0
    assert (world.publisher.sent, world.s3.objects) == before
    assert world.redrive(again=True).redriven == 1


def test_a_dry_run_of_rejects_sends_and_marks_nothing(world: World) -> None:
    world.reject(GOOD, BROKEN)
    assert world.redrive(dry_run=True).redriven == 2
    assert not world.publisher.sent
    assert not world.s3.objects


def test_what_was_sent_before_the_stream_went_away_is_not_sent_again(world: World) -> None:
    lines = [b'{"key":{"id":"%d"}}' % number for number in range(1_200)]
    world.reject(*lines)
    world.publisher.calls_left = 2
    with pytest.raises(RedriveStoppedError, match="after 1000 rejects"):
        world.redrive()
    world.publisher.calls_left = 10
    world.redrive()
    assert [data for data, _ in world.publisher.sent] == lines


def test_a_reject_that_kinesis_refuses_stays_and_the_others_go(world: World) -> None:
    world.reject(GOOD, BROKEN)
    world.publisher.refuses = b"\xff\xfe"
    report = world.redrive()
    assert (report.redriven, report.stay) == (1, {"refused-by-kinesis": 1})
    assert len(world.s3.objects) == 1


def test_receipts_hold_no_item_data(world: World) -> None:
    world.reject(GOOD)
    world.redrive()
    ((name, body),) = world.s3.objects.items()
    assert name == f"redriven/rejects/{version('lakestream')}/{sha256(GOOD).hexdigest()}.json"
    assert set(json.loads(body)) == {"v", "sha256", "reason", "table", "redriven_ms"}


def test_without_a_table_of_rejects_there_is_nothing_to_do(world: World) -> None:
    assert world.redrive().letters == 0


@pytest.mark.parametrize("data", [b"", b"[]", b"null", b'{"key":7}', b'{"nokey":1}', b"\xff"])
def test_whatever_was_rejected_has_a_partition_key_that_kinesis_takes(data: bytes) -> None:
    assert 1 <= len(line_of(Reject("ab" * 32, "r", None, data)).partition_key) <= 256

"""The bridge's invocation on fakes: what it reports, sends and parks."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from bridge_lambda import handler as bridge_module
from bridge_lambda.envelope import Parked
from bridge_lambda.errors import ParkError
from bridge_lambda.handler import Bridge, process
from bridge_lambda.rules import HashKey, table_rules
from config.limits import KINESIS_RECORD_BYTES_MAX
from tests.support.kinesis_fakes import FaultyKinesis, ManualClock

ARN = "arn:aws:dynamodb:us-east-1:123456789012:table/things/stream/2026-03-01T12:30:45.678"
SECRET = "never-in-a-log"
BODY: dict[str, Any] = {
    "version": 1,
    "key": ["id"],
    "drop": [],
    "hash": [],
    "secret": None,
    "keep_old_image": True,
    "filter": {"path": ["region"], "equals": [["S", "eu"]]},
    "origin": None,
}


@dataclass
class FullBucket:
    """Takes objects until it is told not to."""

    objects: dict[str, Parked] = field(default_factory=dict)
    puts: int = 0
    refuses: bool = False

    def put(self, parked: Parked) -> None:
        self.puts += 1
        if self.refuses:
            raise ParkError(f"S3 did not take {parked.name}: AccessDenied", hint="mend S3 access")
        self.objects[parked.name] = parked

    def letters(self) -> list[dict[str, Any]]:
        return [json.loads(o.body) for name, o in sorted(self.objects.items()) if name.startswith("dead-letters/")]


class Rig:
    """A bridge on fakes, and what came of an invocation."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.kinesis = FaultyKinesis(self.clock)
        self.bucket = FullBucket()
        tables = {"things": table_rules("things", BODY, lambda name, version: HashKey("k", b""))}
        self.bridge = Bridge(tables, self.kinesis, self.bucket, "bucket", self.clock)

    def invoke(self, records: list[Any]) -> list[str]:
        """The item identifiers it reports."""
        answer = process({"Records": records}, self.bridge, self.clock.remaining_ms)
        return [str(failure["itemIdentifier"]) for failure in answer["batchItemFailures"]]

    def sent(self) -> list[int]:
        return [int(json.loads(landed.data)["seq"]) for landed in self.kinesis.acknowledged()]


@contextmanager
def fresh_rig() -> Iterator[Rig]:
    """With nothing counted before it, nor left to be counted after it."""
    bridge_module.metrics.clear_metrics()
    yield Rig()
    bridge_module.metrics.clear_metrics()


def change(number: int, region: str = "eu", **more: Any) -> dict[str, Any]:
    image = {"id": {"S": f"{SECRET}-{number % 3}"}, "region": {"S": region}, **more}
    return {
        "eventID": f"event-{number}",
        "eventName": "INSERT",
        "eventSource": "aws:dynamodb",
        "eventSourceARN": ARN,
        "dynamodb": {
            "ApproximateCreationDateTime": 1_789_999_990,
            "Keys": {"id": image["id"]},
            "NewImage": image,
            "SequenceNumber": str(number),
        },
    }


def poison(number: int) -> dict[str, Any]:
    return change(number, odd={"X": SECRET})


def oversized(number: int) -> dict[str, Any]:
    return change(number, big={"S": "x" * KINESIS_RECORD_BYTES_MAX})

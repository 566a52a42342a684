"""A delivery's stream, bucket and settings on the embedded stack, and what it delivered."""

import gzip
import json
from typing import Any

from tests.support.local_workers import Aws

BUCKET = "lake"
MIB = 1024 * 1024


def put(kinesis: Any, stream: str, numbers: range, size: int = 100) -> None:
    for start in range(numbers.start, numbers.stop, 500):
        batch = range(start, min(start + 500, numbers.stop))
        records = [{"Data": line(number, size), "PartitionKey": str(number)} for number in batch]
        assert kinesis.put_records(StreamName=stream, Records=records)["FailedRecordCount"] == 0


def line(number: int, size: int) -> bytes:
    return json.dumps({"n": number, "pad": "x" * size}).encode() + b"\n"


def delivered(aws: Aws, name: str) -> list[int]:
    """The numbers in all the objects, each as often as it is there."""
    return [number for numbers in by_object(aws, name).values() for number in numbers]


def by_object(aws: Aws, name: str) -> dict[str, list[int]]:
    return {
        key: [json.loads(each)["n"] for each in gzip.decompress(body).splitlines()]
        for key, body in aws.objects(BUCKET, f"{name}/").items()
    }

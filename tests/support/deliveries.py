"""A delivery's stream, bucket and settings on the embedded stack, and what it delivered."""

import gzip
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.support.local_workers import REGION, Aws, running_emulator

BUCKET = "lake"
MIB = 1024 * 1024


@contextmanager
def emulator_with_a_bucket(folder: Path) -> Iterator[Aws]:
    with running_emulator(folder) as running:
        running("s3").create_bucket(Bucket=BUCKET)
        yield running


def name_of(tmp_path: Path) -> str:
    """Of a test's stream, and its folder in the bucket."""
    return re.sub(r"\W", "-", tmp_path.name)


def delivery_settings(aws: Aws, name: str, tmp_path: Path) -> dict[str, Any]:
    return {
        "endpoint": aws.endpoint,
        "region": REGION,
        "stream": name,
        "bucket": BUCKET,
        "prefix": f"{name}/date=!{{timestamp:yyyy-MM-dd}}/hour=!{{timestamp:HH}}/",
        "error_prefix": f"{name}-errors/!{{firehose:error-output-type}}/",
        "buffer_s": 300,
        "buffer_bytes": MIB,
        "state_dir": str(tmp_path / "state"),
        "metrics_port": 0,
    }


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

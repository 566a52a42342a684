"""The delivery on the embedded stack: what Firehose promises, and each record in exactly one object across kills."""

import gzip
import json
import random
import re
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.deliveries import (
    BUCKET,
    MIB,
    by_object,
    delivered,
    put,
)
from tests.support.local_workers import Aws, Worker, Workers, until

pytestmark = pytest.mark.stack

Begin = Callable[..., Worker]


@pytest.fixture
def begin(settings: dict[str, Any], tmp_path: Path) -> Iterator[Begin]:
    workers = Workers(tmp_path)
    yield lambda **knobs: workers("delivery", settings | knobs)
    workers.end()


def test_a_full_buffer_is_written_without_waiting_and_objects_have_its_size(aws: Aws, name: str, begin: Begin) -> None:
    aws.stream(name, shards=2)
    put(aws("kinesis"), name, range(5000), size=1000)
    delivery = begin()
    delivery.logged("delivered", 4)
    sizes = [event["bytes"] for event in delivery.events("delivered")]
    assert all(MIB <= size < MIB + 1100 for size in sizes)
    assert delivery.stop() == 0
    assert Counter(delivered(aws, name)) == Counter(range(5000)), "the rest was flushed at the end"
    pattern = re.compile(
        rf"{name}/date=\d{{4}}-\d\d-\d\d/hour=\d\d/lakestream-archive-1(-\d+){{6}}-[0-9a-f-]{{36}}\.gz"
    )
    assert all(pattern.fullmatch(key) for key in by_object(aws, name))


def test_a_buffer_that_does_not_fill_is_written_when_its_time_is_over(aws: Aws, name: str, begin: Begin) -> None:
    aws.stream(name)
    delivery = begin(buffer_s=1)
    delivery.logged("shard_begun")
    put(aws("kinesis"), name, range(10))
    delivery.logged("delivered")
    assert delivered(aws, name) == list(range(10))
    metrics = delivery.metrics()
    assert "lakestream_delivery_records_total 10.0" in metrics
    assert "lakestream_delivery_objects_total 1.0" in metrics
    assert delivery.stop() == 0
    assert len(by_object(aws, name)) == 1, "an empty buffer writes nothing"


def test_sigterm_flushes_and_the_next_start_goes_on(aws: Aws, name: str, begin: Begin) -> None:
    aws.stream(name)
    put(aws("kinesis"), name, range(10))
    first = begin()
    first.logged("shard_begun")
    assert first.stop() == 0
    assert delivered(aws, name) == list(range(10))
    put(aws("kinesis"), name, range(10, 20))
    second = begin()
    second.logged("shard_begun")
    assert second.stop() == 0
    assert sorted(delivered(aws, name)) == list(range(20))


def test_what_is_not_one_line_goes_to_the_error_prefix_and_the_rest_is_unharmed(
    aws: Aws, name: str, begin: Begin
) -> None:
    aws.stream(name)
    kinesis = aws("kinesis")
    put(kinesis, name, range(3))
    kinesis.put_record(StreamName=name, Data=b'{"n":1}\n{"n":2}\n', PartitionKey="k")
    kinesis.put_record(StreamName=name, Data=b'{"n":3}', PartitionKey="k")
    delivery = begin(buffer_s=1)
    delivery.logged("delivered")
    assert delivery.stop() == 0
    assert delivered(aws, name) == [0, 1, 2, 3]
    ((key, body),) = aws.objects(BUCKET, f"{name}-errors/").items()
    assert key.startswith(f"{name}-errors/processing-failed/")
    assert json.loads(gzip.decompress(body))["errorMessage"] == "the record holds more than one line"


class Writer(threading.Thread):
    """Writes to the stream, number after number, until told to end."""

    def __init__(self, kinesis: Any, stream: str) -> None:
        super().__init__()
        self._kinesis = kinesis
        self._stream = stream
        self._ended = threading.Event()
        self.written = 0

    def run(self) -> None:
        while not self._ended.wait(0.05):
            put(self._kinesis, self._stream, range(self.written, self.written + 100), size=1000)
            self.written += 100

    def end(self) -> int:
        self._ended.set()
        self.join()
        return self.written


def test_records_are_in_exactly_one_object_however_often_the_delivery_is_killed(
    aws: Aws, name: str, begin: Begin
) -> None:
    """Killed at random moments while it is written to, with a buffer so short that it always delivers."""
    aws.stream(name, shards=3)
    rng = random.Random(11)
    writer = Writer(aws("kinesis"), name)
    writer.start()
    try:
        for _ in range(5):
            delivery = begin(buffer_s=0)
            delivery.logged("delivered", rng.randint(1, 2))
            threading.Event().wait(rng.random())  # anywhere between this delivery and the next, or within it
            delivery.kill()
    finally:
        total = writer.end()
    delivery = begin(buffer_s=0)
    until(lambda: len(set(delivered(aws, name))) == total, "all is delivered")
    assert delivery.stop() == 0
    assert Counter(delivered(aws, name)) == Counter(range(total))


@pytest.mark.parametrize(
    ("wrong", "code", "said"),
    [
        ({"prefix": "a/!{timestamp:YYYY}/"}, 2, "yyyy"),
        ({"error_prefix": None}, 2, "error_prefix is needed"),
        ({"buffer_s": 901}, 2, "buffer_s: input should be less than or equal to 900"),
        ({"colour": "red"}, 2, "colour: unknown key"),
        ({"bucket": "no-such-bucket"}, 1, "the bucket 'no-such-bucket' cannot be used"),
        ({"stream": "no-such-stream"}, 4, "there is no stream 'no-such-stream'"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else None,
)
def test_a_delivery_that_cannot_be_says_why_in_one_line(
    begin: Begin, wrong: dict[str, Any], code: int, said: str
) -> None:
    delivery = begin(**wrong)
    assert delivery.wait() == code
    assert said in delivery.stderr
    assert len(delivery.stderr.splitlines()) == 1

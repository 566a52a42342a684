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
from botocore.exceptions import ClientError

from infra.local import worker
from infra.local.delivery.metrics import Metrics
from infra.local.delivery.objects import Bucket, NotDeliveredError
from infra.local.delivery.positions import Positions
from infra.local.delivery.run import Delivery, open_positions
from infra.local.delivery.settings import DeliverySettings
from infra.local.delivery.source import KinesisStream
from tests.faults.kinesis_servers import kinesis_local
from tests.support.local_workers import REGION, Aws, Worker, Workers, running_emulator, until

pytestmark = pytest.mark.stack

BUCKET = "lake"
MIB = 1024 * 1024
Begin = Callable[..., Worker]


@pytest.fixture(scope="module")
def aws(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Aws]:
    with running_emulator(tmp_path_factory.mktemp("emulator")) as running:
        running("s3").create_bucket(Bucket=BUCKET)
        yield running


@pytest.fixture
def name(tmp_path: Path) -> str:
    """Of the test's stream, and its folder in the bucket."""
    return re.sub(r"\W", "-", tmp_path.name)


@pytest.fixture
def settings(aws: Aws, name: str, tmp_path: Path) -> dict[str, Any]:
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


@pytest.fixture
def begin(settings: dict[str, Any], tmp_path: Path) -> Iterator[Begin]:
    workers = Workers(tmp_path)
    yield lambda **knobs: workers("delivery", settings | knobs)
    workers.end()


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


# --- as a process -----------------------------------------------------------------------------------------------------


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


# --- its steps, with faults between them ------------------------------------------------------------------------------


class CrashError(Exception):
    """The process dies here."""


class CrashBeforePut(Bucket):
    def put(self, key: str, lines: bytes) -> None:
        raise CrashError


class CrashAfterPut(Bucket):
    def put(self, key: str, lines: bytes) -> None:
        super().put(key, lines)
        raise CrashError


class Refusing:
    """An S3 client that refuses puts as often as told."""

    def __init__(self, client: Any, refusals: int) -> None:
        self._client = client
        self.refusals = refusals

    def put_object(self, **request: Any) -> Any:
        if self.refusals:
            self.refusals -= 1
            response: Any = {"Error": {"Code": "SlowDown", "Message": "reduce your request rate"}}
            raise ClientError(response, "PutObject")
        return self._client.put_object(**request)


class Parts:
    """A delivery in this process, made of the real parts, some of them replaced."""

    def __init__(
        self, aws: Aws, settings: dict[str, Any], *, kind: type[Bucket] = Bucket, s3: Any = None, kinesis: Any = None
    ) -> None:
        self.stop = threading.Event()
        self.metrics = Metrics()
        self.failure: Exception | None = None
        checked = DeliverySettings.model_validate(settings)
        log = worker.Log("delivery")
        source = KinesisStream(kinesis or aws("kinesis"), checked.stream)
        checked.state_dir.mkdir(exist_ok=True)
        self.positions = Positions(checked.state_dir, checked.stream)
        open_positions(self.positions, source, checked, log, self.stop)
        self.delivery = Delivery(
            checked,
            source=source,
            bucket=kind(s3 or aws("s3"), BUCKET, metrics=self.metrics, log=log, stop=self.stop),
            positions=self.positions,
            metrics=self.metrics,
            log=log,
            stop=self.stop,
        )
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        try:
            self.delivery.run()
        except Exception as error:  # noqa: BLE001 - the test looks at it
            self.failure = error

    def ended(self) -> Exception | None:
        self._thread.join(60)
        assert not self._thread.is_alive()
        return self.failure

    def end(self) -> None:
        self.stop.set()
        assert self.ended() is None

    def drain(self) -> None:
        """Ends it once it reads; what is at hand by then is delivered."""
        until(lambda: self.polled or self.failure, "the stream is polled")
        self.end()

    @property
    def polled(self) -> bool:
        return bool(next(iter(self.metrics.behind_ms.collect())).samples)


@pytest.mark.parametrize("kind", [CrashBeforePut, CrashAfterPut])
def test_a_delivery_that_was_cut_short_is_repeated_under_the_same_name(
    aws: Aws, name: str, settings: dict[str, Any], kind: type[Bucket]
) -> None:
    aws.stream(name, shards=2)
    put(aws("kinesis"), name, range(50))
    crashed = Parts(aws, settings | {"buffer_s": 0}, kind=kind)
    assert isinstance(crashed.ended(), CrashError)
    plan = Positions(Path(settings["state_dir"]), name).plan
    assert plan is not None
    put(aws("kinesis"), name, range(50, 80))
    Parts(aws, settings).drain()
    objects = by_object(aws, name)
    assert set(objects[plan["key"]]) <= set(range(50)), "the new records are in an object of their own"
    assert Counter(delivered(aws, name)) == Counter(range(80))


def test_a_refused_put_is_tried_again_until_it_is_taken(aws: Aws, name: str, settings: dict[str, Any]) -> None:
    aws.stream(name)
    put(aws("kinesis"), name, range(10))
    running = Parts(aws, settings | {"buffer_s": 0}, s3=Refusing(aws("s3"), 2))
    until(lambda: delivered(aws, name) == list(range(10)), "it is delivered")
    assert running.metrics.registry.get_sample_value("lakestream_delivery_put_failures_total") == 2
    running.end()


def test_a_stop_while_s3_refuses_says_so_and_the_next_start_delivers(
    aws: Aws, name: str, settings: dict[str, Any]
) -> None:
    aws.stream(name)
    put(aws("kinesis"), name, range(10))
    running = Parts(aws, settings | {"buffer_s": 0}, s3=Refusing(aws("s3"), 1_000_000))
    until(lambda: running.metrics.registry.get_sample_value("lakestream_delivery_put_failures_total"), "it is refused")
    running.stop.set()
    assert isinstance(running.ended(), NotDeliveredError)
    Parts(aws, settings).drain()
    assert delivered(aws, name) == list(range(10))


def test_a_stream_made_anew_under_the_same_name_is_read_whole(aws: Aws, name: str, settings: dict[str, Any]) -> None:
    kinesis = aws("kinesis")
    aws.stream(name)
    put(kinesis, name, range(10))
    Parts(aws, settings).drain()
    created = kinesis.describe_stream_summary(StreamName=name)["StreamDescriptionSummary"]["StreamCreationTimestamp"]
    kinesis.delete_stream(StreamName=name)
    until(lambda: name not in kinesis.list_streams()["StreamNames"], "the stream is gone")

    def made_later() -> bool:
        aws.stream(name)
        again = kinesis.describe_stream_summary(StreamName=name)["StreamDescriptionSummary"]
        if again["StreamCreationTimestamp"] != created:
            return True
        kinesis.delete_stream(StreamName=name)
        return False

    until(made_later, "the emulator's clock of whole seconds moved on")
    put(kinesis, name, range(10, 20))
    Parts(aws, settings).drain()
    assert sorted(delivered(aws, name)) == list(range(20))


def test_latest_leaves_out_what_was_there(aws: Aws, name: str, settings: dict[str, Any]) -> None:
    aws.stream(name)
    put(aws("kinesis"), name, range(10))
    running = Parts(aws, settings | {"starting_position": "LATEST", "buffer_s": 0})
    until(lambda: running.polled, "the stream is polled")
    put(aws("kinesis"), name, range(10, 20))
    until(lambda: delivered(aws, name) == list(range(10, 20)), "the new records are delivered")
    running.end()


@pytest.mark.node
def test_resharding_loses_nothing(aws: Aws, name: str, settings: dict[str, Any], tmp_path: Path) -> None:
    """Split and merged while it is written to; an emulator of its own keeps the closed shards."""
    with kinesis_local(tmp_path) as endpoint:
        kinesis = Aws(endpoint)("kinesis")
        kinesis.create_stream(StreamName=name, ShardCount=2)
        active(kinesis, name)
        running = Parts(aws, settings | {"buffer_s": 0}, kinesis=kinesis)
        put(kinesis, name, range(100))
        for turn, shards in enumerate((4, 2)):
            kinesis.update_shard_count(StreamName=name, TargetShardCount=shards, ScalingType="UNIFORM_SCALING")
            active(kinesis, name)
            put(kinesis, name, range(100 + turn * 100, 200 + turn * 100))
        until(lambda: len(delivered(aws, name)) >= 300, "all is delivered")
        running.end()
        assert Counter(delivered(aws, name)) == Counter(range(300))
        closed = {
            shard["ShardId"]
            for shard in kinesis.list_shards(StreamName=name)["Shards"]
            if "EndingSequenceNumber" in shard["SequenceNumberRange"]
        }
        assert closed <= running.positions.finished


def active(kinesis: Any, name: str) -> None:
    until(
        lambda: (
            kinesis.describe_stream_summary(StreamName=name)["StreamDescriptionSummary"]["StreamStatus"] == "ACTIVE"
        ),
        "the stream is active",
    )

"""The steps of a delivery in this process, with faults between them."""

import threading
from collections import Counter
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
from tests.support.deliveries import (
    BUCKET,
    by_object,
    delivered,
    put,
)
from tests.support.local_workers import Aws, until

pytestmark = pytest.mark.stack


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

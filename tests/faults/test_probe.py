"""The probe as it is started, on emulators: a real Kinesis Client Library, its Java and its leases.

LAKESTREAM_PROBE_FAULTS=1 also splits a shard and kills workers under way, which takes a minute and a half.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from infra.local import kcl
from infra.local.jars import locked, wrong
from streaming_job.latency.dashboard.scrape import Samples, fetch, parse
from tests.faults.kinesis_servers import (
    CREDENTIALS,
    REGION,
    ROOT,
    client,
    free_port,
    kinesis_local,
    served_ministack,
    until,
)

pytestmark = [
    pytest.mark.stack,
    pytest.mark.skipif(bool(wrong(kcl.FOLDER, locked(kcl.LOCK))), reason="the probe's library: make setup-probe"),
]
STARTS_WITHIN_S = 120


@pytest.fixture(scope="module")
def emulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with served_ministack(tmp_path_factory.mktemp("probe"), "kinesis,dynamodb,sts") as endpoint:
        yield endpoint


@contextmanager
def running(tmp_path: Path, endpoint: str, stream: str, *options: str) -> Iterator[tuple[Callable[[], Samples], Any]]:
    config, port = tmp_path / "job.yaml", free_port()
    settings = {
        "aws": {"region": REGION, "endpoint": endpoint},
        "source": {"stream": stream},
        "lake": {"root": str(tmp_path), "checkpoint": str(tmp_path)},
        "tables": ["t"],
    }
    config.write_text(yaml.safe_dump(settings), encoding="utf-8")
    command = [str(Path(sys.executable).with_name("lakestream")), "probe", "--config", str(config), "--json"]
    with (tmp_path / "probe.log").open("ab") as log:
        process = subprocess.Popen(
            [*command, "--start", "trim_horizon", "--metrics-port", str(port), *options],
            env={**os.environ, **CREDENTIALS},
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=log,
            start_new_session=True,
        )

    def metrics() -> Samples:
        try:
            return parse(fetch(f"http://127.0.0.1:{port}/metrics", 3))
        except OSError:
            return Samples()

    try:
        yield metrics, process
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(30)


def put(endpoint: str, stream: str, first: int, count: int) -> None:
    """Envelopes of as many keys; the gen and seq of each say its number."""
    kinesis = client(endpoint)
    for number in range(first, first + count):
        fields = {"table": "t", "op": "INSERT", "gen": "1" * 17, "seq": f"{number:040d}", "key": {"id": number % 40}}
        line = json.dumps({**fields, "bridge_out_ms": int(time.time() * 1000)}).encode() + b"\n"
        kinesis.put_record(StreamName=stream, Data=line, PartitionKey=str(number % 40))


def test_records_are_seen_once_in_order_and_measured_and_the_end_is_clean(emulator: str, tmp_path: Path) -> None:
    client(emulator).create_stream(StreamName="plain", ShardCount=2)
    put(emulator, "plain", 0, 100)
    put(emulator, "plain", 99, 1)
    put(emulator, "plain", 40, 1)
    client(emulator).put_record(StreamName="plain", Data=b"no envelope", PartitionKey="x")
    with running(tmp_path, emulator, "plain") as (metrics, process):
        until(
            lambda: metrics().total("lakestream_probe_records_total") == 103,
            f"all records; see {tmp_path / 'probe.log'}",
            timeout_s=STARTS_WITHIN_S,
        )
        process.send_signal(signal.SIGTERM)
        found = json.loads(process.communicate(timeout=60)[0])
    assert process.returncode == 0
    assert (found["duplicates"], found["older_after_newer"], found["foreign"]) == (1, 1, 1)
    assert found["hops"]["t/bridge_to_stream"]["changes"] == 102
    assert found["gaps"] is None, "nobody told what the bridge sent"


@pytest.mark.node
@pytest.mark.skipif(
    "LAKESTREAM_PROBE_FAULTS" not in os.environ, reason="a minute and a half; LAKESTREAM_PROBE_FAULTS=1"
)
@pytest.mark.timeout(600)
def test_two_workers_share_the_shards_through_a_split_and_kills_and_each_record_counts_once(
    emulator: str, tmp_path: Path
) -> None:
    """kinesis-local reshards, ministack keeps the leases. One worker's daemon is killed, then the whole probe."""
    with kinesis_local(tmp_path) as resharding:
        kinesis = client(resharding)
        kinesis.create_stream(StreamName="split", ShardCount=2)
        until(
            lambda: (
                kinesis.describe_stream_summary(StreamName="split")["StreamDescriptionSummary"]["StreamStatus"]
                == "ACTIVE"
            ),
            "the stream",
        )
        put(resharding, "split", 0, 100)
        options = ("--workers", "2", "--leases-endpoint", emulator)
        with running(tmp_path, resharding, "split", *options) as (metrics, process):

            def counted(number: int) -> bool:
                return metrics().total("lakestream_probe_records_total") == number

            until(lambda: counted(100), "the first records", timeout_s=STARTS_WITHIN_S)
            kinesis.split_shard(StreamName="split", ShardToSplit="shardId-000000000000", NewStartingHashKey=str(2**125))
            put(resharding, "split", 100, 100)
            until(lambda: counted(200), "the children's records", timeout_s=STARTS_WITHIN_S)
            daemon = next(c for c in psutil.Process(process.pid).children() if "java" in c.name())
            daemon.kill()
            put(resharding, "split", 200, 100)
            until(lambda: counted(300), "what came after the kill", timeout_s=STARTS_WITHIN_S)
            found = metrics()
            assert found.total("lakestream_probe_worker_starts_total") == 3
            assert found.total("lakestream_probe_older_after_newer_total") == 0
            assert found.total("lakestream_probe_duplicates_total") == 0
            assert found.total("lakestream_probe_breaks_total") == 0
            os.killpg(process.pid, signal.SIGKILL)
        put(resharding, "split", 300, 50)
        with running(tmp_path, resharding, "split", *options) as (metrics, _):
            until(
                lambda: (metrics().total("lakestream_probe_records_total") or 0) >= 50,
                "from the leases' checkpoints on",
                timeout_s=STARTS_WITHIN_S,
            )
            assert metrics().total("lakestream_probe_older_after_newer_total") == 0

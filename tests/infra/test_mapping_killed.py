"""The mapping killed in the middle of 10,000 changes, with the real bridge behind it: none lost, newest last."""

import json
import shutil
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.local_workers import REGION, Aws, Workers, running_emulator, until

pytestmark = pytest.mark.stack

TABLES = Path(__file__).parents[2] / "config" / "tables"
TABLE = "chargeminder-car-telemetry"
STREAM = "changes"
BUCKET = "lake"
KEYS = 400
ROUNDS = 25
KILLS = {"before": [4, 41], "after": [17, 63]}
"""Batches in which the mapping is killed: before anything of them is sent, or when all is and nobody knows."""


@pytest.fixture
def aws(tmp_path: Path) -> Iterator[Aws]:
    with running_emulator(tmp_path) as running:
        yield running


def write_rounds(aws: Aws, failures: list[Exception]) -> None:
    """Every key once a round; in the last round each tenth key is deleted."""
    dynamodb = aws("dynamodb")
    keys = [f"event-{number}" for number in range(KEYS)]
    try:
        for turn in range(ROUNDS):
            for start in range(0, KEYS, 25):
                dynamodb.batch_write_item(
                    RequestItems={TABLE: [request(key, turn) for key in keys[start : start + 25]]}
                )
    except Exception as error:  # noqa: BLE001 - the test fails with it
        failures.append(error)


def request(key: str, turn: int) -> dict[str, Any]:
    if turn == ROUNDS - 1 and key.endswith("0"):
        return {"DeleteRequest": {"Key": {"event_id": {"S": key}}}}
    item = {"event_id": {"S": key}, "turn": {"N": str(turn)}, "meta": {"M": {"deliveredAt": {"N": str(turn)}}}}
    return {"PutRequest": {"Item": item}}


class Arrived:
    """What is in the Kinesis stream, read on from look to look; each shard in its order."""

    def __init__(self, aws: Aws) -> None:
        self._kinesis = aws("kinesis")
        shards = self._kinesis.list_shards(StreamName=STREAM)["Shards"]
        self._iterators = [
            self._kinesis.get_shard_iterator(
                StreamName=STREAM, ShardId=shard["ShardId"], ShardIteratorType="TRIM_HORIZON"
            )["ShardIterator"]
            for shard in shards
        ]
        self.envelopes: list[dict[str, Any]] = []

    def look(self) -> set[tuple[str, str]]:
        """Every change that has arrived, by key and sequence number."""
        for index, iterator in enumerate(self._iterators):
            answer = self._kinesis.get_records(ShardIterator=iterator, Limit=10_000)
            self.envelopes += [json.loads(record["Data"]) for record in answer["Records"]]
            self._iterators[index] = answer["NextShardIterator"]
        return {(envelope["key"]["event_id"], envelope["seq"]) for envelope in self.envelopes}


def changes_of(aws: Aws, arn: str) -> Counter[str]:
    """Changes by key, counted in the table's own stream."""
    streams = aws("dynamodbstreams")
    (shard,) = streams.describe_stream(StreamArn=arn)["StreamDescription"]["Shards"]
    iterator = streams.get_shard_iterator(StreamArn=arn, ShardId=shard["ShardId"], ShardIteratorType="TRIM_HORIZON")[
        "ShardIterator"
    ]
    found: Counter[str] = Counter()
    while records := (answer := streams.get_records(ShardIterator=iterator))["Records"]:
        found.update(record["dynamodb"]["Keys"]["event_id"]["S"] for record in records)
        iterator = answer["NextShardIterator"]
    return found


@pytest.fixture
def arn(aws: Aws) -> str:
    """Bucket, stream and table; the table's stream."""
    aws("s3").create_bucket(Bucket=BUCKET)
    aws.stream(STREAM, shards=2)
    table = aws("dynamodb").create_table(
        TableName=TABLE,
        KeySchema=[{"AttributeName": "event_id", "KeyType": "HASH"}],
        AttributeDefinitions=[{"AttributeName": "event_id", "AttributeType": "S"}],
        BillingMode="PAY_PER_REQUEST",
        StreamSpecification={"StreamEnabled": True, "StreamViewType": "NEW_AND_OLD_IMAGES"},
    )
    return str(table["TableDescription"]["LatestStreamArn"])


def settings_for(aws: Aws, arn: str, folder: Path) -> dict[str, Any]:
    rules, tables = folder / "rules.json", folder / "tables"
    tables.mkdir()
    for file in TABLES.glob(f"{TABLE}.*"):
        shutil.copy(file, tables)
    command = [sys.executable, "-m", "config.rules", str(rules), "--tables", str(tables)]
    subprocess.run(command, check=True, capture_output=True)
    env = {
        "LAKESTREAM_STREAM": STREAM,
        "LAKESTREAM_BUCKET": BUCKET,
        "LAKESTREAM_RULES": str(rules),
        "POWERTOOLS_TRACE_DISABLED": "true",
        "SEEN": str(folder / "seen"),
        "KILLS": json.dumps(KILLS),
    }
    return {
        "endpoint": aws.endpoint,
        "region": REGION,
        "table": TABLE,
        "stream_arn": arn,
        "state_dir": str(folder / "state"),
        "function": {"handler": "tests.support.deadly_bridge.handler", "env": env, "timeout_s": 60},
        "batch_size": 100,
        "bisect": True,
        "report_failures": True,
    }


def run_and_kill(aws: Aws, arrived: Arrived, settings: dict[str, Any], folder: Path) -> int:
    """Started again as often as it is killed, while the table is written to. Returns how often that was."""
    workers = Workers(folder)
    failures: list[Exception] = []
    writer = threading.Thread(target=write_rounds, args=(aws, failures))
    writer.start()
    mapping = workers("mapping", settings)
    kills = 0

    def everything_arrived() -> bool:
        nonlocal mapping, kills
        if mapping.process.poll() == -signal.SIGKILL:
            kills += 1
            mapping = workers("mapping", settings)
        return len(arrived.look()) >= KEYS * ROUNDS

    try:
        until(everything_arrived, "every change is in Kinesis", within_s=120)
        assert failures == []
        assert mapping.stop() == 0
    finally:
        writer.join()
        workers.end()
    return kills


@pytest.mark.parametrize("parallelization", [1, 3])
def test_a_mapping_killed_among_10000_changes_loses_none_and_leaves_each_keys_newest_last(
    aws: Aws, arn: str, tmp_path: Path, parallelization: int
) -> None:
    settings = settings_for(aws, arn, tmp_path) | {"parallelization": parallelization}
    arrived = Arrived(aws)
    kills = run_and_kill(aws, arrived, settings, tmp_path)
    assert kills == len(KILLS["before"]) + len(KILLS["after"])
    expected = changes_of(aws, arn)
    assert sum(expected.values()) == KEYS * ROUNDS

    distinct = arrived.look()
    assert Counter(key for key, _ in distinct) == expected
    newest: dict[str, str] = {}
    for key, seq in distinct:
        newest[key] = max(seq, newest.get(key, ""))
    last = {envelope["key"]["event_id"]: envelope for envelope in arrived.envelopes}
    assert {key: envelope["seq"] for key, envelope in last.items()} == newest
    for key, envelope in last.items():
        assert envelope["op"] == ("REMOVE" if key.endswith("0") else "MODIFY")
        assert envelope["new"] is None or envelope["new"]["turn"] == ROUNDS - 1
    assert aws.objects(BUCKET) == {}, "no dead letters"

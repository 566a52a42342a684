"""The mapping killed in the middle of 10,000 changes, with the real bridge behind it: none lost, newest last."""

import json
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.support.local_workers import REGION, Aws, Workers, running_emulator, until

pytestmark = pytest.mark.stack

TABLE = "chargeminder-car-telemetry"
STREAM = "changes"
BUCKET = "lake"
KEYS = 400
ROUNDS = 25
KILLS = 4


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


def envelopes(aws: Aws) -> list[dict[str, Any]]:
    """All that is in the stream; each shard in its order."""
    kinesis = aws("kinesis")
    found: list[dict[str, Any]] = []
    for shard in kinesis.list_shards(StreamName=STREAM)["Shards"]:
        iterator = kinesis.get_shard_iterator(
            StreamName=STREAM, ShardId=shard["ShardId"], ShardIteratorType="TRIM_HORIZON"
        )["ShardIterator"]
        while True:
            answer = kinesis.get_records(ShardIterator=iterator, Limit=10_000)
            found += [json.loads(record["Data"]) for record in answer["Records"]]
            iterator = answer["NextShardIterator"]
            if not answer["Records"] and not answer["MillisBehindLatest"]:
                break
    return found


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
    rules = folder / "rules.json"
    subprocess.run([sys.executable, "-m", "config.rules", str(rules)], check=True, capture_output=True)
    env = {
        "LAKESTREAM_STREAM": STREAM,
        "LAKESTREAM_BUCKET": BUCKET,
        "LAKESTREAM_RULES": str(rules),
        "POWERTOOLS_TRACE_DISABLED": "true",
        "SEEN": str(folder / "seen"),
    }
    return {
        "endpoint": aws.endpoint,
        "region": REGION,
        "table": TABLE,
        "stream_arn": arn,
        "state_dir": str(folder / "state"),
        "function": {"handler": "tests.support.counted_bridge.handler", "env": env, "timeout_s": 60},
        "batch_size": 100,
        "bisect": True,
        "report_failures": True,
    }


def run_and_kill(aws: Aws, settings: dict[str, Any], folder: Path) -> None:
    """Killed again and again while the table is written to; the last start runs to the end."""
    seen = folder / "seen"
    workers = Workers(folder)
    failures: list[Exception] = []
    writer = threading.Thread(target=write_rounds, args=(aws, failures))
    writer.start()

    def batches() -> int:
        return len(seen.read_text().splitlines()) if seen.exists() else 0

    try:
        for _ in range(KILLS):
            enough = batches() + 10
            mapping = workers("mapping", settings)
            until(partial(lambda enough: batches() >= enough, enough), "it is in the middle of its work")
            mapping.kill()
        mapping = workers("mapping", settings)
        writer.join()
        assert failures == []
        until(lambda: len(distinct(envelopes(aws))) >= KEYS * ROUNDS, "every change is in Kinesis")
        assert mapping.stop() == 0
    finally:
        writer.join()
        workers.end()


def distinct(arrived: list[dict[str, Any]]) -> set[tuple[str, str]]:
    return {(envelope["key"]["event_id"], envelope["seq"]) for envelope in arrived}


@pytest.mark.parametrize("parallelization", [1, 3])
def test_a_mapping_killed_among_10000_changes_loses_none_and_leaves_each_keys_newest_last(
    aws: Aws, arn: str, tmp_path: Path, parallelization: int
) -> None:
    run_and_kill(aws, settings_for(aws, arn, tmp_path) | {"parallelization": parallelization}, tmp_path)
    expected = changes_of(aws, arn)
    assert sum(expected.values()) == KEYS * ROUNDS

    arrived = envelopes(aws)
    assert Counter(key for key, _ in distinct(arrived)) == expected
    newest: dict[str, str] = {}
    for key, seq in distinct(arrived):
        newest[key] = max(seq, newest.get(key, ""))
    last = {envelope["key"]["event_id"]: envelope for envelope in arrived}
    assert {key: envelope["seq"] for key, envelope in last.items()} == newest
    for key, envelope in last.items():
        assert envelope["op"] == ("REMOVE" if key.endswith("0") else "MODIFY")
        assert envelope["new"] is None or envelope["new"]["turn"] == ROUNDS - 1
    assert aws.objects(BUCKET) == {}, "no dead letters"

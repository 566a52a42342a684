"""What one event costs on this machine at the very least: `python -m tests.bench.bench_floor`.

PutItem, the table's stream, PutRecords, GetRecords and one Delta append, one after the other by bare clients against
the emulator, nothing waiting for anything: the floor under any freshness that is measured here.
"""

import argparse
import json
import statistics
import subprocess
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import boto3
import pyarrow as pa
from botocore.exceptions import BotoCoreError, ClientError
from deltalake import DeltaTable, write_deltalake

from infra.local import emulator
from infra.local.ports import free_ports
from tests.bench.rig import ROOT, wait_until

_REGION = "us-east-1"


def run(events: int) -> dict[str, Any]:
    (port,) = free_ports(1)
    with TemporaryDirectory(prefix="lakestream-bench-") as folder:
        process = subprocess.Popen(
            [ROOT / ".venv-stack" / "bin" / "ministack"],
            env=emulator.environment(port, Path(folder), _REGION),
            cwd=folder,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            found = _measured(emulator.endpoint_of(port), Path(folder) / "table", events)
        finally:
            process.terminate()
            process.wait(30)
    for name, ms in found.items():
        print(f"{name:<12} {ms:>7.1f} ms")
    return found


def _measured(endpoint: str, table: Path, events: int) -> dict[str, Any]:
    def client(name: Any) -> Any:
        return boto3.client(
            name, endpoint_url=endpoint, region_name=_REGION, aws_access_key_id="local", aws_secret_access_key="local"
        )

    items, streams, kinesis = client("dynamodb"), client("dynamodbstreams"), client("kinesis")

    def answers() -> bool:
        try:
            kinesis.list_streams()
        except (BotoCoreError, ClientError):
            return False
        return True

    wait_until(answers, within_s=30, what="the emulator answers")
    made = items.create_table(
        TableName="floor",
        KeySchema=[{"AttributeName": "id", "KeyType": "HASH"}],
        AttributeDefinitions=[{"AttributeName": "id", "AttributeType": "S"}],
        BillingMode="PAY_PER_REQUEST",
        StreamSpecification={"StreamEnabled": True, "StreamViewType": "NEW_AND_OLD_IMAGES"},
    )["TableDescription"]
    kinesis.create_stream(StreamName="floor", ShardCount=1)
    kinesis.get_waiter("stream_exists").wait(StreamName="floor", WaiterConfig={"Delay": 1})
    shard = streams.describe_stream(StreamArn=made["LatestStreamArn"])["StreamDescription"]["Shards"][0]["ShardId"]
    changes = streams.get_shard_iterator(
        StreamArn=made["LatestStreamArn"], ShardId=shard, ShardIteratorType="TRIM_HORIZON"
    )["ShardIterator"]
    place = kinesis.list_shards(StreamName="floor")["Shards"][0]["ShardId"]
    records = kinesis.get_shard_iterator(StreamName="floor", ShardId=place, ShardIteratorType="TRIM_HORIZON")[
        "ShardIterator"
    ]
    write_deltalake(str(table), pa.table({"id": ["0"], "text": [""]}))
    lake, spent = DeltaTable(str(table)), dict[str, list[float]]()
    for number in range(events):
        watch = _Laps(spent)
        items.put_item(TableName="floor", Item={"id": {"S": str(number)}, "text": {"S": "x" * 4_000}})
        watch.lap("PutItem")
        got = streams.get_records(ShardIterator=changes)
        changes = got["NextShardIterator"]
        watch.lap("stream")
        data = json.dumps(got["Records"][-1]["dynamodb"], default=str).encode()
        kinesis.put_records(StreamName="floor", Records=[{"Data": data, "PartitionKey": "k"}])
        watch.lap("PutRecords")
        answer = kinesis.get_records(ShardIterator=records)
        records = answer["NextShardIterator"]
        watch.lap("GetRecords")
        text = answer["Records"][-1]["Data"].decode()
        write_deltalake(lake, pa.table({"id": [str(number)], "text": [text]}), mode="append")
        watch.lap("append")
    found = {name: round(statistics.median(laps), 1) for name, laps in spent.items()}
    return {**found, "in all": round(sum(found.values()), 1)}


class _Laps:
    def __init__(self, spent: dict[str, list[float]]) -> None:
        self._spent = spent
        self._at = time.perf_counter()

    def lap(self, name: str) -> None:
        now = time.perf_counter()
        self._spent.setdefault(name, []).append((now - self._at) * 1000)
        self._at = now


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=100)
    run(parser.parse_args().events)


if __name__ == "__main__":
    main()

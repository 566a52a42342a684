"""`redrive` and `archive query` as a person calls them, against the emulator, with the local delivery in between."""

import json
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import yaml
from deltalake import write_deltalake
from local_workers import REGION, Aws, Workers, running_emulator, until
from typer.testing import CliRunner

from bridge_lambda.dead_letters import S3Store, dead_letter
from bridge_lambda.errors import PoisonRecordError
from config.errors import LakestreamError
from streaming_job.cli import app

pytestmark = pytest.mark.stack

BUCKET = "redriven-and-asked"
STREAM = "redriven"
TABLE = "chargeminder-car-telemetry"
EXACT = "12345678901234567890.123456789012345678"
RECORDS = 25


@pytest.fixture(scope="module")
def aws(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Aws]:
    with running_emulator(tmp_path_factory.mktemp("emulator")) as running:
        running("s3").create_bucket(Bucket=BUCKET)
        running.stream(STREAM)
        yield running


@pytest.fixture
def config(aws: Aws, tmp_path: Path) -> Path:
    settings = {
        "aws": {"region": REGION, "endpoint": aws.endpoint},
        "source": {"stream": STREAM},
        "lake": {"root": str(tmp_path / "lake"), "checkpoint": str(tmp_path / "checkpoint")},
        "tables": [TABLE],
        "bucket": {"name": BUCKET, "failed_batches": f"s3://{BUCKET}/dead-letters/mapping/"},
    }
    file = tmp_path / "job.yaml"
    file.write_text(yaml.safe_dump(settings))
    return file


def record(seq: int) -> dict[str, Any]:
    key = {"event_id": {"S": f"event-{seq % 5}"}}
    return {
        "eventID": f"e{seq}",
        "eventName": "MODIFY",
        "eventSource": "aws:dynamodb",
        "eventSourceARN": f"arn:aws:dynamodb:{REGION}:000000000000:table/{TABLE}/stream/2026-01-01T00:00:00.000",
        "dynamodb": {
            "ApproximateCreationDateTime": 1_767_225_600,
            "Keys": key,
            "SequenceNumber": str(seq * 10**25),
            "NewImage": {**key, "exact": {"N": EXACT}, "vehicle": {"M": {"make": {"S": "VW"}}}},
        },
    }


def lakestream(*arguments: str) -> Any:
    return CliRunner().invoke(app, arguments, catch_exceptions=False)


def test_dead_letters_reach_the_archive_in_order_once_and_can_be_asked(aws: Aws, config: Path, tmp_path: Path) -> None:
    s3 = aws("s3")
    store = S3Store(lambda: s3, BUCKET, None)
    for seq in reversed(range(1, RECORDS + 1)):
        store.put(dead_letter(record(seq), PoisonRecordError("unknown-table", "no rules", hint=""), 1))
    batch = {
        "requestContext": {"condition": "RetryAttemptsExhausted"},
        "payload": json.dumps({"Records": [record(RECORDS + 1), record(RECORDS + 2)]}),
    }
    s3.put_object(Bucket=BUCKET, Key="dead-letters/mapping/aws/lambda/x", Body=json.dumps(batch).encode())

    would = json.loads(lakestream("redrive", "--config", str(config), "--dry-run", "--json").stdout)
    assert (would["redriven"], would["records_sent"]) == (RECORDS + 1, RECORDS + 2)
    assert len(aws.objects(BUCKET, "dead-letters/")) == RECORDS + 1

    done = json.loads(lakestream("redrive", "--config", str(config), "--json").stdout)
    assert (done["redriven"], done["records_sent"], done["stay"]) == (RECORDS + 1, RECORDS + 2, {})
    assert aws.objects(BUCKET, "dead-letters/") == {}
    assert len(aws.objects(BUCKET, "redriven/")) == RECORDS + 1
    again = lakestream("redrive", "--config", str(config), "--json")
    assert (again.exit_code, json.loads(again.stdout)["letters"]) == (0, 0)

    _deliver(aws, tmp_path)
    answer = lakestream(
        "archive", "query", "SELECT count(*) AS n, min(new.exact) AS exact, max(new.vehicle.make) AS make FROM changes",
        "--config", str(config), "--cache", str(tmp_path / "cache"), "--json",
    )  # fmt: skip
    assert f'"exact":{EXACT}' in answer.stdout
    (row,) = json.loads(answer.stdout)
    assert (row["n"], row["make"]) == (RECORDS + 2, "VW")
    assert _sequences_by_key(aws) == {f"event-{n}": sorted(_expected(n)) for n in range(5)}


def test_rejects_are_sent_as_they_were_and_once(aws: Aws, config: Path, tmp_path: Path) -> None:
    data = b'{"v":2,"key":{"event_id":"rejected"}}\n'
    columns = {
        "_sha256": sha256(data).hexdigest(),
        "_reason": "version",
        "_table": "t",
        "_arrival_ms": 1,
        "_data": data,
    }
    write_deltalake(tmp_path / "lake" / "rejects", pa.table({name: [value] for name, value in columns.items()}))
    found = [json.loads(lakestream("redrive", "--rejects", "--config", str(config), "--json").stdout) for _ in range(2)]
    assert [answer["records_sent"] for answer in found] == [1, 0]
    assert data in _records(aws)


@pytest.mark.parametrize(
    "arguments",
    [["--again"], ["--rejects", "--table", "cars"], ["--config", "/nowhere.yaml"], ["--config", "{no bucket}"]],
)
def test_a_redrive_that_cannot_be_meant_is_refused_before_anything_is_read(
    config: Path, tmp_path: Path, arguments: list[str]
) -> None:
    without = tmp_path / "without.yaml"
    without.write_text(yaml.safe_dump({**yaml.safe_load(config.read_text()), "bucket": None}))
    given = [str(without) if argument == "{no bucket}" else argument for argument in arguments]
    with pytest.raises(LakestreamError) as error:
        lakestream("redrive", "--config", str(config), *given)
    assert error.value.exit_code == 2


def _expected(number: int) -> list[int]:
    return [seq for seq in range(1, RECORDS + 3) if seq % 5 == number]


def _deliver(aws: Aws, folder: Path) -> None:
    """The archive's objects, written by the local delivery as Firehose would."""
    workers = Workers(folder)
    try:
        worker = workers(
            "delivery",
            {
                "endpoint": aws.endpoint,
                "region": REGION,
                "stream": STREAM,
                "bucket": BUCKET,
                "buffer_s": 1,
                "state_dir": str(folder / "delivery"),
                "metrics_port": 0,
            },
        )
        until(lambda: aws.objects(BUCKET, "archive/"), "the delivery writes an object")
        assert worker.stop() == 0
    finally:
        workers.end()


def _sequences_by_key(aws: Aws) -> dict[str, list[int]]:
    """In the order they lie in the stream."""
    found: dict[str, list[int]] = {}
    for data in _records(aws):
        line = json.loads(data)
        found.setdefault(line["key"]["event_id"], []).append(int(line["seq"]) // 10**25)
    return found


def _records(aws: Aws) -> list[bytes]:
    kinesis = aws("kinesis")
    (shard,) = kinesis.list_shards(StreamName=STREAM)["Shards"]
    iterator = kinesis.get_shard_iterator(
        StreamName=STREAM, ShardId=shard["ShardId"], ShardIteratorType="TRIM_HORIZON"
    )["ShardIterator"]
    return [entry["Data"] for entry in kinesis.get_records(ShardIterator=iterator)["Records"]]

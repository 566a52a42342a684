"""The handler as Lambda calls it, on the emulator's table, stream, bucket and secret: real clients, real limits."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from bridge_lambda.images import digest, parse, restore
from infra.local import emulator
from infra.local.mapping.event import Change, encode, event_of
from tests.support.dynamodb_items import unordered
from tests.support.local_workers import REGION, Aws, running_emulator

pytestmark = pytest.mark.stack

BUCKET = "lakestream-test"
STREAM = "changes"
SECRET = "lakestream/things"
RULES: dict[str, Any] = {
    "version": 4,
    "key": ["id"],
    "drop": [["private"]],
    "hash": [["owner"]],
    "secret": {"name": SECRET, "version": None},
    "keep_old_image": True,
    "filter": None,
    "origin": None,
}
RUN = """
import json, sys
from bridge_lambda.handler import handler

class Context:
    function_name, memory_limit_in_mb, aws_request_id = "bridge", 512, "request-1"
    invoked_function_arn = "arn:aws:lambda:us-east-1:000000000000:function:bridge"
    def get_remaining_time_in_millis(self):
        return 20_000

answers = []
for line in sys.stdin:
    answers.append(handler(json.loads(line), Context()))
    print(json.dumps({"answered": len(answers)}), flush=True)
sys.stderr.write(json.dumps(answers))
"""


@dataclass
class Function:
    """The bridge in a process of its own, as Lambda runs it: events in, answers and log lines out."""

    aws: Aws
    folder: Path

    def invoke(self, *events: bytes, **env: str) -> tuple[list[Any], list[dict[str, Any]]]:
        done = self.run(*events, **env)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stderr), [json.loads(line) for line in done.stdout.splitlines()]

    def run(self, *events: bytes, **env: str) -> "subprocess.CompletedProcess[str]":
        with self.started(**env) as process:
            out, err = process.communicate("".join(event.decode() + "\n" for event in events), timeout=120)
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)

    @contextmanager
    def started(self, **env: str) -> Iterator["subprocess.Popen[str]"]:
        rules = self.folder / "rules.json"
        rules.write_text(json.dumps({"format": 1, "tables": {"things": RULES}}), encoding="utf-8")
        base = {
            **emulator.process_environment(self.aws.endpoint, REGION),
            "LAKESTREAM_STREAM": STREAM,
            "LAKESTREAM_BUCKET": BUCKET,
            "LAKESTREAM_RULES": str(rules),
            "PYTHONPATH": os.getcwd(),  # noqa: PTH109 - a string is what the variable holds
        }
        process = subprocess.Popen(
            [sys.executable, "-c", RUN],
            env={name: value for name, value in {**base, **env}.items() if value},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            yield process
        finally:
            process.kill()
            process.wait(timeout=10)
            for stream in (process.stdin, process.stdout, process.stderr):
                if stream is not None:
                    stream.close()

    def changes(self, arn: str) -> list[Change]:
        """The table's stream so far, each change as the mapping encodes it."""
        streams = self.aws("dynamodbstreams")
        (shard,) = streams.describe_stream(StreamArn=arn)["StreamDescription"]["Shards"]
        iterator = streams.get_shard_iterator(
            StreamArn=arn, ShardId=shard["ShardId"], ShardIteratorType="TRIM_HORIZON"
        )["ShardIterator"]
        found: list[Change] = []
        while records := (page := streams.get_records(ShardIterator=iterator))["Records"]:
            found += [encode(record, stream_arn=arn) for record in records]
            iterator = page["NextShardIterator"]
        return found

    def sent(self) -> list[tuple[bytes, str]]:
        kinesis = self.aws("kinesis")
        (shard,) = kinesis.list_shards(StreamName=STREAM)["Shards"]
        iterator = kinesis.get_shard_iterator(
            StreamName=STREAM, ShardId=shard["ShardId"], ShardIteratorType="TRIM_HORIZON"
        )["ShardIterator"]
        records = kinesis.get_records(ShardIterator=iterator, Limit=10_000)["Records"]
        return [(record["Data"], record["PartitionKey"]) for record in records]


@pytest.fixture(scope="module")
def aws(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Aws]:
    with running_emulator(tmp_path_factory.mktemp("emulator")) as running:
        running("secretsmanager").create_secret(Name=SECRET, SecretString="0123456789abcdef0123456789abcdef")
        running("s3").create_bucket(Bucket=BUCKET)
        yield running


@pytest.fixture
def function(aws: Aws, tmp_path: Path) -> Iterator[Function]:
    aws.stream(STREAM)
    yield Function(aws, tmp_path)
    aws("kinesis").delete_stream(StreamName=STREAM)
    s3 = aws("s3")
    for name in aws.objects(BUCKET):
        s3.delete_object(Bucket=BUCKET, Key=name)


@pytest.fixture
def table(aws: Aws) -> Iterator[str]:
    """The ARN of its stream."""
    yield aws.table("things")
    aws("dynamodb").delete_table(TableName="things")


ITEM: dict[str, Any] = {
    "id": {"S": "é/🚗"},
    "exact": {"N": "12345678901234567890123456789012345678"},
    "tiny": {"N": "0.00000000000000000000000000000000000001"},
    "raw": {"B": b"\x00\xff"},
    "tags": {"SS": ["b", "a"]},
    "deep": {"M": {"l": {"L": [{"BOOL": True}, {"NULL": True}, {"NS": ["1", "2.5"]}]}}},
    "owner": {"S": "ada"},
    "private": {"S": "never-to-be-seen"},
}


def test_changes_of_a_real_table_arrive_exact_in_order_and_masked(function: Function, table: str) -> None:
    """Insert, change, delete: through the table, its stream, the handler and Kinesis."""
    dynamodb = function.aws("dynamodb")
    dynamodb.put_item(TableName="things", Item=ITEM)
    dynamodb.put_item(TableName="things", Item={**ITEM, "exact": {"N": "-7"}})
    dynamodb.delete_item(TableName="things", Key={"id": ITEM["id"]})
    changes = function.changes(table)
    answers, lines = function.invoke(event_of(changes))
    assert answers == [{"batchItemFailures": []}]
    sent = function.sent()
    first, second, third = (parse(data) for data, _ in sent)
    assert [change["op"] for change in (first, second, third)] == ["INSERT", "MODIFY", "REMOVE"]
    assert first["seq"] < second["seq"] < third["seq"]
    assert {key for _, key in sent} == {'{"id":"é/🚗"}'}
    version = function.aws("secretsmanager").get_secret_value(SecretId=SECRET)["VersionId"]
    assert first["rules"] == f"4:{version}"
    restored = restore(first["new"], first["types"], "/new")
    expected = {name: typed for name, typed in ITEM.items() if name not in ("owner", "private")}
    expected["raw"] = {"B": "AP8="}
    assert unordered({name: typed for name, typed in restored.items() if name != "owner"}) == unordered(expected)
    assert len(restored["owner"]["S"]) == 64
    assert first["digest"] == digest(restored)
    assert second["old"] == first["new"]
    assert (third["new"], third["digest"]) == (None, None)
    assert not any(b"never-to-be-seen" in data or b'"ada"' in data for data, _ in sent)
    (blob,) = [line for line in lines if "records_in" in line]
    assert (blob["records_in"], blob["records_sent"]) == ([3], [3])


def test_more_than_one_calls_worth_goes_in_as_few_calls_as_the_limits_allow(function: Function, table: str) -> None:
    dynamodb = function.aws("dynamodb")
    for start in range(0, 1200, 25):
        requests = [{"PutRequest": {"Item": {"id": {"S": str(n)}}}} for n in range(start, start + 25)]
        dynamodb.batch_write_item(RequestItems={"things": requests})
    answers, lines = function.invoke(event_of(function.changes(table)))
    assert answers == [{"batchItemFailures": []}]
    (blob,) = [line for line in lines if "records_in" in line]
    assert len(blob["put_records_ms"]) == 3
    assert [json.loads(data)["key"]["id"] for data, _ in function.sent()] == [str(n) for n in range(1200)]


def test_poison_rests_in_the_bucket_and_oversized_images_go_by_claim_check(function: Function, table: str) -> None:
    dynamodb = function.aws("dynamodb")
    dynamodb.put_item(TableName="things", Item={"id": {"S": "big"}, "a": {"S": "\x01" * 300_000}})
    dynamodb.put_item(TableName="things", Item={"id": {"S": "small"}})
    changes = [json.loads(change.encoded) for change in function.changes(table)]
    poison = {**changes[1], "eventName": "TRUNCATE"}
    event = json.dumps({"Records": [changes[0], poison, changes[1]]}).encode()
    answers, _ = function.invoke(event)
    assert answers == [{"batchItemFailures": []}]
    big, small = (json.loads(data) for data, _ in function.sent())
    assert small["key"] == {"id": "small"}
    objects = function.aws.objects(BUCKET)
    claim = json.loads(objects[big["ref"]["key"]])
    assert claim["new"]["a"] == "\x01" * 300_000
    (letter,) = [json.loads(body) for name, body in objects.items() if name.startswith("dead-letters/things/")]
    assert (letter["reason"], letter["record"]) == ("bad-record", poison)


def test_a_key_longer_than_a_partition_key_blocks_nobody(function: Function, table: str) -> None:
    for key in ("a", "k" * 1000, "b"):
        function.aws("dynamodb").put_item(TableName="things", Item={"id": {"S": key}})
    answers, _ = function.invoke(event_of(function.changes(table)))
    assert answers == [{"batchItemFailures": []}]
    assert [json.loads(data)["key"]["id"] for data, _ in function.sent()] == ["a", "k" * 1000, "b"]
    assert [len(key) for _, key in function.sent()] == [10, 64, 10]


def test_a_stream_that_is_gone_fails_the_batch_at_its_first_record(function: Function, table: str) -> None:
    function.aws("dynamodb").put_item(TableName="things", Item={"id": {"S": "1"}})
    (change,) = function.changes(table)
    answers, lines = function.invoke(event_of([change]), LAKESTREAM_STREAM="gone")
    assert answers == [{"batchItemFailures": [{"itemIdentifier": change.sequence}]}]
    (said,) = [line for line in lines if line.get("message") == "not all was sent"]
    assert said["what"] == "stream gone: ResourceNotFoundException"
    assert said["hint"] == "create the stream, or correct LAKESTREAM_STREAM"


def piped(changes: Sequence[Change]) -> bytes:
    """As an EventBridge pipe hands a batch to its target: a list, with no frame around it."""
    return b"[" + b",".join(change.encoded for change in changes) + b"]"


def test_the_mapping_s_event_and_the_pipe_s_become_the_same_envelopes(function: Function, table: str) -> None:
    dynamodb = function.aws("dynamodb")
    dynamodb.put_item(TableName="things", Item=ITEM)
    dynamodb.put_item(TableName="things", Item={**ITEM, "exact": {"N": "-7"}})
    dynamodb.delete_item(TableName="things", Key={"id": ITEM["id"]})
    changes = function.changes(table)
    answers, _ = function.invoke(event_of(changes), piped(changes))
    assert answers == [{"batchItemFailures": []}] * 2
    lines = [(data.partition(b',"bridge_in_ms":')[0], key) for data, key in function.sent()]
    by_mapping, by_pipe = lines[:3], lines[3:]
    assert by_mapping == by_pipe
    exact = [data.partition(b',"key":')[2].partition(b',"bridge_out_ms":')[0] for data, _ in function.sent()]
    assert exact[:3] == exact[3:], "38 digits and all"


def test_each_caller_is_told_in_its_own_words_what_to_bring_again(function: Function, table: str) -> None:
    """A mapping comes back with the lowest sequence number and all after it, a pipe with the events that are named."""
    for key in ("1", "2"):
        function.aws("dynamodb").put_item(TableName="things", Item={"id": {"S": key}})
    changes = function.changes(table)
    answers, _ = function.invoke(event_of(changes), piped(changes), LAKESTREAM_STREAM="gone")
    ids = [json.loads(change.encoded)["eventID"] for change in changes]
    assert answers == [
        {"batchItemFailures": [{"itemIdentifier": changes[0].sequence}]},
        {"batchItemFailures": [{"itemIdentifier": event_id} for event_id in ids]},
    ]


REFUSED = (
    ({"LAKESTREAM_STREAM": ""}, "LAKESTREAM_STREAM is not set"),
    ({"LAKESTREAM_BUCKET": ""}, "LAKESTREAM_BUCKET is not set"),
    ({"AWS_REGION": "", "AWS_DEFAULT_REGION": ""}, "AWS_DEFAULT_REGION is not set"),
    ({"LAKESTREAM_RULES": "/nowhere/rules.json"}, "cannot read the rules at /nowhere/rules.json"),
)


@pytest.mark.parametrize(("env", "said"), REFUSED, ids=lambda value: str(value)[:40])
def test_a_bridge_that_lacks_a_setting_refuses_to_start_and_says_which(
    function: Function, env: dict[str, str], said: str
) -> None:
    done = function.run(b'{"Records": [{}]}', **env)
    assert done.returncode == 1
    assert said in done.stderr
    assert "batches_refused" in done.stdout
    assert not function.sent()


def test_a_bridge_whose_secret_is_missing_or_short_refuses_to_start(function: Function) -> None:
    """Nothing may leave unhashed."""
    secrets = function.aws("secretsmanager")
    secrets.put_secret_value(SecretId=SECRET, SecretString="short")
    try:
        assert "is shorter than 16 bytes" in function.run(b'{"Records": [{}]}').stderr
        secrets.delete_secret(SecretId=SECRET, ForceDeleteWithoutRecovery=True)
        done = function.run(b'{"Records": [{}]}')
        assert done.returncode == 1
        assert "secret lakestream/things: ResourceNotFoundException" in done.stderr
        assert "create secret lakestream/things in Secrets Manager" in done.stderr
    finally:
        secrets.create_secret(Name=SECRET, SecretString="0123456789abcdef0123456789abcdef")


def test_the_secret_is_read_once_for_all_invocations_of_an_environment(function: Function, table: str) -> None:
    """By the second invocation it is gone, and the hashes are the same."""
    secrets = function.aws("secretsmanager")
    function.aws("dynamodb").put_item(TableName="things", Item={"id": {"S": "1"}, "owner": {"S": "ada"}})
    event = event_of(function.changes(table)).decode() + "\n"
    with function.started() as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(event)
        process.stdin.flush()
        assert any('"answered": 1' in line for line in process.stdout)
        secrets.delete_secret(SecretId=SECRET, ForceDeleteWithoutRecovery=True)
        try:
            process.stdin.write(event)
            process.stdin.close()
            assert any('"answered": 2' in line for line in process.stdout)
        finally:
            secrets.create_secret(Name=SECRET, SecretString="0123456789abcdef0123456789abcdef")
    sent = [json.loads(data)["new"]["owner"] for data, _ in function.sent()]
    assert len(sent) == 2
    assert len(set(sent)) == 1

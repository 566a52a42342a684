"""The mapping as a process on the embedded stack: real stream, real execution environments, real destinations."""

import json
import re
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.support.local_workers import REGION, Aws, Worker, Workers, running_emulator, until

pytestmark = pytest.mark.stack

Begin = Callable[..., Worker]


@pytest.fixture(scope="module")
def aws(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Aws]:
    with running_emulator(tmp_path_factory.mktemp("emulator")) as running:
        yield running


@pytest.fixture
def table(request: pytest.FixtureRequest) -> str:
    return "t-" + str(abs(hash(request.node.name)))


@pytest.fixture
def begin(aws: Aws, table: str, tmp_path: Path) -> Iterator[Begin]:
    arn = aws.table(table)
    workers = Workers(tmp_path)

    def start(
        name: str = "records", *, env: dict[str, str] | None = None, timeout_s: float = 20, **knobs: Any
    ) -> Worker:
        settings: dict[str, Any] = {
            "endpoint": aws.endpoint,
            "region": REGION,
            "table": table,
            "stream_arn": arn,
            "state_dir": str(tmp_path / "state"),
            "function": {
                "handler": f"tests.support.recording_function.{name}",
                "env": {"SEEN": str(tmp_path / "seen"), "GO": str(tmp_path / "go"), **(env or {})},
                "timeout_s": timeout_s,
            },
            "report_failures": True,
            "metrics_port": 0,
            "backoff_first_s": 0.05,
        }
        return workers("mapping", settings | knobs)

    yield start
    workers.end()


@pytest.fixture
def put(aws: Aws, table: str) -> Callable[..., None]:
    client = aws("dynamodb")

    def write(*ids: str, **attributes: Any) -> None:
        for each in ids:
            client.put_item(TableName=table, Item={"id": {"S": each}, **attributes})

    return write


@pytest.fixture
def seen(tmp_path: Path) -> Callable[[], list[dict[str, Any]]]:
    def read() -> list[dict[str, Any]]:
        file = tmp_path / "seen"
        return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []

    return read


Seen = Callable[[], list[dict[str, Any]]]
Put = Callable[..., None]


def ids_of(lines: list[dict[str, Any]]) -> list[list[str]]:
    return [line["ids"] for line in lines if "ids" in line]


def test_a_handler_sees_lambdas_event_context_and_environment(
    begin: Begin, put: Put, seen: Seen, aws: Aws, table: str
) -> None:
    put("a", b={"B": b"\x00\xff"}, n={"N": "12345678901234567890123456789012345678"})
    put("a", n={"N": "1"})
    aws("dynamodb").delete_item(TableName=table, Key={"id": {"S": "a"}})
    mapping = begin(env={"MINE": "yes"})
    until(lambda: sum(len(line["event"]["Records"]) for line in seen()) == 3, "three changes are handed over")
    records = [record for line in seen() for record in line["event"]["Records"]]
    assert [record["eventName"] for record in records] == ["INSERT", "MODIFY", "REMOVE"]
    assert records[0]["eventSource"] == "aws:dynamodb"
    assert f":table/{table}/stream/" in records[0]["eventSourceARN"]
    inserted = records[0]["dynamodb"]
    assert inserted["NewImage"]["b"] == {"B": "AP8="}
    assert inserted["NewImage"]["n"] == {"N": "12345678901234567890123456789012345678"}
    assert isinstance(inserted["ApproximateCreationDateTime"], int)
    assert inserted["StreamViewType"] == "NEW_AND_OLD_IMAGES"
    assert "OldImage" not in inserted
    assert "NewImage" not in records[2]["dynamodb"]
    context, variables = seen()[0]["context"], seen()[0]["variables"]
    assert 0 < context["remaining_ms"] <= 20_000
    assert context["invoked_function_arn"] == f"arn:aws:lambda:{REGION}:000000000000:function:lakestream-bridge"
    assert context["memory_limit_in_mb"] == "512"
    assert variables["AWS_LAMBDA_FUNCTION_NAME"] == context["function_name"] == "lakestream-bridge"
    assert variables["MINE"] == "yes"
    assert mapping.logged("function_output")[0]["line"] == "a plain line"
    assert len({line["pid"] for line in seen()}) == 1, "a warm environment is used again"
    assert mapping.stop() == 0


def test_a_batch_given_up_lies_in_s3_with_its_whole_event(
    begin: Begin, put: Put, aws: Aws, seen: Seen, tmp_path: Path
) -> None:
    bucket = tmp_path.name.replace("_", "-")
    aws("s3").create_bucket(Bucket=bucket)
    put("x", "raise", "y")
    mapping = begin(
        "poison",
        bisect=True,
        retries_max=1,
        uuid="11111111-2222-3333-4444-555555555555",
        on_failure={"s3": {"bucket": bucket, "prefix": "dead-letters/mapping/"}},
    )
    mapping.logged("discarded")
    ((key, body),) = aws.objects(bucket).items()
    folder = "dead-letters/mapping/aws/lambda/11111111-2222-3333-4444-555555555555/shardId-"
    assert re.fullmatch(rf"{folder}[0-9-]+/\d{{4}}/\d\d/\d\d/\d{{4}}-\d\d-\d\dT\d\d\.\d\d\.\d\d-[0-9a-f-]{{36}}", key)
    document = json.loads(body)
    assert document["requestContext"]["condition"] == "RetryAttemptsExhausted"
    assert document["responseContext"]["functionError"] == "Unhandled"
    assert document["DDBStreamBatchInfo"]["batchSize"] == 1
    (record,) = json.loads(document["payload"])["Records"]
    assert record["dynamodb"]["Keys"] == {"id": {"S": "raise"}}
    assert record["dynamodb"]["SequenceNumber"] == document["DDBStreamBatchInfo"]["startSequenceNumber"]
    until(lambda: ["y"] in ids_of(seen()), "the record after the poison is handed over")
    assert mapping.stop() == 0


def test_a_batch_given_up_is_told_to_a_queue_by_its_metadata_only(begin: Begin, put: Put, aws: Aws, table: str) -> None:
    sqs = aws("sqs")
    queue = sqs.create_queue(QueueName=table)["QueueUrl"]
    put("raise", "secret")
    mapping = begin("poison", retries_max=0, on_failure={"sqs": queue})
    mapping.logged("discarded")
    (message,) = sqs.receive_message(QueueUrl=queue, WaitTimeSeconds=5)["Messages"]
    document = json.loads(message["Body"])
    assert document["requestContext"]["approximateInvokeCount"] == 1
    assert document["DDBStreamBatchInfo"]["batchSize"] == 2
    assert "payload" not in document
    assert "secret" not in message["Body"]
    assert mapping.stop() == 0


@pytest.mark.parametrize(
    ("item", "error"),
    [
        ("raise", "ValueError"),
        ("hang", "Sandbox.Timedout"),
        ("crash", "Runtime.ExitError"),
        ("nonsense", "Runtime.MarshalError"),
    ],
)
def test_a_function_that_fails_in_whatever_way_is_a_failed_invocation(
    begin: Begin, put: Put, seen: Seen, item: str, error: str
) -> None:
    put(item)
    mapping = begin("poison", retries_max=1, timeout_s=0.7)
    failures = mapping.logged("function_failed", 2)
    assert {failure["error"] for failure in failures} == {error}
    mapping.logged("discarded")
    put("after")
    until(lambda: ["after"] in ids_of(seen()), "the next change is handed over")
    assert 'lakestream_mapping_invocations_total{outcome="error"} 2.0' in mapping.metrics()
    assert mapping.stop() == 0


def test_records_before_a_reported_failure_are_not_handed_over_again(begin: Begin, put: Put, seen: Seen) -> None:
    put("a", "b", "report", "c")
    mapping = begin("poison", retries_max=2)
    mapping.logged("discarded")
    assert ids_of(seen()) == [["a", "b", "report", "c"], ["report", "c"], ["report", "c"]]
    assert mapping.stop() == 0


def test_a_handler_that_cannot_be_imported_says_why_and_holds_the_position(begin: Begin, put: Put, seen: Seen) -> None:
    put("a")
    mapping = begin("missing")
    assert mapping.logged("function_does_not_start")[0]["error"] == "AttributeError"
    mapping.logged("function_failed")
    assert mapping.stop() == 0
    mended = begin()
    until(seen, "the change is handed over once the handler is there")
    assert mended.stop() == 0


def test_sigterm_lets_the_invocation_end_and_keeps_its_position(
    begin: Begin, put: Put, seen: Seen, tmp_path: Path
) -> None:
    put("a")
    mapping = begin("slow")
    until(seen, "the function has begun")
    mapping.process.terminate()
    (tmp_path / "go").touch()
    assert mapping.wait() == 0
    assert seen()[-1]["ended"] == ["a"]
    put("b")
    again = begin("slow")
    until(lambda: len(seen()) == 4, "the next change is handed over")
    assert seen()[2]["begun"] == ["b"], "and the first is not again"
    assert again.stop() == 0


def test_an_invocation_does_not_outlive_a_mapping_that_was_killed(begin: Begin, put: Put, seen: Seen) -> None:
    put("a")
    mapping = begin("slow")
    until(seen, "the function has begun")
    mapping.kill()
    until(lambda: not psutil.pid_exists(seen()[0]["pid"]), "its process ends")
    again = begin("slow")
    until(lambda: len(seen()) == 2, "the batch is handed over again")
    assert [line["begun"] for line in seen()] == [["a"], ["a"]]
    again.kill()


def test_a_window_gathers_changes_into_one_batch(begin: Begin, put: Put, seen: Seen) -> None:
    mapping = begin("poison", window_s=2)
    mapping.logged("shard_begun")
    put("a")
    until(lambda: "lakestream_mapping_records_total{" in mapping.metrics(), "the first change is read")
    put("b", "c")
    until(seen, "a batch is handed over")
    assert ids_of(seen()) == [["a", "b", "c"]]
    assert mapping.stop() == 0


def test_a_second_mapping_on_the_same_state_does_not_start(begin: Begin) -> None:
    first = begin()
    first.logged("started")
    second = begin()
    assert second.wait() == 3
    assert "another process" in second.stderr
    assert first.stop() == 0


@pytest.mark.parametrize(
    ("wrong", "code", "said"),
    [
        ({"batch_size": 0}, 2, "batch_size: input should be greater than or equal to 1"),
        ({"batchsize": 1}, 2, "batchsize: unknown key"),
        ({"table": "other"}, 2, "stream_arn is not a stream of table 'other'"),
        ({"on_failure": {"s3": {"bucket": "b"}, "sqs": "q"}}, 2, "give either s3 or sqs"),
        (
            {"stream_arn": f"arn:aws:dynamodb:{REGION}:000000000000:table/none/stream/x", "table": "none"},
            4,
            "not exist",
        ),
    ],
    ids=["too small", "unknown", "other table", "two destinations", "no stream"],
)
def test_a_mapping_that_cannot_be_says_why_in_one_line(
    begin: Begin, wrong: dict[str, Any], code: int, said: str
) -> None:
    mapping = begin(**wrong)
    assert mapping.wait() == code
    assert said in mapping.stderr
    assert len(mapping.stderr.splitlines()) == 1
    assert "Traceback" not in mapping.stderr


def test_a_metrics_port_that_is_taken_is_told_in_one_line(begin: Begin) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        mapping = begin(metrics_port=port)
        assert mapping.wait() == 2
    assert f"cannot listen on 127.0.0.1:{port}" in mapping.stderr
    assert len(mapping.stderr.splitlines()) == 1

"""An invocation of the function that starts the job on arrival: its secret in the emulator, its API on loopback.

The last test deploys the template's part and lets objects land.
"""

import json
import logging
import platform
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from infra.arrival import handler as arrival
from infra.artefact import build
from infra.deploy import TEMPLATE, Deployment, DeploySettings, judged
from infra.template_model import Template
from infra.validate import NotDeployableError
from tests.support.arrivals import JOB, LANDED_MS
from tests.support.databricks_fake import TOKEN, FakeDatabricks, Fault
from tests.support.local_workers import REGION, Aws, running_emulator, until


@pytest.fixture(scope="module")
def aws(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Aws]:
    with running_emulator(tmp_path_factory.mktemp("arrival")) as emulator:
        yield emulator


class Invoked:
    """The handler, with its secret in the emulator; what it answered, counted and logged."""

    def __init__(self, aws: Aws, capture: pytest.CaptureFixture[str], log: pytest.LogCaptureFixture) -> None:
        self._aws, self._capture, self._log = aws, capture, log
        self.context = SimpleNamespace(
            get_remaining_time_in_millis=lambda: 5_000.0,
            function_name="arrival",
            memory_limit_in_mb=256,
            invoked_function_arn="arn:aws:lambda:us-east-1:000000000000:function:arrival",
            aws_request_id="1",
        )

    def __call__(self, arrivals: int = 3) -> int:
        """How many of the arrivals stay in the queue."""
        records = [{"messageId": str(n), "attributes": {"SentTimestamp": str(LANDED_MS + n)}} for n in range(arrivals)]
        answer = arrival.handler({"Records": records}, self.context)  # type: ignore[arg-type]
        emitted = [line for line in self._capture.readouterr().out.splitlines() if "_aws" in line]
        self.counts = {name: value[0] for name, value in json.loads(emitted[-1]).items() if isinstance(value, list)}
        return len(answer["batchItemFailures"])

    def secret(self, value: str) -> None:
        self._aws("secretsmanager").put_secret_value(SecretId="token", SecretString=value)

    @property
    def said(self) -> str:
        """Everything the log holds, the lines' facts included."""
        return json.dumps([vars(record) for record in self._log.records], default=str)


@pytest.fixture
def invoke(
    aws: Aws,
    databricks: FakeDatabricks,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> Iterator[Invoked]:
    names = {secret["Name"] for secret in aws("secretsmanager").list_secrets()["SecretList"]}
    if "token" not in names:
        aws("secretsmanager").create_secret(Name="token", SecretString=TOKEN)
    for name, value in {
        "AWS_REGION": REGION,
        "AWS_ENDPOINT_URL": aws.endpoint,
        "AWS_ACCESS_KEY_ID": "local",
        "AWS_SECRET_ACCESS_KEY": "local",
        "LAKESTREAM_DATABRICKS_HOST": databricks.url,
        "LAKESTREAM_JOB_ID": str(JOB),
        "LAKESTREAM_TOKEN_SECRET": "token",
    }.items():
        monkeypatch.setenv(name, value)
    arrival.read_token.cache_clear()
    arrival._checked.clear()
    logging.getLogger("arrival").addHandler(caplog.handler)
    invoked = Invoked(aws, capsys, caplog)
    invoked.secret(TOKEN)
    yield invoked
    logging.getLogger("arrival").removeHandler(caplog.handler)


@pytest.mark.stack
def test_arrivals_leave_the_queue_when_a_run_reads_them(invoke: Invoked, databricks: FakeDatabricks) -> None:
    assert invoke(3) == 0
    assert invoke.counts == {"objects": 3, "retries": 0, "runs_started": 1}
    assert invoke(2) == 0
    assert invoke.counts == {"objects": 2, "retries": 0, "coalesced": 1}
    assert len(databricks.runs) == 1


@pytest.mark.stack
def test_an_expired_token_is_said_and_counted_and_nothing_is_lost(invoke: Invoked, databricks: FakeDatabricks) -> None:
    """The arrivals stay until a new token lies in the secret; then the same invocation that finds it starts the run."""
    databricks.tokens = {"dapi-new"}
    assert invoke(3) == 3
    assert invoke.counts == {"objects": 3, "retries": 0, "token_refused": 1, "left_waiting": 3}
    assert "put a new token into the secret" in invoke.said
    assert TOKEN not in invoke.said
    invoke.secret("dapi-new")
    assert invoke(3) == 0
    assert invoke.counts["runs_started"] == 1
    assert len(databricks.runs) == 1


@pytest.mark.stack
def test_a_token_rotated_in_time_is_not_noticed(invoke: Invoked, databricks: FakeDatabricks) -> None:
    assert invoke(1) == 0
    databricks.runs[0].state = "RUNNING"
    databricks.runs[0].start_time = LANDED_MS - 1
    databricks.tokens = {"dapi-new"}
    invoke.secret("dapi-new")
    assert invoke(1) == 0
    assert "token_refused" not in invoke.counts


@pytest.mark.stack
@pytest.mark.parametrize("value", [" ", '{"token": "dapi"}', "dapi\nnew"])
def test_a_secret_that_holds_no_token_is_said_without_it(
    value: str, invoke: Invoked, databricks: FakeDatabricks
) -> None:
    invoke.secret(value)
    assert invoke(1) == 1
    assert "secret token holds no token" in invoke.said
    assert databricks.requests == []


@pytest.mark.stack
def test_a_secret_that_is_not_there_is_named(invoke: Invoked, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAKESTREAM_TOKEN_SECRET", "no-such-secret")
    assert invoke(1) == 1
    assert "secret no-such-secret: ResourceNotFoundException" in invoke.said


@pytest.mark.stack
def test_while_databricks_is_away_arrivals_wait(invoke: Invoked, databricks: FakeDatabricks) -> None:
    databricks.faults.extend(Fault(status=503) for _ in range(1_000))
    invoke.context.get_remaining_time_in_millis = iter([3_500.0] * 8 + [2_000.0] * 50).__next__
    assert invoke(4) == 4
    assert invoke.counts["left_waiting"] == 4
    assert invoke.counts["retries"] > 0
    databricks.faults.clear()
    invoke.context.get_remaining_time_in_millis = lambda: 5_000.0
    assert invoke(4) == 0


@pytest.mark.stack
@pytest.mark.parametrize("name", ["LAKESTREAM_JOB_ID", "LAKESTREAM_DATABRICKS_HOST"])
def test_what_is_not_set_is_named(name: str, invoke: Invoked, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(name)
    assert invoke(1) == 1
    assert f"{name} is not set" in invoke.said


# --- the template's part ----------------------------------------------------------------------------------------------


def _settings(**parameters: Any) -> DeploySettings:
    return DeploySettings(region=REGION, stack="arrives", parameters={"TableName": "arrives-table", **parameters})


def test_half_of_its_parameters_are_refused() -> None:
    with pytest.raises(NotDeployableError, match="ArrivalJobId is given and DatabricksHost is not"):
        judged(_settings(ArrivalJobId=JOB), Template.load(TEMPLATE))


@pytest.mark.stack
def test_objects_that_land_start_the_job_through_the_deployed_template(aws: Aws, databricks: FakeDatabricks) -> None:
    """Bucket, EventBridge, queue, function: the artefact for this machine, run by the emulator."""
    artefact = build("chargeminder-car-telemetry", platform=f"manylinux2014_{platform.machine()}")
    secret = aws("secretsmanager").create_secret(Name="deployed", SecretString=TOKEN)["ARN"]
    settings = _settings(
        ArrivalJobId=JOB, DatabricksHost=databricks.url, DatabricksTokenSecretArn=secret, ArrivalWindowSeconds=1
    )
    deployment = Deployment(
        settings, judged(settings, Template.load(TEMPLATE), artefact_key=artefact.key), aws, artefact
    )
    bucket = deployment.execute(deployment.plan(), lambda _: None)["BucketName"]
    resources = aws("cloudformation").describe_stack_resources(StackName="arrives")["StackResources"]
    queue = next(found["PhysicalResourceId"] for found in resources if found["LogicalResourceId"] == "ArrivalQueue")

    for part in range(25):
        aws("s3").put_object(Bucket=bucket, Key=f"archive/date=2026-01-01/hour=00/{part}.gz", Body=b"x")
    until(lambda: databricks.runs and _waiting(aws, queue) == 0, "every arrival has left the queue")
    assert [run.state for run in databricks.runs] == ["PENDING"]


def _waiting(aws: Aws, queue: str) -> int:
    names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
    found = aws("sqs").get_queue_attributes(QueueUrl=queue, AttributeNames=names)["Attributes"]
    return sum(int(found[name]) for name in names)

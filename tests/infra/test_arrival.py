"""Run on arrival: one run for a burst, never two at once, nothing lost when Databricks fails, throttles or is slow.

The API is a real server on loopback; the secret lies in the emulator; the last test deploys the template's part and
lets objects land.
"""

import json
import logging
import platform
from collections.abc import Iterator
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest

from infra.arrival import handler as arrival
from infra.arrival.jobs_api import RESERVE_MS, JobsApi, RefusedError, Run, TokenRefusedError, UnavailableError
from infra.arrival.trigger import CLOCKS_MS, check_one_at_a_time, cover, covers
from infra.artefact import build
from infra.deploy import TEMPLATE, Deployment, DeploySettings, judged
from infra.template_model import Template
from infra.validate import NotDeployableError
from tests.support.databricks_fake import TOKEN, FakeDatabricks, Fault, running_databricks
from tests.support.local_workers import REGION, Aws, running_emulator, until

LANDED_MS = 1_700_000_000_000
JOB = 7


@dataclass
class SpentClock:
    """Sleeps by taking from what is left."""

    left_ms: float = 30_000
    slept_s: list[float] = field(default_factory=list)

    def sleep(self, seconds: float) -> None:
        self.slept_s.append(seconds)
        self.left_ms -= seconds * 1000


@pytest.fixture
def databricks() -> Iterator[FakeDatabricks]:
    with running_databricks() as fake:
        fake.add_job("lakestream-arrival", JOB)
        fake.begins = False
        yield fake


def api_of(fake: FakeDatabricks, clock: SpentClock | None = None, **more: Any) -> JobsApi:
    clock = clock or SpentClock()
    made = JobsApi(fake.url, JOB, lambda: TOKEN, lambda: clock.left_ms, clock)
    for name, value in more.items():
        setattr(made, name, value)
    return made


# --- which runs there are ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("state", "result", "start_ms", "does"),
    [
        ("PENDING", "", LANDED_MS - 60_000, True),
        ("QUEUED", "", 0, True),
        ("BLOCKED", "", 0, True),
        ("RUNNING", "", LANDED_MS - 1, False),
        ("RUNNING", "", LANDED_MS + CLOCKS_MS - 1, False),
        ("RUNNING", "", LANDED_MS + CLOCKS_MS, True),
        ("TERMINATING", "", LANDED_MS + CLOCKS_MS, True),
        ("TERMINATED", "SUCCESS", LANDED_MS + CLOCKS_MS, True),
        ("TERMINATED", "RUN_EXECUTION_ERROR", LANDED_MS + CLOCKS_MS, False),
        ("TERMINATED", "SKIPPED", LANDED_MS + CLOCKS_MS, False),
        ("TERMINATED", "SUCCESS", LANDED_MS - 1, False),
        ("WAITING", "", LANDED_MS - 1, False),
    ],
)
def test_a_run_covers_what_landed_before_it_began_to_read(state: str, result: str, start_ms: int, does: bool) -> None:  # noqa: FBT001 - a case
    assert covers(Run(1, state, result, start_ms, ""), LANDED_MS) is does


def test_a_burst_is_one_run(databricks: FakeDatabricks) -> None:
    outcomes = [cover(LANDED_MS + n, api_of(databricks)) for n in range(20)]
    assert [outcome.started for outcome in outcomes] == [True] + [False] * 19
    assert all(outcome.covers for outcome in outcomes)
    assert (len(databricks.runs), databricks.calls("run-now")) == (1, 1)


def test_what_lands_while_a_run_reads_gets_one_more_run_that_waits_for_it(databricks: FakeDatabricks) -> None:
    databricks.add_run(JOB, "RUNNING", start_time=LANDED_MS - 60_000)
    outcomes = [cover(LANDED_MS + n, api_of(databricks)) for n in range(5)]
    assert [outcome.run.state for outcome in outcomes] == ["QUEUED"] * 5
    assert [run.state for run in databricks.runs] == ["RUNNING", "QUEUED"]
    assert databricks.most_at_once == 1


def test_two_that_look_at_the_same_moment_start_one_run(databricks: FakeDatabricks) -> None:
    """The second's list does not show the first one's run yet."""
    first = cover(LANDED_MS, api_of(databricks))
    databricks.hidden = {first.run.run_id}
    second = cover(LANDED_MS + 1, api_of(databricks))
    assert second.run.run_id == first.run.run_id
    assert second.covers
    assert len(databricks.runs) == 1


def test_a_run_that_began_too_early_and_is_not_listed_yet_leaves_the_arrivals_waiting(
    databricks: FakeDatabricks,
) -> None:
    first = cover(LANDED_MS, api_of(databricks))
    databricks.hidden = {first.run.run_id}
    databricks.runs[0].state, databricks.runs[0].start_time = "RUNNING", LANDED_MS + 5
    assert not cover(LANDED_MS + 10, api_of(databricks)).covers


def test_after_a_run_that_failed_another_is_started(databricks: FakeDatabricks) -> None:
    databricks.add_run(JOB, "TERMINATED", start_time=LANDED_MS + 60_000, result="CLUSTER_ERROR")
    assert cover(LANDED_MS, api_of(databricks)).started


def test_a_run_that_was_deleted_does_not_block_the_next(databricks: FakeDatabricks) -> None:
    cover(LANDED_MS, api_of(databricks))
    databricks.runs[0].state = "DELETED"
    assert cover(LANDED_MS + 1, api_of(databricks)).covers
    assert [run.state for run in databricks.runs] == ["DELETED", "PENDING"]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"max_concurrent_runs": 2}, "may run 2 times at once"),
        ({"continuous": {"pause_status": "PAUSED"}}, "runs continuously"),
    ],
)
def test_a_job_that_could_run_twice_at_once_is_refused(
    settings: dict[str, Any], said: str, databricks: FakeDatabricks
) -> None:
    databricks.jobs[JOB] |= settings
    with pytest.raises(RefusedError, match=said):
        check_one_at_a_time(api_of(databricks))


# --- what the API does ------------------------------------------------------------------------------------------------

FAULTS = {
    "throttled": Fault(status=429, retry_after="2"),
    "throttled without a time": Fault(status=429),
    "fails": Fault(status=500),
    "unavailable": Fault(status=503, retry_after="soon"),
    "hangs up": Fault(cut=True),
    "slow": Fault(delay_s=0.5),
}


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS.keys())
@pytest.mark.parametrize("path", ["runs/list", "run-now", "runs/get"])
def test_what_passes_is_tried_again_and_one_run_is_started(fault: Fault, path: str, databricks: FakeDatabricks) -> None:
    databricks.faults.extend(Fault(**{**vars(fault), "path": path}) for _ in range(2))
    api = api_of(databricks, timeout_s=0.2)
    assert cover(LANDED_MS, api).covers
    assert api.retries == 2
    assert len(databricks.runs) == 1


@pytest.mark.parametrize("fault", [Fault(cut=True, after_work=True), Fault(delay_s=0.5, after_work=True)])
def test_a_run_whose_answer_was_lost_is_not_started_again(fault: Fault, databricks: FakeDatabricks) -> None:
    databricks.faults.append(Fault(**{**vars(fault), "path": "run-now"}))
    assert cover(LANDED_MS, api_of(databricks, timeout_s=0.2)).covers
    assert databricks.calls("run-now") == 2
    assert len(databricks.runs) == 1


def test_it_waits_as_long_as_it_is_told(databricks: FakeDatabricks) -> None:
    databricks.faults.append(Fault(status=429, retry_after="7"))
    clock = SpentClock()
    cover(LANDED_MS, api_of(databricks, clock))
    assert clock.slept_s == [7.0]


def test_it_gives_up_while_there_is_time_to_say_so(databricks: FakeDatabricks) -> None:
    databricks.faults.extend(Fault(status=503) for _ in range(200))
    clock = SpentClock()
    with pytest.raises(UnavailableError, match="runs/list: answered 503"):
        cover(LANDED_MS, api_of(databricks, clock))
    assert clock.left_ms >= RESERVE_MS
    assert len(clock.slept_s) > 3
    assert databricks.runs == []


def test_told_to_wait_longer_than_there_is_time_it_gives_up_at_once(databricks: FakeDatabricks) -> None:
    databricks.faults.append(Fault(status=429, retry_after="3600"))
    clock = SpentClock()
    with pytest.raises(UnavailableError):
        cover(LANDED_MS, api_of(databricks, clock))
    assert clock.slept_s == []


@pytest.mark.parametrize("status", [401, 403])
def test_a_refused_token_is_said_as_such_and_not_tried_again(status: int, databricks: FakeDatabricks) -> None:
    databricks.faults.append(Fault(status=status, body={"error_code": "403", "message": "Invalid access token."}))
    with pytest.raises(TokenRefusedError, match=r"refuses the token.*Invalid access token"):
        cover(LANDED_MS, api_of(databricks))
    assert len(databricks.requests) == 1


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (Fault(status=400, body={"message": "Job 7 does not exist."}), "Job 7 does not exist"),
        (Fault(status=404, body={"message": "nothing here"}), "answered 404"),
        (Fault(status=200, body="<html>Sign in</html>"), "<html>"),
    ],
)
def test_what_cannot_be_is_said_with_what_was_asked(answer: Fault, said: str, databricks: FakeDatabricks) -> None:
    databricks.faults.append(answer)
    with pytest.raises(RefusedError, match=said):
        api_of(databricks).newest_runs()


@pytest.mark.parametrize("host", ["http://adb.example.com", "adb.example.com", "ftp://127.0.0.1", ""])
def test_a_token_never_travels_in_the_clear(host: str, databricks: FakeDatabricks) -> None:
    with pytest.raises(RefusedError, match="no https address"):
        api_of(databricks, host=host).newest_runs()
    assert databricks.requests == []


# --- an invocation ----------------------------------------------------------------------------------------------------


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
    artefact = build(platform=f"manylinux2014_{platform.machine()}")
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

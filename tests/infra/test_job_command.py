"""`lakestream job run | stop | status` as commands, against an API that fails, throttles and answers slowly."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from databricks.sdk import WorkspaceClient
from databricks.sdk.core import Config

from config.errors import ConfigurationError
from streaming_job.operations import job_runs
from streaming_job.operations.job_runs import AlreadyRunsError, DatabricksJob, JobError, NotThereError
from tests.support.databricks_fake import TOKEN, FakeDatabricks, Fault, running_databricks

LAKESTREAM = Path(sys.executable).parent / "lakestream"
CHECKPOINT = "/Volumes/main/cars/checkpoints/lakestream"


@pytest.fixture
def databricks(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeDatabricks]:
    monkeypatch.setattr(job_runs, "_LOOK_EVERY_S", 0.01)
    with running_databricks() as fake:
        fake.looks_until_running = fake.looks_until_ended = 2
        yield fake


@pytest.fixture
def continuous(databricks: FakeDatabricks) -> FakeDatabricks:
    databricks.add_job("lakestream", continuous={"pause_status": "PAUSED", "task_retry_mode": "ON_FAILURE"})
    return databricks


@pytest.fixture
def triggered(databricks: FakeDatabricks) -> FakeDatabricks:
    databricks.add_job("lakestream")
    return databricks


def job(fake: FakeDatabricks, name: str = "lakestream", **more: Any) -> DatabricksJob:
    given = {"host": fake.url, "token": TOKEN, "auth_type": "pat", "http_timeout_seconds": 10} | more
    return DatabricksJob(WorkspaceClient(config=Config(retry_timeout_seconds=20, **given)), name)


# --- run --------------------------------------------------------------------------------------------------------------


def test_a_continuous_job_is_resumed_and_waited_for(continuous: FakeDatabricks) -> None:
    found = job(continuous)
    run = found.wait_until_at_work(found.run(), 30)
    assert run.state == "RUNNING"
    # Nothing else of its settings went: an update replaces what it names.
    assert continuous.jobs[7]["continuous"] == {"pause_status": "UNPAUSED", "task_retry_mode": "ON_FAILURE"}
    assert continuous.calls("run-now") == 0


def test_a_continuous_job_that_waits_between_two_runs_is_started_at_once(continuous: FakeDatabricks) -> None:
    """Not paused, no run: Databricks backs off after failures."""
    continuous.jobs[7]["continuous"]["pause_status"] = "UNPAUSED"
    continuous.keeps_running = False
    assert job(continuous).run().state == "PENDING"
    assert continuous.calls("run-now") == 1


def test_a_triggered_job_is_started_once(triggered: FakeDatabricks) -> None:
    found = job(triggered)
    assert found.wait_until_at_work(found.run(), 30).is_at_work
    assert len(triggered.runs) == 1


@pytest.mark.parametrize("state", ["PENDING", "RUNNING", "QUEUED", "TERMINATING"])
def test_a_second_run_is_refused_with_the_first_ones_page(state: str, triggered: FakeDatabricks) -> None:
    run = triggered.add_run(7, state, start_time=1_700_000_000_000)
    triggered.begins, triggered.looks_until_ended = False, 99
    with pytest.raises(AlreadyRunsError, match=f"/jobs/7/runs/{run.run_id}") as refused:
        job(triggered).run()
    assert refused.value.exit_code == 11
    assert triggered.calls("run-now") == 0


def test_a_run_that_somebody_else_started_in_between_is_the_only_one(triggered: FakeDatabricks) -> None:
    """Between the look and the start: the job's own limit skips ours, and we say so."""
    triggered.add_run(7, "RUNNING")
    triggered.hidden = {run.run_id for run in triggered.runs}
    with pytest.raises(AlreadyRunsError):
        job(triggered).run()
    assert triggered.most_at_once == 1


def test_a_run_that_fails_before_it_is_at_work_says_why_and_where(triggered: FakeDatabricks) -> None:
    found = job(triggered)
    run = found.run()
    triggered.runs[0].state, triggered.runs[0].result = "TERMINATED", "CLUSTER_ERROR"
    with pytest.raises(JobError, match=r"CLUSTER_ERROR.*/jobs/7/runs/"):
        found.wait_until_at_work(run, 30)


def test_a_run_that_was_at_work_between_two_looks_is_no_failure(triggered: FakeDatabricks) -> None:
    found = job(triggered)
    run = found.run()
    triggered.runs[0].state, triggered.runs[0].result = "TERMINATED", "SUCCESS"
    assert found.wait_until_at_work(run, 30).ended_well


def test_a_run_that_does_not_get_to_work_in_time_goes_on_and_is_named(triggered: FakeDatabricks) -> None:
    triggered.begins = False
    found = job(triggered)
    with pytest.raises(JobError, match=r"the run is PENDING after 0.05 s \(it goes on: http"):
        found.wait_until_at_work(found.run(), 0.05)


# --- stop -------------------------------------------------------------------------------------------------------------


def test_a_continuous_job_is_paused_before_it_is_cancelled_so_that_no_other_run_comes(
    continuous: FakeDatabricks,
) -> None:
    continuous.jobs[7]["continuous"]["pause_status"] = "UNPAUSED"
    continuous.add_run(7, "RUNNING")
    (ended,) = job(continuous).stop(30)
    assert ended.has_ended
    assert ended.result == "CANCELED"
    assert [run.state for run in continuous.runs] == ["TERMINATED"]
    posts = [path for method, path in continuous.requests if method == "POST"]
    assert [path.rsplit("/", 1)[1] for path in posts] == ["update", "cancel-all"]


def test_what_is_queued_is_ended_too(triggered: FakeDatabricks) -> None:
    triggered.add_run(7, "RUNNING")
    triggered.add_run(7, "QUEUED", start_time=0)
    assert len(job(triggered).stop(30)) == 2


def test_stopping_what_does_not_run_is_done_at_once(continuous: FakeDatabricks) -> None:
    assert job(continuous).stop(30) == []
    assert [path for method, path in continuous.requests if method == "POST"] == []


def test_a_run_that_does_not_end_in_time_is_named(triggered: FakeDatabricks) -> None:
    triggered.add_run(7, "RUNNING")
    triggered.looks_until_ended = 10_000
    with pytest.raises(JobError, match=r"is still TERMINATING after 0.05 s \(http.*/runs/"):
        job(triggered).stop(0.05)


# --- status -----------------------------------------------------------------------------------------------------------


def test_the_run_at_work_is_told_before_one_that_waits_for_it(triggered: FakeDatabricks) -> None:
    triggered.add_run(7, "RUNNING")
    triggered.add_run(7, "QUEUED", start_time=0)
    newest = job(triggered).newest()
    assert newest is not None
    assert newest.is_at_work


def test_the_last_commit_is_told_by_the_checkpoint(triggered: FakeDatabricks) -> None:
    found = job(triggered)
    assert found.last_commit(CHECKPOINT) is None, "before the first batch there is no folder"
    names = ["9", "10", "11.compact", ".12.tmp"]
    triggered.folders[f"{CHECKPOINT}/commits"] = [
        {"name": name, "path": f"{CHECKPOINT}/commits/{name}", "last_modified": 1_700_000_000_000 + 1000 * place}
        for place, name in enumerate(names)
    ]
    commit = found.last_commit(f"{CHECKPOINT}/")
    assert commit is not None
    assert (commit.batch, commit.at.isoformat()) == (10, "2023-11-14T22:13:21+00:00")


def test_a_checkpoint_outside_of_volumes_is_said_to_be_out_of_sight(triggered: FakeDatabricks) -> None:
    with pytest.raises(ConfigurationError, match="is in no volume"):
        job(triggered).last_commit("s3://bucket/checkpoint")


# --- what the API does ------------------------------------------------------------------------------------------------

FAULTS = {
    "throttled": Fault(status=429, retry_after="0"),
    "fails": Fault(status=500, body={"error_code": "INTERNAL_ERROR", "message": "as the test asked"}),
    "unavailable": Fault(status=503, retry_after="0"),
    "hangs up": Fault(cut=True),
}


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS.keys())
def test_what_passes_is_tried_again_and_one_run_is_started(fault: Fault, triggered: FakeDatabricks) -> None:
    for path in ("jobs/list", "run-now"):
        triggered.faults.append(Fault(**{**vars(fault), "path": path}))
    found = job(triggered)
    assert found.wait_until_at_work(found.run(), 30).is_at_work
    assert not triggered.faults
    assert len(triggered.runs) == 1


@pytest.mark.parametrize("fault", [Fault(cut=True, after_work=True), Fault(delay_s=1.5, after_work=True)])
def test_a_run_whose_answer_was_lost_or_late_is_not_started_again(fault: Fault, triggered: FakeDatabricks) -> None:
    triggered.faults.append(Fault(**{**vars(fault), "path": "run-now"}))
    job(triggered, http_timeout_seconds=1).run()
    assert triggered.calls("run-now") == 2
    assert len(triggered.runs) == 1


def test_an_api_that_keeps_failing_is_one_clear_error(triggered: FakeDatabricks) -> None:
    triggered.faults.extend([FAULTS["fails"]] * 50)
    with pytest.raises(JobError, match="Databricks fails: as the test asked"):
        job(triggered)


@pytest.mark.parametrize(("status", "code"), [(401, "UNAUTHENTICATED"), (403, "PERMISSION_DENIED")])
def test_a_refused_token_says_what_is_needed(status: int, code: str, triggered: FakeDatabricks) -> None:
    triggered.faults.append(Fault(status=status, body={"error_code": code, "message": "Token is expired"}))
    with pytest.raises(JobError, match=r"Databricks refuses: Token is expired.*CAN_MANAGE_RUN"):
        job(triggered)


def test_a_job_that_is_not_there_is_refused_by_its_name(triggered: FakeDatabricks) -> None:
    with pytest.raises(ConfigurationError, match="there is no job named 'lakestraem'"):
        job(triggered, "lakestraem")


def test_a_job_that_is_not_there_is_refused_by_its_id(triggered: FakeDatabricks) -> None:
    with pytest.raises(NotThereError, match="Job 99 does not exist"):
        job(triggered, "99")


def test_two_jobs_of_one_name_are_told_apart_by_id(triggered: FakeDatabricks) -> None:
    triggered.add_job("lakestream", 8)
    with pytest.raises(ConfigurationError, match=r"2 jobs are named 'lakestream': 7, 8 \(give the id"):
        job(triggered)
    assert job(triggered, "8").job_id == 8


# --- the commands -----------------------------------------------------------------------------------------------------


def command(
    fake: FakeDatabricks | None, *arguments: str | Path, token: str = TOKEN
) -> subprocess.CompletedProcess[str]:
    given = {name: value for name, value in os.environ.items() if not name.startswith("DATABRICKS_")}
    given |= {"HOME": "/nonexistent", "NO_PROXY": "127.0.0.1"}
    if fake is not None:
        given |= {"DATABRICKS_HOST": fake.url, "DATABRICKS_TOKEN": token}
    return subprocess.run(
        [LAKESTREAM, "job", *arguments], capture_output=True, text=True, env=given, check=False, timeout=120
    )


def test_status_run_and_stop_as_somebody_uses_them(continuous: FakeDatabricks, tmp_path: Path) -> None:
    """One after the other, in words and as JSON, with their exit codes."""
    config = tmp_path / "job.yaml"
    config.write_text(
        yaml.safe_dump(
            {
                "aws": {"region": "us-east-1"},
                "source": {"stream": "changes"},
                "lake": {"root": "/lake", "checkpoint": CHECKPOINT},
                "tables": ["t"],
            }
        )
    )
    continuous.folders[f"{CHECKPOINT}/commits"] = [{"name": "3", "last_modified": int(time.time() * 1000) - 5_000}]
    before = command(continuous, "status")
    assert before.returncode == 12, before.stderr
    assert "lakestream (7), paused" in before.stdout
    assert "never started" in before.stdout
    assert "unknown: give --config" in before.stdout

    started = command(continuous, "run", "--json")
    assert started.returncode == 0, started.stderr
    assert json.loads(started.stdout)["run"]["state"] == "RUNNING"

    second = command(continuous, "run")
    assert second.returncode == 11
    assert second.stdout == ""
    assert len(second.stderr.strip().splitlines()) == 1
    assert "lakestream has a run, RUNNING since" in second.stderr

    during = command(continuous, "status", "--config", config, "--json")
    assert during.returncode == 0, during.stderr
    said = json.loads(during.stdout)
    assert (said["paused"], said["run"]["state"], said["last_commit"]["batch"]) == (False, "RUNNING", 3)
    assert said["run"]["page"].startswith(continuous.url)
    assert "batch 3" in command(continuous, "status", "--config", config).stdout

    ended = command(continuous, "stop")
    assert ended.returncode == 0, ended.stderr
    assert "lakestream: ended, CANCELED" in ended.stdout
    assert json.loads(command(continuous, "stop", "--json").stdout)["ended"] == []


@pytest.mark.parametrize(
    ("token", "code", "said"),
    [("expired", 1, "Databricks refuses"), ("", 2, "no way into Databricks")],
)
def test_without_a_way_in_it_is_one_line(token: str, code: int, said: str, continuous: FakeDatabricks) -> None:
    done = command(continuous if token else None, "status", token=token)
    assert (done.returncode, len(done.stderr.strip().splitlines())) == (code, 1)
    assert said in done.stderr
    assert TOKEN not in done.stderr

"""Run on arrival: one run for a burst, never two at once, nothing lost when Databricks fails, throttles or is slow."""

from dataclasses import dataclass, field
from typing import Any

import pytest

from infra.arrival.jobs_api import RESERVE_MS, JobsApi, RefusedError, Run, TokenRefusedError, UnavailableError
from infra.arrival.trigger import CLOCKS_MS, check_one_at_a_time, cover, covers
from tests.support.arrivals import JOB, LANDED_MS
from tests.support.databricks_fake import TOKEN, FakeDatabricks, Fault


@dataclass
class SpentClock:
    """Sleeps by taking from what is left."""

    left_ms: float = 30_000
    slept_s: list[float] = field(default_factory=list)

    def sleep(self, seconds: float) -> None:
        self.slept_s.append(seconds)
        self.left_ms -= seconds * 1000


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

"""The page's first sentence, from plain values."""

from dataclasses import replace

import pytest

from streaming_job.latency.dashboard.verdict import (
    ARCHIVE,
    KINESIS,
    TABLE_STREAM,
    Facts,
    Keeping,
    Level,
    problems,
    verdict,
)

HOPS = {
    "origin_to_bridge": 200.0,
    "bridge": 10.0,
    "bridge_to_kinesis": 40.0,
    "kinesis_to_batch": 220.0,
    "batch_to_commit": 300.0,
}
FRESH = Facts(
    target_ms=2_000, job_answered=True, commit_age_s=0.4, p95_ms=900, recent_ms=770, lag_ms=0, hops_recent_ms=HOPS
)
SLOW_WAIT = HOPS | {"kinesis_to_batch": 9_000.0}


@pytest.mark.parametrize(
    ("facts", "state", "level", "hop"),
    [
        (FRESH, "fresh", Level.GOOD, None),
        (Facts(target_ms=2_000, job_answered=False), "connecting", Level.UNKNOWN, None),
        (replace(FRESH, job_silent_s=10, job_refused=True), "stopped", Level.BAD, "kinesis_to_batch"),
        (replace(FRESH, job_silent_s=10), "silent", Level.BAD, "kinesis_to_batch"),
        (replace(FRESH, job_silent_s=1), "fresh", Level.GOOD, None),
        (replace(FRESH, p95_ms=None, job_stalled_s=121), "stalled", Level.BAD, "kinesis_to_batch"),
        (replace(FRESH, lag_ms=5_000, job_stalled_s=121), "stalled", Level.BAD, "kinesis_to_batch"),
        (replace(FRESH, job_silent_s=10, job_stalled_s=121), "silent", Level.BAD, "kinesis_to_batch"),
        (replace(FRESH, lag_ms=5_000), "late", Level.BAD, "kinesis_to_batch"),
        (replace(FRESH, lag_ms=5_000, path_silent=("mapping",)), "late", Level.BAD, "origin_to_bridge"),
        (replace(FRESH, path_silent=("mapping",)), "blind", Level.BAD, None),
        (replace(FRESH, commit_age_s=None, p95_ms=None), "empty", Level.UNKNOWN, None),
        (replace(FRESH, commit_age_s=None, p95_ms=None, job_ready=False), "starting", Level.UNKNOWN, None),
        (replace(FRESH, p95_ms=None, commit_age_s=400), "idle", Level.GOOD, None),
        (replace(FRESH, p95_ms=11_000), "recovering", Level.WATCH, None),
        (
            replace(FRESH, p95_ms=11_000, recent_ms=9_500, hops_recent_ms=SLOW_WAIT),
            "late",
            Level.BAD,
            "kinesis_to_batch",
        ),
        (replace(FRESH, p95_ms=11_000, recent_ms=None, hops_recent_ms={}), "late", Level.BAD, "kinesis_to_batch"),
    ],
)
def test_the_verdict_says_what_the_figures_say(facts: Facts, state: str, level: Level, hop: str | None) -> None:
    said = verdict(facts)
    assert (said.state, said.level, said.hop) == (state, level, hop)
    assert said.sentence.endswith(".")


def test_a_stopped_job_is_never_called_fresh_however_good_its_last_figures() -> None:
    said = verdict(replace(FRESH, job_silent_s=42, job_refused=True, commit_age_s=42))
    assert said.level is Level.BAD
    assert said.number_ms == 42_000


@pytest.mark.parametrize("stream", [KINESIS, TABLE_STREAM])
def test_past_the_retention_guard_nothing_else_is_said_first_not_even_that_the_job_is_stopped(stream: str) -> None:
    stopped = replace(FRESH, job_silent_s=42, job_refused=True)
    said = verdict(replace(stopped, keeping=Keeping(stream, used=0.76, left_ms=20_000_000)))
    assert (said.state, said.level, said.number_ms) == ("endangered", Level.BAD, 20_000_000)
    assert "76%" in said.detail
    assert stream in said.detail
    assert verdict(replace(stopped, keeping=Keeping(stream, used=0.75, left_ms=1))).state == "stopped"
    assert verdict(replace(FRESH, keeping=Keeping(stream, used=1.1, left_ms=-5))).sentence == "Changes are being lost."


def test_every_problem_says_what_to_do() -> None:
    counted = (
        *("losses", "trimmed", "parked", "refused", "unproven"),
        *("near_expiry", "archive_failures", "latency_flush_failures", "skewed"),
    )
    figures = dict.fromkeys(counted, 3.0)
    found = problems(
        figures, {"rejects": 2, "dead_letters": 1}, {"verdict": "different", "tables": ["cars"]}, ["delivery"]
    )
    assert len(found) == len(counted) + 4
    assert all(problem.what and problem.do for problem in found)
    levels = [problem.level for problem in found]
    assert levels == sorted(levels, key=[Level.BAD, Level.WATCH].index)


def test_counts_of_zero_and_counts_unknown_are_no_problem() -> None:
    assert problems({"parked": 0, "skewed": 0.0, "latency_flush_failures": None}, {"rejects": 0.0}, None) == []


def test_where_the_job_reads_the_archive_the_sentences_say_so() -> None:
    waiting = replace(FRESH, lag_ms=60_000, target_ms=2_000)
    assert "in Kinesis" in verdict(waiting).detail
    assert verdict(replace(waiting, waits_in=ARCHIVE)).detail == verdict(waiting).detail.replace("Kinesis", ARCHIVE)

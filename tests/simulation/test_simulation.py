"""The simulation in the suite: some runs, every planted bug, and that a seed says all there is to say of a run."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.simulation.bugs import BUGS
from tests.simulation.campaign import campaign, hunts
from tests.simulation.runner import draw, run, shrink

SEEDS = int(os.environ.get("LAKESTREAM_SIM_SEEDS", "300"))
ROOT = Path(__file__).parents[2]
ONCE_BROKEN = (200351, 404410)
"""Seeds that found something, which was mended: drawn by today's scenarios they may show less than they did."""


def test_no_promise_is_broken_whatever_meets_in_these_runs() -> None:
    """`make sim SEEDS=20000` runs more of them; a seed that fails here is run again by `make sim SEED=…`."""
    *_, report = campaign(0, SEEDS)
    assert [(found.seed, found.promise, found.what) for found in report.found] == []
    assert report.seeds == SEEDS
    assert len(report.faults) >= 50


@pytest.mark.parametrize("seed", ONCE_BROKEN)
def test_what_was_found_once_is_not_back(seed: int) -> None:
    assert run(draw(seed)).promise is None


def test_every_planted_bug_is_found_within_its_number_of_runs() -> None:
    missed = [hunted.bug.name for hunted in hunts() if hunted.found is None]
    assert missed == []
    assert len(BUGS) >= 20


def test_a_seed_gives_the_same_run_in_every_process() -> None:
    """Neither the order of sets nor the clock of the machine may matter."""
    code = "from tests.simulation.runner import draw, run; print(*(run(draw(seed)).trace for seed in range(12)))"
    here = " ".join(str(run(draw(seed)).trace) for seed in range(12))
    environment = {**os.environ, "PYTHONHASHSEED": "1"}
    there = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    )
    assert there.stdout.split() == here.split()


def test_a_broken_run_is_cut_down_to_what_it_takes() -> None:
    bug = next(bug for bug in BUGS if bug.name == "the guard dropped")
    planned = next(p for p in map(draw, range(100)) if run(p, bug.parts).promise)
    promise = run(planned, bug.parts).promise
    assert promise is not None
    short = shrink(planned, promise, bug.parts)
    assert run(short, bug.parts).promise == promise
    assert len(short.steps) < len(planned.steps) / 2
    for at in range(len(short.steps)):
        fewer = short.__class__(short.seed, short.theme, short.setup, short.steps[:at] + short.steps[at + 1 :])
        assert run(fewer, bug.parts).promise != promise


def test_a_run_without_a_bug_keeps_every_promise_that_a_planted_bug_breaks() -> None:
    """What is found is the bug's doing: the same seeds are clean without it."""
    for bug in BUGS[:3]:
        planned = next(p for p in map(draw, range(200)) if run(p, bug.parts).promise)
        assert run(planned).promise is None


def test_the_command_runs_one_seed_again() -> None:
    command = [sys.executable, "-m", "tests.simulation", "--seed", "3"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert "seed 3: every promise was kept" in done.stdout

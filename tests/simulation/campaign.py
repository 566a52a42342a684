"""Many seeds, over the machine's cores: what was found, and how many faults of each kind it took."""

import json
import os
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from multiprocessing import get_context
from pathlib import Path
from typing import Final

from tests.simulation.bugs import BUGS, Bug
from tests.simulation.runner import Outcome, draw, run

PORTION: Final = 50
"""Seeds of one task."""
_CORES: Final = os.cpu_count() or 1


@dataclass
class Report:
    first: int
    seeds: int = 0
    changes: int = 0
    found: list[Outcome] = field(default_factory=list)
    faults: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0

    def add(self, outcomes: Iterable[Outcome]) -> None:
        for outcome in outcomes:
            self.seeds += 1
            self.changes += outcome.changes
            self.faults.update(outcome.faults)
            if outcome.promise is not None:
                self.found.append(outcome)

    def write(self, path: Path) -> None:
        body = {
            "seeds": self.seeds,
            "first": self.first,
            "violations": len(self.found),
            "found": [{"seed": o.seed, "promise": o.promise, "what": o.what} for o in self.found],
            "faults": dict(sorted(self.faults.items())),
            "changes": self.changes,
            "seconds": round(self.seconds, 1),
            "seeds_per_minute": round(self.seeds / self.seconds * 60) if self.seconds else 0,
        }
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(body, indent=2) + "\n", encoding="utf-8")


def _pool() -> ProcessPoolExecutor:
    """Processes of their own from the start: a fork of one that runs Spark would take its threads' locks along."""
    return ProcessPoolExecutor(_CORES, mp_context=get_context("spawn"))


def campaign(first: int, seeds: int) -> Iterator[Report]:
    """The report so far, after each portion; it stops early when something was found."""
    report, began_s = Report(first), time.monotonic()
    portions = iter([range(at, min(at + PORTION, first + seeds)) for at in range(first, first + seeds, PORTION)])
    with _pool() as pool:
        while ahead := list(islice(portions, 4 * _CORES)):
            for outcomes in pool.map(run_all, ahead):
                report.add(outcomes)
                report.seconds = time.monotonic() - began_s
                yield report
            if report.found:
                return


def run_all(seeds: range) -> list[Outcome]:
    return [run(draw(seed)) for seed in seeds]


@dataclass(frozen=True)
class Hunt:
    """What became of the hunt for a planted bug."""

    bug: Bug
    seeds: int
    """Runs it took."""
    found: Outcome | None


def hunts() -> Iterator[Hunt]:
    """Every planted bug, in the catalogue's order."""
    with _pool() as pool:
        for bug, (seeds, found) in zip(BUGS, pool.map(hunt, range(len(BUGS))), strict=True):
            yield Hunt(bug, seeds, found)


def hunt(number: int) -> tuple[int, Outcome | None]:
    """The first seed that shows the bug, and after how many runs."""
    bug = BUGS[number]
    seeds = (planned for planned in map(draw, range(10**9)) if bug.theme in (None, planned.theme))
    for runs, planned in enumerate(islice(seeds, bug.within), start=1):
        outcome = run(planned, bug.parts)
        if outcome.promise is not None:
            return runs, outcome
    return bug.within, None

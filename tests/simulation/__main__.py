"""`python -m tests.simulation`: many seeds, one again, or the planted bugs.

Exit code 1 where a promise was not kept, or a planted bug was not found.
"""

import argparse
import sys
from pathlib import Path

from tests.simulation.bugs import BUGS
from tests.simulation.campaign import Report, campaign, hunts
from tests.simulation.runner import Outcome, draw, run, shrink

_REPORT = Path("build/sim.json")
_SHOWN_MAX = 10
"""Seeds; the report has them all."""


def main() -> int:
    given = _arguments()
    if given.seed is not None:
        outcome = run(draw(given.seed))
        print(f"seed {given.seed}: {outcome.promise or 'every promise was kept'}")
        return _explain([outcome] if outcome.promise else [])
    if given.bugs:
        return _hunt_all()
    report = Report(given.first)
    for report in campaign(given.first, given.seeds):
        if sys.stderr.isatty():
            print(f"\r{report.seeds:,} seeds, {len(report.found)} violations", end="", file=sys.stderr, flush=True)
    report.write(_REPORT)
    print(
        f"\r{report.seeds:,} seeds from {report.first} in {report.seconds:.0f} s: {report.changes:,} changes, "
        f"{sum(report.faults.values()):,} faults of {len(report.faults)} kinds, "
        f"{len(report.found)} violations ({_REPORT})"
    )
    return _explain(report.found)


def _hunt_all() -> int:
    missed = 0
    print(f"{'planted bug':45} {'found after':>11}  by the checker of")
    for hunted in hunts():
        missed += hunted.found is None
        seeds = f"{hunted.seeds} of {hunted.bug.within}"
        print(f"{hunted.bug.name:45} {seeds:>11}  {hunted.found.promise if hunted.found else 'NOT FOUND'}", flush=True)
    print(f"{len(BUGS) - missed} of {len(BUGS)} planted bugs found")
    return 1 if missed else 0


def _explain(found: list[Outcome]) -> int:
    """The first of them, cut down to the shortest history that still shows it."""
    for outcome in found[:1]:
        assert outcome.promise is not None
        planned = draw(outcome.seed)
        short = shrink(planned, outcome.promise)
        print(f"\nseed {outcome.seed} breaks “{outcome.promise}”\n  {run(short).what}")
        print(f"\nthe shortest history found, {len(short.steps)} of {len(planned.steps)} steps:")
        print("\n".join(f"  {at:3} {action}" for at, action in enumerate(short.steps, start=1)))
        print(f"\nin a world of {short.setup}\n\nagain: python -m tests.simulation --seed {outcome.seed}")
    if len(found) > 1:
        print("also:", ", ".join(f"{outcome.seed} ({outcome.promise})" for outcome in found[1:_SHOWN_MAX]))
    return 1 if found else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seeds", type=int, default=1_000, help="how many")
    parser.add_argument("--first", type=int, default=0, help="the first of them")
    parser.add_argument("--seed", type=int, help="this one alone, once more")
    parser.add_argument("--bugs", action="store_true", help="the planted bugs: each must be found")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())

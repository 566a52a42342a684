"""`python -m tests.simulation`: many seeds, or one again. Exit code 1 where a promise was not kept."""

import argparse
import sys
from pathlib import Path

from tests.simulation.campaign import Report, campaign
from tests.simulation.runner import Outcome, draw, run, shrink

_REPORT = Path("build/sim.json")


def main() -> int:
    given = _arguments()
    if given.seed is not None:
        outcome = run(draw(given.seed))
        print(f"seed {given.seed}: {outcome.promise or 'every promise was kept'}")
        return _explain([outcome] if outcome.promise else [])
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
        print("also:", ", ".join(f"{outcome.seed} ({outcome.promise})" for outcome in found[1:]))
    return 1 if found else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seeds", type=int, default=1_000, help="how many")
    parser.add_argument("--first", type=int, default=0, help="the first of them")
    parser.add_argument("--seed", type=int, help="this one alone, once more")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())

"""`make soak`: processes of ours killed at random moments under load, and each time everything arrives, once, in order.

The embedded stack runs in `build/soak/stack`; whatever ends is started again by `lakestream local restart`, as a user
or his service manager would. After every few kills the writing stops and all of it is proven. Broken off, it goes on
where it was; the stack stays for it.
"""

import argparse
import shutil
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import groupby
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.table import Table

from infra.local.home import write_json
from tests.soak.plan import Kill, kills
from tests.soak.state import Done, State
from tests.support.local_stack import configuration
from tests.support.whole_proof import prove
from tests.support.whole_stack import TTL_ATTRIBUTE, WholeStack

_FOLDER: Final = Path("build/soak")
_STATE: Final = _FOLDER / "state.json"
_REPORT: Final = Path("build/soak.json")
_LOOK_EVERY_S: Final = 0.2
_RECOVERED_WITHIN_S: Final = 400.0
_MARKER_LIVES_S: Final = 30
"""Then it expires: the expiries have work too."""

_console = Console(stderr=True, highlight=False)


class Supervisor:
    """Starts again what has ended, all the time."""

    def __init__(self, stack: WholeStack, state: State) -> None:
        self._stack, self._state = stack, state
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.is_at_work = False

    def _run(self) -> None:
        while not self._stop.wait(_LOOK_EVERY_S):
            self.is_at_work = not self._stack.all_run()
            if self.is_at_work and self._stack.restart().code != 0:
                self._state.restarts_failed += 1

    @contextmanager
    def running(self) -> Iterator[None]:
        self._thread.start()
        try:
            yield
        finally:
            self._stop.set()
            self._thread.join()


class Recoveries:
    """Kills that the stack has not recovered from, each with the item that was written after it."""

    def __init__(self, stack: WholeStack, supervisor: Supervisor, state: State) -> None:
        self._stack, self._supervisor, self._state = stack, supervisor, state
        self._waiting: list[tuple[Kill, str, float]] = []

    def add(self, kill: Kill) -> None:
        killed_at = time.monotonic()
        marker = f"soak-{kill.number}-{time.time_ns():x}"
        self._stack.put(marker, **{TTL_ATTRIBUTE: {"N": str(int(time.time()) + _MARKER_LIVES_S)}})
        self._waiting.append((kill, marker, killed_at))

    def wait(self, within_s: float, *, for_all: bool) -> None:
        """So long; with `for_all` until the stack has recovered, which it must within it."""
        deadline = time.monotonic() + within_s
        while time.monotonic() < deadline and not (for_all and not self._waiting):
            self._look()
            time.sleep(_LOOK_EVERY_S)
        if for_all and self._waiting:
            self._stack.wait(lambda: False, f"recovery from {self._waiting[0][0]}", within_s=0)

    def _look(self) -> None:
        if self._supervisor.is_at_work or not self._stack.all_run():
            return
        for waiting in list(self._waiting):
            kill, marker, killed_at = waiting
            if self._stack.has_arrived(marker):
                took_s = round(time.monotonic() - killed_at, 2)
                self._waiting.remove(waiting)
                self._state.waiting.append(Done(kill.victim, kill.is_spark, kill.overlaps, took_s))
                _console.print(f"{kill.number + 1:4} {kill.victim:14} recovered after {took_s:5.1f} s")


def soak(count: int, *, rate: float, seed: int, prove_every: int) -> State:
    state = State.load(_STATE, seed)
    if len(state.proven) >= count and not state.failure:
        return state
    stack = _stack(state)
    left = list(kills(seed, state.kills, count))
    _console.print(f"{state.kills} kills done, {len(left)} to go; pages and logs in {stack.home.path}")
    portions = [list(portion) for _, portion in groupby(left, lambda kill: kill.number // prove_every)]
    for portion in portions or [[]]:
        began = time.monotonic()
        if portion:
            _kill_under_load(stack, state, portion, rate)
        state.prove(prove(stack))
        state.seconds += time.monotonic() - began
        state.save(_STATE)
        write_json(_REPORT, state.report())
        if state.failure:
            _console.print(f"[red]not proven[/]: {state.failure}; the stack is left as it is")
            return state
        _console.print(
            f"     proven after {len(state.proven)} kills: {state.proofs[-1].changes:,} changes of this stack"
        )
    stack.down()
    return state


def _stack(state: State) -> WholeStack:
    """The one that was left, or a new one."""
    stack = WholeStack(_FOLDER / "stack")
    if state.failure or not (stack.runs("emulator") and stack.home.stack_file.exists()):
        stack.down()
        state.begin_stack()
        shutil.rmtree(stack.home.path, ignore_errors=True)
        stack.home.path.mkdir(parents=True)
        stack = WholeStack.up(
            stack.home.path,
            configuration(_FOLDER, parameters={"TableTtlAttribute": TTL_ATTRIBUTE, "BufferSeconds": 10}),
        )
    return stack


def _kill_under_load(stack: WholeStack, state: State, portion: list[Kill], rate: float) -> None:
    supervisor = Supervisor(stack, state)
    recoveries = Recoveries(stack, supervisor, state)
    with supervisor.running():
        with stack.load(rate, seed=portion[0].number) as written:
            for kill in portion:
                if not kill.overlaps:
                    recoveries.wait(_RECOVERED_WITHIN_S, for_all=True)
                    state.save(_STATE)
                recoveries.wait(kill.pause_s, for_all=False)
                stack.kill(kill.victim, kill.rng, _RECOVERED_WITHIN_S)
                recoveries.add(kill)
            recoveries.wait(_RECOVERED_WITHIN_S, for_all=True)
        assert not written[0].errors, written[0].error_last


def _shown(state: State) -> Table:
    report = state.report()
    table = Table("process", "kills", "recovery p50", "longest", box=None)
    for name, taken in report["recovery_s"].items():
        count = report["kills"] if name == "all" else report["by_process"][name]
        table.add_row(name, str(count), f"{taken['p50']} s", f"{taken['max']} s")
    verdict = ", ".join(f"{name} {report[name]}" for name in ("lost", "stale", "twice", "rejects"))
    table.caption = f"{report['kills']} kills, {report['kills_of_spark']} of Spark: {verdict}"
    return table


def main() -> int:
    parser = argparse.ArgumentParser(prog="make soak", description=__doc__)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--rate", type=float, default=20, help="writes a second meanwhile")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--prove-every", type=int, default=50, help="kills")
    given = parser.parse_args()
    try:
        state = soak(given.kills, rate=given.rate, seed=given.seed, prove_every=given.prove_every)
    except KeyboardInterrupt:
        _console.print("broken off; `make soak` goes on, `lakestream local down --dir build/soak/stack` ends the stack")
        return 130
    Console().print(_shown(state))
    return 1 if state.failure else 0


if __name__ == "__main__":
    sys.exit(main())

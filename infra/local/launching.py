"""Processes of the stack, one by one: noted in the journal as each starts, and waited for until it answers."""

import contextlib
import os
import signal
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

from infra.local import emulator, processes
from infra.local.errors import NotReadyError
from infra.local.home import Home
from infra.local.processes import Identity


class Launcher:
    def __init__(self, home: Home, ready_within_s: float, known: list[Identity]) -> None:
        """`known` is kept up to date: what runs of the stack, in the order it was first started."""
        self._home, self._ready_within_s, self._known = home, ready_within_s, known
        self._started: dict[str, Identity] = {}

    def start(self, name: str, command: Sequence[str], env: Mapping[str, str], answers_at: str) -> None:
        log = self._home.logs / f"{name}.log"
        # Noted in the same breath, so that whatever interrupts us finds it in the list.
        with uninterrupted():
            try:
                process = processes.start(name, command, env=env, log=log, cwd=self._home.path, answers_at=answers_at)
            except OSError as error:
                raise NotReadyError(
                    f"{name} cannot be started, {command[0]}: {error.strerror}", hint="run `make setup`"
                ) from error
            self._started[name] = process
            self._note(process)
            self._home.remember(self._known)

    def _note(self, process: Identity) -> None:
        for place, before in enumerate(self._known):
            if before.name == process.name:
                self._known[place] = process
                return
        self._known.append(process)

    def wait(self, name: str) -> None:
        """Until it answers; its own end, or that of another that was started with it, ends the waiting."""
        address = self._started[name].answers_at
        assert address is not None
        emulator.wait_until(
            lambda: emulator.answers(address) == 200, what=name, within_s=self._ready_within_s, watch=self._all_alive
        )

    def _all_alive(self) -> None:
        for process in self._started.values():
            if not processes.is_alive(process):
                said = processes.last_lines(Path(process.log), 3)
                raise NotReadyError(f"{process.name} ended before it was ready: {said}", hint=f"see {process.log}")


def end_as_by_ctrl_c() -> None:
    """When `kill` or `timeout` ask for it: by itself Python would leave everything that was started."""
    signal.signal(signal.SIGTERM, _interrupt)


def _interrupt(number: int, _frame: FrameType | None) -> None:
    signal.signal(number, signal.SIG_IGN)  # told twice, as by timeout and make, it would break off the ending
    raise KeyboardInterrupt


@contextlib.contextmanager
def uninterrupted() -> Iterator[None]:
    """Signals that arrive inside are delivered after it: half noted or half ended is what leaves processes behind."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    waiting: list[int] = []
    before: dict[int, Any] = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    for number in before:
        signal.signal(number, lambda arrived, _frame: waiting.append(arrived))
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        for number in waiting:
            os.kill(os.getpid(), number)

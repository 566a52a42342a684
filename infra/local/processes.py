"""Processes of the embedded stack: started in sessions of their own, known again later, ended with all they started.

A pid alone does not name a process: it may have been given to a stranger since. Each is kept with its start time.
"""

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil

_SAME_START_S = 0.05
"""Start times are read in clock ticks of 10 ms; a pid is not given away twice within this."""
_LOOK_EVERY_S = 0.03
_KILL_S = 5.0


@dataclass(frozen=True, kw_only=True)
class Identity:
    """One process, for good: a pid and when it started."""

    name: str
    pid: int
    started_s: float
    """Comparable only with another of the same machine, since the same boot."""
    log: str
    command: tuple[str, ...] = ()
    """What starts it again."""
    answers_at: str | None = None
    """Where it answers with 200 once it is ready."""

    @classmethod
    def of_json(cls, name: str, value: Mapping[str, Any]) -> "Identity":
        return cls(
            name=name,
            pid=int(value["pid"]),
            started_s=float(value["started_s"]),
            log=str(value["log"]),
            command=tuple(value["command"]),
            answers_at=value["answers_at"],
        )

    def as_json(self) -> dict[str, object]:
        return {key: value for key, value in asdict(self).items() if key != "name"}


def start(
    name: str, command: Sequence[str], *, env: Mapping[str, str], log: Path, cwd: Path, answers_at: str | None = None
) -> Identity:
    """Its output goes to `log`; a session of its own keeps the terminal's Ctrl-C away and its children together."""
    with log.open("ab") as output:
        process = subprocess.Popen(
            list(command),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env=dict(env),
            cwd=cwd,
        )
    return Identity(
        name=name,
        pid=process.pid,
        started_s=_started_s(psutil.Process(process.pid)),
        log=str(log.absolute()),
        command=tuple(command),
        answers_at=answers_at,
    )


def find(identity: Identity) -> psutil.Process | None:
    """The process if it still runs: not ended, not a zombie, and not a stranger with its pid."""
    try:
        process = psutil.Process(identity.pid)
        with process.oneshot():
            ended = process.status() in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD)
            return process if _is_it(process, identity) and not ended else None
    except psutil.NoSuchProcess:
        return None


def _started_s(process: psutil.Process) -> float:
    """Since boot, where /proc tells it: the epoch's seconds of a start shift whenever the machine's clock is set."""
    try:
        stat = Path(f"/proc/{process.pid}/stat").read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return float(process.create_time())
    # The 22nd field; the second, the name in brackets, may hold anything.
    ticks = int(stat.rpartition(")")[2].split()[19])
    return ticks / os.sysconf("SC_CLK_TCK")


def _is_it(process: psutil.Process, identity: Identity) -> bool:
    return abs(_started_s(process) - identity.started_s) < _SAME_START_S


def is_alive(identity: Identity) -> bool:
    return find(identity) is not None


def stop(identity: Identity, *, within_s: float) -> bool:
    """SIGTERM to the process alone, so that it ends its children in its own order; then SIGKILL to what is left.

    True when it ended by itself in time, or had ended already.
    """
    process = find(identity)
    if process is not None:
        process.send_signal(signal.SIGTERM)
    in_time = wait_ended(identity, within_s)
    for member in _session(identity):
        _kill(member)
    wait_ended(identity, _KILL_S)
    return in_time


def wait_ended(identity: Identity, within_s: float) -> bool:
    """By looking, not by waiting on it: nobody may read its exit code, and it stays a zombie."""
    deadline = time.monotonic() + within_s
    while find(identity) is not None:
        if time.monotonic() >= deadline:
            return False
        time.sleep(_LOOK_EVERY_S)
    return True


def _session(identity: Identity) -> list[psutil.Process]:
    """Whoever is left of the process's session. Its number, the pid, is not given away while any of them lives: where a
    stranger has it, nobody is left.
    """
    with contextlib.suppress(psutil.NoSuchProcess):
        if not _is_it(psutil.Process(identity.pid), identity):
            return []
    members = []
    for process in psutil.process_iter():
        try:
            belongs = (
                os.getsid(process.pid) == identity.pid and _started_s(process) > identity.started_s - _SAME_START_S
            )
            if belongs and process.status() != psutil.STATUS_ZOMBIE:
                members.append(process)
        except (psutil.NoSuchProcess, ProcessLookupError):
            continue
    return members


def _kill(process: psutil.Process) -> None:
    with contextlib.suppress(psutil.NoSuchProcess):
        process.kill()


def last_lines(log: Path, count: int = 5) -> str:
    """The end of a log on one line, for a message about why its process ended."""
    try:
        lines = [
            line.strip() for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()
        ]
    except OSError:
        return "no log"
    return " | ".join(lines[-count:]) or "empty log"

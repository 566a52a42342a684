"""The folder of one embedded stack: what lies where, who may wipe it, and which processes belong to it."""

import contextlib
import fcntl
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from infra.local.errors import NoStackError, NotPossibleError
from infra.local.processes import Identity, is_alive

_MARK = ".made-by-lakestream-local"
_FOLDERS = ("state", "logs", "lake", "checkpoint")
_FILES = (
    "stack.json",
    "processes.json",
    "job.yaml",
    "rules.json",
    "mapping.json",
    "delivery.json",
    "expiries.json",
    "verify.json",
)


@dataclass(frozen=True)
class Home:
    path: Path

    @property
    def state(self) -> Path:
        return self.path / "state"

    @property
    def logs(self) -> Path:
        return self.path / "logs"

    @property
    def lake(self) -> Path:
        return self.path / "lake"

    @property
    def checkpoint(self) -> Path:
        return self.path / "checkpoint"

    @property
    def stack_file(self) -> Path:
        return self.path / "stack.json"

    @property
    def journal(self) -> Path:
        """Written as each process starts, so that `down` finds them even when `up` was killed half way."""
        return self.path / "processes.json"

    def file(self, name: str) -> Path:
        assert name in _FILES, f"{name} would not be wiped"
        return self.path / name

    def check_ours(self) -> None:
        """Folders of these names that somebody else made are never touched."""
        for name in _FOLDERS:
            folder = self.path / name
            if folder.is_symlink() or (folder.exists() and not (folder / _MARK).exists() and not _is_empty(folder)):
                raise NotPossibleError(
                    f"{folder} was not made by `lakestream local` and would be wiped",
                    hint="move it away, or name another folder with --dir",
                )

    def wipe(self) -> None:
        """Begins anew: only what an earlier `up` made here goes."""
        for name in _FILES:
            (self.path / name).unlink(missing_ok=True)
        for name in _FOLDERS:
            folder = self.path / name
            if folder.exists():
                shutil.rmtree(folder)
            folder.mkdir()
            (folder / _MARK).touch()

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """One `up` or `down` at a time; the lock goes with its process, however that ends."""
        with (self.path / ".lock").open("w") as handle:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise NotPossibleError(
                    f"another `lakestream local` command is at work in {self.path}", hint="wait for it to end"
                ) from error
            yield

    def processes(self) -> list[Identity]:
        """In the order they were started."""
        try:
            entries: Mapping[str, Mapping[str, Any]] = json.loads(self.journal.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return []
        except (OSError, ValueError) as error:
            raise NotPossibleError(
                f"{self.journal} cannot be read: {error}", hint="end the processes it should name, then delete it"
            ) from error
        return [Identity.of_json(name, entry) for name, entry in entries.items()]

    def remember(self, processes: list[Identity]) -> None:
        write_json(self.journal, {process.name: process.as_json() for process in processes})

    def running(self) -> list[Identity]:
        return [process for process in self.processes() if is_alive(process)]

    def stack(self) -> dict[str, object]:
        """What stack.json says, of a stack that runs."""
        if not (running := self.running()):
            raise NoStackError(f"no stack runs in {self.path}", hint="start one with `lakestream local up`")
        if not self.stack_file.exists():
            raise NoStackError(
                f"a start in {self.path} was broken off and left {', '.join(process.name for process in running)}",
                hint="end it with `lakestream local down`",
            )
        value: dict[str, object] = json.loads(self.stack_file.read_text(encoding="utf-8"))
        return value


def write_json(path: Path, value: object) -> None:
    """Whole or not at all: a reader never sees half of it."""
    half = path.with_name(f".{path.name}.half")
    with half.open("w", encoding="utf-8") as out:
        json.dump(value, out, indent=2)
        out.write("\n")
        out.flush()
        os.fsync(out.fileno())
    half.replace(path)


def _is_empty(folder: Path) -> bool:
    return folder.is_dir() and not any(folder.iterdir())

"""How far a worker has read, on disk: a JSON document that survives a kill at any instant, one worker a folder."""

import fcntl
import json
import os
from pathlib import Path
from typing import Any, Self

from config.errors import LakestreamError


class PositionsError(LakestreamError):
    """The state folder cannot be used; the worker does not start, since guessing a position may lose changes."""

    exit_code = 3


class StateFolder:
    """A folder that one process holds at a time; the lock goes with the process, however it ends."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock: int | None = None

    def __enter__(self) -> Self:
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._lock = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise PositionsError(f"cannot use the state folder {self.path}: {error.strerror}") from error
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(self._lock)
            raise PositionsError(
                f"another process works on {self.path}", hint="end it first, or give this one its own state_dir"
            ) from error
        return self

    def __exit__(self, *_: object) -> None:
        if self._lock is not None:
            os.close(self._lock)


class Document:
    """One JSON object in a file: the old one or the new one, whole; once `save` returns, the new one is on disk."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def load(self) -> dict[str, Any] | None:
        try:
            text = self._path.read_text(encoding="utf-8")
        except FileNotFoundError:
            return None
        try:
            document = json.loads(text)
        except json.JSONDecodeError as error:
            raise PositionsError(
                f"{self._path} is damaged: {error}",
                hint="remove it to read the stream again from the starting position",
            ) from error
        if not isinstance(document, dict):
            raise PositionsError(f"{self._path} holds no positions", hint="remove it to read again from the start")
        return document

    def save(self, document: dict[str, Any]) -> None:
        # The new text is on disk before the name points at it, and the name is on disk before the caller goes on.
        beside = self._path.with_name(self._path.name + ".new")
        descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            json.dump(document, file, separators=(",", ":"))
            file.flush()
            os.fsync(file.fileno())
        beside.replace(self._path)
        folder = os.open(self._path.parent, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

"""The checkpoint's files, looked at before Spark reads them: a damaged one is named, with the mend that loses nothing.

Spark begins with the last offset, the one before it, and the last commit. Each is a version and lines of JSON.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Final

from streaming_job.errors import CheckpointDamagedError
from streaming_job.places import local_folder

_VERSION: Final = "v1"
NO_OFFSET: Final = "-"
_ANEW: Final = (
    "restore it from a copy, or name another lake.checkpoint: what the stream still keeps is read again, which changes "
    "nothing; what it no longer keeps, `lakestream replay --from archive` brings"
)


def check(checkpoint: str) -> None:
    """Nothing to say of one that is not on this machine, or not there yet."""
    root = local_folder(checkpoint)
    if root is None:
        return
    offsets, commits = _numbered(root / "offsets"), _numbered(root / "commits")
    _check(root / "metadata", _json_object, _ANEW)
    for file in commits[-1:]:
        _check(file, _log_entry, _again(file))
    for file in offsets[-2:]:
        can_be_planned_again = len(offsets) > 1 and file == offsets[-1]
        beside = root / "commits" / file.name
        _check(file, _log_entry, _again(file, *[beside] * beside.exists()) if can_be_planned_again else _ANEW)


def _again(*files: Path) -> str:
    """Planned anew, a batch may hold other records than before: the guard and the unique keys see to both."""
    named = " and ".join(map(str, files))
    return f"delete {named}: the batch is run again from the offset before, which loses and doubles nothing"


def _numbered(folder: Path) -> list[Path]:
    """Oldest first."""
    found = [file for file in folder.glob("*") if file.name.isdigit()]
    return sorted(found, key=lambda file: int(file.name))


def _check(file: Path, read: Callable[[str], object], mend: str) -> None:
    if not file.exists():
        return
    try:
        read(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise damaged(file, error, mend) from error


def damaged(file: Path, why: Exception, mend: str = _ANEW) -> CheckpointDamagedError:
    return CheckpointDamagedError(f"the checkpoint's file {file} is damaged: {why}", hint=mend)


def _json_object(text: str) -> object:
    return json.loads(text)


def _log_entry(text: str) -> object:
    first, *lines = text.splitlines() or [""]
    if first != _VERSION or not lines:
        raise ValueError(f"{_VERSION} and lines of JSON were written there")
    return [json.loads(line) for line in lines if line != NO_OFFSET]

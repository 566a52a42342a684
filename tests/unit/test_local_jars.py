"""The jars are what the lock says, or there is an error and the folder is as it was."""

import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest

from infra.local import checks, jars
from infra.local.jars import JarsError

CONTENT = {"a.jar": b"one", "b.jar": b"two"}


@pytest.fixture
def lock(tmp_path: Path) -> Path:
    file = tmp_path / "jars.sha256"
    file.write_text("".join(f"{hashlib.sha256(body).hexdigest()}  {name}\n" for name, body in CONTENT.items()))
    return file


def repository(content: dict[str, bytes]) -> Callable[[Path], Path]:
    """Resolves to these files."""

    def find(scratch: Path) -> Path:
        for name, body in content.items():
            (scratch / name).write_bytes(body)
        return scratch

    return find


def unreachable(_: Path) -> Path:
    raise JarsError("Spark could not resolve the Delta jars", hint="is the network there?")


def never(_: Path) -> Path:
    raise AssertionError("nothing was to be resolved")


def jars_in(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_missing_jars_are_resolved_once(tmp_path: Path, lock: Path) -> None:
    folder = tmp_path / "jars"
    assert jars.ensure(folder, lock, find=repository(CONTENT))
    assert jars_in(folder) == CONTENT
    assert not jars.ensure(folder, lock, find=never)


def test_a_damaged_jar_is_resolved_again(tmp_path: Path, lock: Path) -> None:
    folder = tmp_path / "jars"
    jars.ensure(folder, lock, find=repository(CONTENT))
    (folder / "a.jar").write_bytes(b"half")
    assert jars.ensure(folder, lock, find=repository(CONTENT))
    assert jars_in(folder) == CONTENT


def test_jars_of_another_version_go(tmp_path: Path, lock: Path) -> None:
    folder = tmp_path / "jars"
    folder.mkdir()
    (folder / "old.jar").write_bytes(b"old")
    jars.ensure(folder, lock, find=repository(CONTENT))
    assert jars_in(folder) == CONTENT


@pytest.mark.parametrize(
    "find", [repository({"a.jar": b"one"}), repository({**CONTENT, "b.jar": b"forged"}), unreachable]
)
def test_what_is_not_as_locked_is_refused_and_changes_nothing(
    tmp_path: Path, lock: Path, find: Callable[[Path], Path]
) -> None:
    folder = tmp_path / "jars"
    folder.mkdir()
    (folder / "a.jar").write_bytes(b"before")
    with pytest.raises(JarsError):
        jars.ensure(folder, lock, find=find)
    assert jars_in(folder) == {"a.jar": b"before"}


def test_the_shipped_lock_names_seven_jars() -> None:
    assert len(jars.locked(checks.JARS_LOCK)) == 7

"""Every check before a start says in one line what is wrong and what to do; none starts anything."""

import os
import shutil
import socket
from pathlib import Path

import pytest

from config.errors import ConfigurationError
from infra.local import checks
from infra.local.errors import NotPossibleError
from infra.local.home import Home
from infra.local.ports import free_ports, is_free
from infra.local.settings import load_local_settings

SHIPPED = checks.ROOT / "config" / "local.yaml"


def java_that_says(folder: Path, text: str, *, code: int = 0) -> Path:
    """A JAVA_HOME whose java prints `text` where java does, on stderr."""
    binary = folder / "bin" / "java"
    binary.parent.mkdir(parents=True)
    binary.write_text(f"#!/bin/sh\ncat >&2 <<'X'\n{text}\nX\nexit {code}\n")
    binary.chmod(0o755)
    return folder


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ('openjdk version "17.0.15" 2025-04-15', 17),
        ('openjdk version "21" 2023-09-19', 21),
        ('java version "1.8.0_402"', 8),
        ("Error: could not find libjvm", None),
        ('Picked up _JAVA_OPTIONS: -Xmx1g\nopenjdk version "17.0.1"', 17),
    ],
)
def test_javas_version_is_read_from_what_it_prints(text: str, version: int | None) -> None:
    assert checks.java_version(text) == version


def test_no_java_is_one_line_with_what_to_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(NotPossibleError, match=r"there is no java in PATH \(install a Java 17 runtime"):
        checks.java()


def test_a_java_home_without_java_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    with pytest.raises(NotPossibleError, match=r"JAVA_HOME=.* holds no bin/java"):
        checks.java()


@pytest.mark.parametrize(
    ("text", "said"), [('openjdk version "11.0.2"', "is version 11"), ("nonsense", "does not tell its version")]
)
def test_the_wrong_java_is_named_with_its_version(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, text: str, said: str
) -> None:
    monkeypatch.setenv("JAVA_HOME", str(java_that_says(tmp_path / "jdk", text)))
    with pytest.raises(NotPossibleError, match=said):
        checks.java()


def test_java_17_is_accepted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("JAVA_HOME", str(java_that_says(tmp_path / "jdk", 'openjdk version "17.0.15"')))
    checks.java()


def test_too_little_disk_is_said_with_what_there_is(tmp_path: Path) -> None:
    with pytest.raises(NotPossibleError, match=r"GB free, 1e\+09 GB are needed"):
        checks.disk(tmp_path / "not" / "made" / "yet", 1e9)
    assert list(tmp_path.iterdir()) == []


def test_an_occupied_port_is_named_with_its_option() -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = listener.getsockname()[1]
        with pytest.raises(NotPossibleError, match=f"port {port} is occupied .*--port 0"):
            checks.port(port, "--port")


def test_port_0_asks_for_any() -> None:
    checks.port(0, "--port")


def test_free_ports_are_distinct_and_free() -> None:
    ports = free_ports(20)
    assert len(set(ports)) == 20
    assert all(map(is_free, ports))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(NotPossibleError, match="cannot make"):
        checks.folder(tmp_path / "build")


def test_a_folder_that_is_a_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "build").write_text("")
    with pytest.raises(NotPossibleError, match="cannot make"):
        checks.folder(tmp_path / "build")


def test_missing_parts_of_the_setup_name_make_setup(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(checks, "EMULATOR", tmp_path / "ministack")
    monkeypatch.setattr(checks, "JARS", tmp_path)
    with pytest.raises(NotPossibleError, match="make setup"):
        checks.emulator()
    with pytest.raises(NotPossibleError, match=r"7 of 7 Delta jars are missing.*make setup"):
        checks.jars()


# --- the folder -------------------------------------------------------------------------------------------------------


def test_a_folder_of_somebody_elses_is_never_wiped(tmp_path: Path) -> None:
    (tmp_path / "lake").mkdir()
    (tmp_path / "lake" / "precious").write_text("data")
    with pytest.raises(NotPossibleError, match="was not made by"):
        Home(tmp_path).check_ours()


def test_a_link_to_somewhere_else_is_never_followed(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "lake").symlink_to(elsewhere)
    with pytest.raises(NotPossibleError, match="was not made by"):
        Home(tmp_path / "home").check_ours()


def test_what_an_earlier_start_made_is_wiped_and_nothing_else(tmp_path: Path) -> None:
    home = Home(tmp_path)
    home.wipe()
    (home.lake / "old").write_text("x")
    (tmp_path / "demo.json").write_text("{}")
    home.check_ours()
    home.wipe()
    assert not (home.lake / "old").exists()
    assert (tmp_path / "demo.json").exists()


def test_two_commands_in_one_folder_do_not_meet(tmp_path: Path) -> None:
    with (
        Home(tmp_path).locked(),
        pytest.raises(NotPossibleError, match="another `lakestream local` command"),
        Home(tmp_path).locked(),
    ):
        pass


def test_a_journal_that_cannot_be_read_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "processes.json").write_text("{")
    with pytest.raises(NotPossibleError, match="cannot be read"):
        Home(tmp_path).processes()


# --- config/local.yaml ------------------------------------------------------------------------------------------------


def test_the_shipped_configuration_is_valid() -> None:
    assert load_local_settings(SHIPPED).parameters["TableName"] == "chargeminder-car-telemetry"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("sideways: 1", r"sideways: unknown key"),
        ("job: {speed: 9}", r"job\.speed: unknown key"),
        ("ready_within_s: 0", r"ready_within_s: "),
        ("stack: 9lives", r"stack: "),
        ("a: [", r"is not YAML"),
        ("- 1", r"the file: "),
    ],
)
def test_a_configuration_that_cannot_be_is_refused_with_its_place(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "local.yaml"
    file.write_text(text)
    with pytest.raises(ConfigurationError, match=said):
        load_local_settings(file)


def test_a_configuration_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"cannot read .*none\.yaml"):
        load_local_settings(tmp_path / "none.yaml")


def test_java_is_found_where_spark_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    """The machine's own, when there is one."""
    monkeypatch.delenv("JAVA_HOME", raising=False)
    if shutil.which("java") is None:
        pytest.skip("no Java on this machine")
    checks.java()

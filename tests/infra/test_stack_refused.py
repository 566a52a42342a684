"""Starts of the embedded stack that cannot be, fail half way or are broken off: one clear line, its exit code, and no
process left behind.
"""

import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from local_stack import TIMEOUT_S, command, configuration, local, processes_in
from local_workers import until

from infra.local.checks import ROOT
from infra.local.ports import free_ports

pytestmark = pytest.mark.stack

# --- bad input: nothing is started ------------------------------------------------------------------------------------


def no_java(folder: Path) -> tuple[list[object], dict[str, str]]:
    empty = folder / "bin"
    empty.mkdir()
    return [], {"PATH": str(empty), "JAVA_HOME": ""}


def wrong_java(folder: Path) -> tuple[list[object], dict[str, str]]:
    binary = folder / "jdk" / "bin" / "java"
    binary.parent.mkdir(parents=True)
    binary.write_text("#!/bin/sh\necho 'openjdk version \"11.0.2\"' >&2\n")
    binary.chmod(0o755)
    return [], {"JAVA_HOME": str(folder / "jdk")}


def no_disk(folder: Path) -> tuple[list[object], dict[str, str]]:
    return ["--no-job", "--config", configuration(folder, disk_free_gb_min=1e9)], {}


def unknown_key(folder: Path) -> tuple[list[object], dict[str, str]]:
    return ["--no-job", "--config", configuration(folder, colour="blue")], {}


def no_configuration(folder: Path) -> tuple[list[object], dict[str, str]]:
    return ["--no-job", "--config", folder / "none.yaml"], {}


def impossible_parameter(folder: Path) -> tuple[list[object], dict[str, str]]:
    return ["--no-job", "--config", configuration(folder, parameters={"RetentionHours": 12})], {}


def no_shards(folder: Path) -> tuple[list[object], dict[str, str]]:
    return ["--no-job", "--config", configuration(folder, parameters={"ShardCount": 0})], {}


def no_rules(folder: Path) -> tuple[list[object], dict[str, str]]:
    return ["--no-job", "--config", configuration(folder, parameters={"TableName": "another-table"})], {}


def another_key(folder: Path) -> tuple[list[object], dict[str, str]]:
    return ["--no-job", "--config", configuration(folder, parameters={"TableName": "charger-readings"})], {}


def no_region(folder: Path) -> tuple[list[object], dict[str, str]]:
    return ["--no-job", "--config", configuration(folder, region="us-esat-1")], {}


def somebody_elses_lake(folder: Path) -> tuple[list[object], dict[str, str]]:
    (folder / "build" / "lake").mkdir(parents=True)
    (folder / "build" / "lake" / "precious").write_text("data")
    return ["--no-job"], {}


BAD_STARTS: tuple[tuple[Callable[[Path], tuple[list[object], dict[str, str]]], str], ...] = (
    (no_java, "there is no java in PATH"),
    (wrong_java, "is version 11"),
    (no_disk, "GB free"),
    (unknown_key, "colour: unknown key"),
    (no_configuration, "cannot read"),
    (impossible_parameter, "parameter RetentionHours is '12'"),
    (no_shards, "parameter ShardCount is 0"),
    (no_rules, "no rules for table 'another-table'"),
    (another_key, "its rules say charger_id (N), reading_id (B) - this stack makes no composite key"),
    (no_region, "there is no region 'us-esat-1'"),
    (somebody_elses_lake, "was not made by"),
)


@pytest.mark.parametrize(("arrange", "said"), BAD_STARTS, ids=[arrange.__name__ for arrange, _ in BAD_STARTS])
def test_a_start_that_cannot_be_is_one_line_exit_code_2_and_no_process(
    arrange: Callable[[Path], tuple[list[object], dict[str, str]]], said: str, tmp_path: Path
) -> None:
    arguments, env = arrange(tmp_path)
    answer = local("up", "--dir", tmp_path / "build", *arguments, env=env)
    assert answer.code == 2, answer
    assert answer.is_one_clear_line, answer
    assert said in answer.err
    assert processes_in(tmp_path) == []
    assert not (tmp_path / "build" / "processes.json").exists()


def test_one_port_for_two_is_refused(tmp_path: Path) -> None:
    (port,) = free_ports(1)
    answer = local("up", "--no-job", "--dir", tmp_path, "--port", port, "--metrics-port", port)
    assert (answer.code, answer.is_one_clear_line) == (2, True)


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("http://127.0.0.1:1", "no emulator answers at http://127.0.0.1:1"),
        ("https://127.0.0.1:4566", "is no http://127.0.0.1:PORT"),
        ("http://kinesis.us-east-1.amazonaws.com", "is no http://127.0.0.1:PORT"),
        ("127.0.0.1:4566", "is no http://127.0.0.1:PORT"),
    ],
)
def test_an_emulator_that_cannot_be_is_refused(address: str, said: str, tmp_path: Path) -> None:
    answer = local("up", "--no-job", "--dir", tmp_path, "--emulator", address)
    assert (answer.code, answer.is_one_clear_line) == (2, True)
    assert said in answer.err


def test_a_wrong_option_is_usage(tmp_path: Path) -> None:
    assert local("up", "--dir", tmp_path, "--port", "none").code == 2


def test_down_where_nothing_runs_says_so_and_is_content(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "never-made"):
        answer = local("down", "--dir", folder)
        assert answer.code == 0
        assert answer.is_one_clear_line
        assert f"nothing runs in {folder}" in answer.err
    assert local("down", "--dir", tmp_path, "--json").json == {"ended": {}}


@pytest.mark.parametrize("verb", ["status", "load", "restart"])
def test_a_command_that_needs_a_stack_says_how_to_start_one(verb: str, tmp_path: Path) -> None:
    answer = local(verb, "--dir", tmp_path)
    assert answer.code == 4
    assert answer.is_one_clear_line
    assert "lakestream local up" in answer.err


# --- starts that fail or are broken off -------------------------------------------------------------------------------


def changed_template(folder: Path, old: str, new: str) -> Path:
    text = (ROOT / "infra" / "template.yaml").read_text()
    assert old in text
    file = folder / "template.yaml"
    file.write_text(text.replace(old, new))
    return configuration(folder, template=str(file))


def broken_worker(folder: Path) -> Path:
    """A prefix that Firehose would refuse: the delivery ends at once."""
    return changed_template(folder, "hour=!{timestamp:HH}", "hour=!{nonsense:HH}")


def unknown_type(folder: Path) -> Path:
    """Refused by CloudFormation before it makes anything."""
    return changed_template(folder, "Type: AWS::CloudWatch::Dashboard", "Type: AWS::CloudWatch::Crystal")


def broken_resource(folder: Path) -> Path:
    """A queue that keeps messages for one second: it fails when others are made already, and the stack rolls back."""
    queue = "  Broken:\n    Type: AWS::SQS::Queue\n    Properties: {MessageRetentionPeriod: 1}\n\n"
    return changed_template(folder, "  DeliveryLogStream:\n", f"{queue}  DeliveryLogStream:\n")


@pytest.mark.parametrize(
    ("arrange", "said"),
    [
        (broken_worker, "delivery ended before it was ready"),
        (unknown_type, "Unrecognized resource types"),
        (broken_resource, "came to ROLLBACK_COMPLETE: Broken"),
    ],
)
def test_a_start_that_fails_half_way_ends_all_it_started(
    arrange: Callable[[Path], Path], said: str, tmp_path: Path
) -> None:
    answer = local("up", "--no-job", "--dir", tmp_path / "build", "--config", arrange(tmp_path))
    assert answer.code == 3, answer
    assert said in answer.err
    assert "Traceback" not in answer.err
    assert processes_in(tmp_path) == []
    assert not (tmp_path / "build" / "stack.json").exists()


def begun(folder: Path, started_by: list[str] | None = None) -> subprocess.Popen[str]:
    """`up`, or the demo's, caught after its emulator has started."""
    process = subprocess.Popen(
        started_by or command("up", "--no-job", "--dir", folder),
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
    )
    until((folder / "processes.json").exists, "the first process is noted")
    return process


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_start_leaves_no_process(number: signal.Signals, tmp_path: Path) -> None:
    process = begun(tmp_path)
    process.send_signal(number)
    _, err = process.communicate(timeout=TIMEOUT_S)
    assert process.returncode == 130
    assert "Traceback" not in err
    assert processes_in(tmp_path) == []
    assert not (tmp_path / "stack.json").exists()


def test_a_demo_that_is_ended_from_outside_leaves_no_process(tmp_path: Path) -> None:
    """As `timeout 120 make demo` does it, twice over: timeout tells its group, and make its children."""
    process = begun(tmp_path, [sys.executable, "-m", "infra.local.demo", "--dir", str(tmp_path)])
    process.send_signal(signal.SIGTERM)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=TIMEOUT_S)
    assert process.returncode == 130
    assert "Traceback" not in err
    assert processes_in(tmp_path) == []


def test_down_ends_what_a_killed_start_left(tmp_path: Path) -> None:
    process = begun(tmp_path)
    process.kill()
    process.communicate(timeout=TIMEOUT_S)
    assert processes_in(tmp_path) != []
    status = local("status", "--dir", tmp_path)
    assert (status.code, status.is_one_clear_line) == (4, True)
    assert "was broken off and left emulator" in status.err
    answer = local("down", "--dir", tmp_path, "--json")
    assert answer.code == 0
    assert answer.json["ended"]["emulator"]
    assert processes_in(tmp_path) == []

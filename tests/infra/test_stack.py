"""The embedded stack as a user meets it: it comes up, says what runs, takes a load, and goes without a trace. Every bad
input is one clear line, its exit code, and no process left behind.
"""

import json
import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import psutil
import pytest
from local_stack import TIMEOUT_S, Answer, clients_of, command, configuration, local, metric, processes_in
from local_workers import running_emulator, until

from infra.local.checks import ROOT
from infra.local.ports import free_ports

pytestmark = pytest.mark.stack

TABLE = "chargeminder-car-telemetry"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A running stack, shared by the tests that leave it as it is. Started under a developer's AWS settings."""
    folder = tmp_path_factory.mktemp("stack")
    theirs = {"AWS_PROFILE": "not-a-profile", "AWS_ENDPOINT_URL": "http://127.0.0.1:1", "AWS_REGION": "eu-west-1"}
    answer = local("up", "--no-job", "--dir", folder, env=theirs)
    assert answer.code == 0, answer.err
    yield folder
    local("down", "--dir", folder)


@pytest.fixture(scope="module")
def stack(home: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((home / "stack.json").read_text())
    return content


# --- up, status, load -------------------------------------------------------------------------------------------------


def test_stack_json_says_where_everything_is(home: Path, stack: Mapping[str, Any]) -> None:
    assert stack["region"] == "us-east-1"
    assert stack["aws_endpoint"].startswith("http://127.0.0.1:")
    assert stack["archive_prefix"] == "archive/"
    assert stack["tables"][TABLE].keys() == {"current", "history", "rejects", "latency"}
    assert stack["tables"][TABLE]["current"] == str(home / "lake" / "car_telemetry" / "current")
    assert list(stack["processes"]) == ["emulator", "mapping", "delivery"]
    assert all(Path(process["log"]).is_file() for process in stack["processes"].values())
    assert stack["metrics_url"] is None
    clients = clients_of(stack)
    clients("s3").head_bucket(Bucket=stack["bucket"])
    assert clients("kinesis").describe_stream_summary(StreamName=stack["stream"])


def test_status_asks_processes_and_emulator(home: Path) -> None:
    answer = local("status", "--dir", home, "--json")
    assert answer.code == 0
    assert answer.json["well"]
    assert all(process["alive"] for process in answer.json["processes"])
    assert answer.json["shards_open"] == 1
    assert answer.json["job"] == "none"
    shown = local("status", "--dir", home)
    assert "emulator" in shown.out
    assert "open shards" in shown.out


def test_nothing_of_the_stack_listens_beyond_this_machine(stack: Mapping[str, Any]) -> None:
    for name, entry in stack["processes"].items():
        for process in (psutil.Process(entry["pid"]), *psutil.Process(entry["pid"]).children(recursive=True)):
            listening = [found.laddr for found in process.net_connections() if found.status == psutil.CONN_LISTEN]
            assert all(address.ip == "127.0.0.1" for address in listening), name


def test_a_load_leaves_what_it_says_and_every_write_reaches_stream_and_archive(
    home: Path, stack: Mapping[str, Any]
) -> None:
    before = local("status", "--dir", home, "--json").json["items"][TABLE]
    answer = local("load", "--dir", home, "--rate", 60, "--seconds", 2, "--seed", 5, "--mix", "60,30,10", "--json")
    assert answer.code == 0, answer.err
    summary = answer.json
    assert summary["sent_total"] == summary["planned"] == 120
    assert summary["errors"] == 0
    assert local("status", "--dir", home, "--json").json["items"][TABLE] - before == summary["live_expected"]
    bridged = until(lambda: _at_least(120, _delivered(home)), "the delivery has read every change")
    assert bridged == 120


def _at_least(count: int, found: int) -> int:
    return found if found >= count else 0


def _delivered(home: Path) -> int:
    return round(metric(home, "delivery", "lakestream_delivery_records_total"))


def test_a_load_of_a_table_that_is_gone_counts_its_errors_and_ends_with_1(
    home: Path, stack: Mapping[str, Any], tmp_path: Path
) -> None:
    """The same stack, seen through a stack.json that names another table."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    shutil.copy(home / "processes.json", elsewhere)
    other = dict(stack) | {"tables": {"no-such-table": stack["tables"][TABLE]}}
    (elsewhere / "stack.json").write_text(json.dumps(other))
    answer = local("load", "--dir", elsewhere, "--rate", 50, "--seconds", 0.2, "--json")
    assert answer.code == 1
    assert answer.json["errors"] == 10
    assert "ResourceNotFoundException" in answer.json["error_last"]


def test_an_interrupted_load_says_what_it_had_sent(home: Path) -> None:
    process = subprocess.Popen(
        command("load", "--dir", home, "--rate", 50, "--seconds", 600, "--json"), stdout=subprocess.PIPE, text=True
    )
    items = lambda: local("status", "--dir", home, "--json").json["items"][TABLE]  # noqa: E731 - shorter so
    before = items()
    until(lambda: items() > before, "the load has begun")
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=TIMEOUT_S)
    assert process.returncode == 130
    summary = json.loads(out)
    assert summary["interrupted"]
    assert 0 < summary["sent_total"] < summary["planned"]


def test_a_mix_that_cannot_be_is_one_line(home: Path) -> None:
    answer = local("load", "--dir", home, "--mix", "lots")
    assert answer.code == 2
    assert answer.is_one_clear_line


def test_a_second_start_is_refused_and_harms_nothing(home: Path, stack: Mapping[str, Any]) -> None:
    answer = local("up", "--no-job", "--dir", home)
    assert answer.code == 2
    assert answer.is_one_clear_line
    assert f"a stack runs in {home} already" in answer.err
    assert "lakestream local down" in answer.err
    assert json.loads((home / "stack.json").read_text()) == stack
    assert local("status", "--dir", home).code == 0


def test_a_port_that_is_taken_is_refused(home: Path, stack: Mapping[str, Any], tmp_path: Path) -> None:
    """By the running emulator itself."""
    port = stack["aws_endpoint"].rsplit(":", 1)[1]
    answer = local("up", "--no-job", "--dir", tmp_path, "--port", port)
    assert answer.code == 2
    assert answer.is_one_clear_line
    assert f"port {port} is occupied" in answer.err
    assert processes_in(tmp_path) == []


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


def test_an_emulator_that_runs_already_is_used_and_left_running(tmp_path: Path) -> None:
    """As one in a container is: the stack's own end does not end it, and a second stack on it is refused."""
    (tmp_path / "emulator").mkdir()
    folder, other = tmp_path / "stack", tmp_path / "other"
    with running_emulator(tmp_path / "emulator") as aws:
        up = local("up", "--no-job", "--json", "--dir", folder, "--emulator", aws.endpoint)
        try:
            assert up.code == 0, up.err
            assert up.json["aws_endpoint"] == aws.endpoint
            assert list(up.json["processes"]) == ["mapping", "delivery"]
            second = local("up", "--no-job", "--dir", other, "--emulator", aws.endpoint)
            assert (second.code, second.is_one_clear_line) == (2, True)
            assert "holds a stack lakestream already" in second.err
        finally:
            local("down", "--dir", folder)
        assert aws("kinesis").list_streams()["StreamNames"] == [up.json["stream"]]


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


def begun(folder: Path) -> subprocess.Popen[str]:
    """`up`, caught after its emulator has started."""
    process = subprocess.Popen(
        command("up", "--no-job", "--dir", folder), stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True
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


def test_a_stack_goes_as_a_whole_and_another_begins_anew(tmp_path: Path) -> None:
    """Life of one folder: up, a process lost and started again, lost once more, down, down again, and anew on the same
    port, without the old items.
    """
    (port,) = free_ports(1)
    assert local("up", "--no-job", "--dir", tmp_path, "--port", port).code == 0
    first = json.loads((tmp_path / "stack.json").read_text())
    assert local("load", "--dir", tmp_path, "--rate", 50, "--seconds", 0.2).code == 0

    os.kill(first["processes"]["mapping"]["pid"], signal.SIGKILL)
    unwell = until(lambda: _unwell(local("status", "--dir", tmp_path, "--json")), "status sees the loss")
    assert {process["name"]: process["alive"] for process in unwell["processes"]} == {
        "emulator": True,
        "mapping": False,
        "delivery": True,
    }

    again = local("restart", "--dir", tmp_path, "--json")
    assert (again.code, list(again.json["restarted"])) == (0, ["mapping"]), again.err
    assert local("status", "--dir", tmp_path, "--json").json["well"]
    now = json.loads((tmp_path / "stack.json").read_text())["processes"]
    assert now["mapping"]["pid"] == again.json["restarted"]["mapping"]
    assert now["delivery"] == first["processes"]["delivery"]
    assert local("restart", "--dir", tmp_path, "--json").json == {"restarted": {}}
    os.kill(now["mapping"]["pid"], signal.SIGKILL)

    answer = local("down", "--dir", tmp_path, "--json")
    assert answer.json["ended"] == {"delivery": True, "emulator": True}
    assert processes_in(tmp_path) == []
    again = local("down", "--dir", tmp_path)
    assert (again.code, again.is_one_clear_line) == (0, True)

    answer = local("up", "--no-job", "--dir", tmp_path, "--port", port, "--json")
    assert answer.code == 0, answer.err
    assert answer.json["aws_endpoint"] == first["aws_endpoint"] == f"http://127.0.0.1:{port}"
    assert local("status", "--dir", tmp_path, "--json").json["items"] == {TABLE: 0}
    os.kill(answer.json["processes"]["emulator"]["pid"], signal.SIGKILL)
    until(lambda: _unwell(local("status", "--dir", tmp_path, "--json")), "status sees the loss")
    refused = local("restart", "--dir", tmp_path)
    assert (refused.code, refused.is_one_clear_line) == (2, True), "its table's stream is gone: only `up` helps"
    assert local("down", "--dir", tmp_path).code == 0
    assert processes_in(tmp_path) == []


def _unwell(answer: Answer) -> dict[str, Any]:
    content: dict[str, Any] = answer.json
    return content if answer.code == 3 and not content["well"] else {}

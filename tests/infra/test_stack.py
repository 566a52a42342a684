"""The embedded stack as a user meets it: it comes up, says what runs, takes a load, and goes without a trace."""

import json
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import psutil
import pytest
from local_stack import TIMEOUT_S, Answer, clients_of, command, local, metric, processes_in
from local_workers import running_emulator, until

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

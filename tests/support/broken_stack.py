"""The embedded stack with a job of its own beside it: on a disk that can be full, behind a Kinesis that can fail."""

import json
import os
import signal
import subprocess
import urllib.error
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, Final

import yaml
from prometheus_client.parser import text_string_to_metric_families

from infra.local import emulator, processes
from infra.local.ports import free_ports, open_directly
from infra.local.processes import Identity
from tests.faults.kinesis_proxy import BreakingProxy, breaking_proxy
from tests.support.local_stack import configuration
from tests.support.whole_proof import compare
from tests.support.whole_stack import LAKESTREAM, TABLE, TTL_ATTRIBUTE, Command, WholeStack

DISK_MB: Final = 96
UNHEALTHY_AFTER_S: Final = 4


class Disk:
    """A small file system for lake and checkpoint, where we may mount one; a plain folder where not."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.mkdir()
        self.is_small = _mounted("-t", "tmpfs", "-o", f"size={DISK_MB}m", "tmpfs", str(path))

    def fill(self) -> None:
        with (self.path / "filler").open("wb", buffering=0) as filler, suppress(OSError):
            while True:
                filler.write(bytes(4096))

    def make_room(self) -> None:
        (self.path / "filler").unlink()

    def allow_writing(self, *, allowed: bool) -> None:
        assert _mounted("-o", f"remount,{'rw' if allowed else 'ro'}", str(self.path))

    def close(self) -> None:
        if self.is_small:
            subprocess.run(["umount", "--lazy", self.path], check=False, capture_output=True)


def _mounted(*arguments: str) -> bool:
    return subprocess.run(["mount", *arguments], check=False, capture_output=True).returncode == 0


class Job:
    """`lakestream run`, its exit code, and what it said since it was started or last looked at."""

    def __init__(self, stack: "BrokenStack", settings: dict[str, Any]) -> None:
        self.settings = settings
        self.url = f"http://127.0.0.1:{settings['http']['port']}"
        self.log = stack.home.path / "broken-job.log"
        self.file = stack.home.path / "broken-job.yaml"
        self.file.write_text(yaml.safe_dump(settings))
        self.env = emulator.process_environment(stack.facts["aws_endpoint"], stack.facts["region"])
        self._process: subprocess.Popen[bytes] | None = None
        self._said_from = 0

    def note(self) -> None:
        """From now on counts as said."""
        self._said_from = self.log.stat().st_size if self.log.exists() else 0

    def start(self) -> None:
        self.note()
        with self.log.open("ab") as out:
            self._process = subprocess.Popen(
                [LAKESTREAM, "run", "--config", self.file],
                env=self.env,
                cwd=self.file.parent,
                stdout=out,
                stderr=out,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def health(self) -> tuple[int, str]:
        """Status and reason; 0 where nobody answers."""
        try:
            with open_directly(f"{self.url}/healthz", 5) as answer:
                return 200, str(json.loads(answer.read())["reason"])
        except urllib.error.HTTPError as error:
            return error.code, str(json.loads(error.read())["reason"])
        except OSError:
            return 0, ""

    def is_well(self) -> bool:
        assert self.is_running, f"the job ended: {self.said()[-3000:]}"
        return self.health()[0] == 200

    def exit_code(self, within_s: float = 120) -> int:
        assert self._process is not None
        return self._process.wait(within_s)

    def said(self) -> str:
        with self.log.open("rb") as log:
            log.seek(self._said_from)
            return log.read().decode(errors="replace")

    @property
    def error_line(self) -> str:
        """What it ended with, meant for a person; empty where it did not."""
        lines = [line for line in self.said().splitlines() if line.startswith("error: ")]
        return lines[-1] if lines else ""

    def end(self) -> None:
        if self._process is None:
            return
        if self.is_running:
            self._process.send_signal(signal.SIGTERM)
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(30)
        with suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)


class BrokenStack(WholeStack):
    proxy: BreakingProxy
    disk: Disk
    job: Job
    notes: dict[str, Any]
    """What one step of a drill leaves for the next."""
    marks: int = 0

    @property
    def job_settings(self) -> Path:
        return self.job.file

    def pid(self, name: str) -> int:
        return self.job.pid if name == "job" else super().pid(name)

    def runs(self, name: str) -> bool:
        return self.job.is_running if name == "job" else super().runs(name)

    def identity(self, name: str) -> Identity:
        return next(process for process in self.home.processes() if process.name == name)

    def table_path(self, part: str) -> str:
        folder = self.disk.path / "lake"
        return str(folder / ("rejects" if part == "rejects" else f"car_telemetry/{part}"))

    def metric(self, url: str, name: str) -> float:
        """The sum over its labels; 0 where nobody answers."""
        try:
            with open_directly(url, 10) as answer:
                families = list(text_string_to_metric_families(answer.read().decode()))
        except OSError:
            return 0
        return sum(sample.value for family in families for sample in family.samples if sample.name == name)

    @property
    def mapping_metrics(self) -> str:
        return str(self.facts["metrics"]["mapping"])

    def doctor(self) -> list[str]:
        """What it finds wrong, in words."""
        findings = Command("doctor", "--config", self.job.file, "--json").json["findings"]
        return [f"{each['what']} - {each['mend']}" for each in findings if each["level"] in ("warning", "problem")]

    def status(self) -> Command:
        return Command("local", "status", "--dir", self.home.path, "--json")

    def restarted(self) -> list[str]:
        done = self.restart()
        assert done.code == 0, done.err
        return list(done.json["restarted"])

    def write_some(self, count: int = 20) -> None:
        for _ in range(count):
            self.marks += 1
            self.put(f"mark-{self.marks % 150}")

    def recover(self) -> None:
        """What was written meanwhile and what is written now is there, once, and newest."""
        self.wait(self.job.is_well, "the job is well")
        self.write_some()
        tables = compare(self)
        assert tables.hold, tables
        assert len(tables.changes) >= self.marks


@contextmanager
def broken_stack(folder: Path) -> Iterator[BrokenStack]:
    with ExitStack() as cleanup:
        home = folder / "stack"
        home.mkdir()
        file = configuration(folder, parameters={"TableTtlAttribute": TTL_ATTRIBUTE})
        stack = BrokenStack.up(home, file, "--no-job")
        cleanup.callback(stack.down)
        stack.notes = {}
        stack.proxy = cleanup.enter_context(breaking_proxy(stack.facts["aws_endpoint"]))
        stack.disk = Disk(folder / "disk")
        cleanup.callback(stack.disk.close)
        _through_the_proxy(stack)
        stack.job = Job(stack, _job_settings(stack))
        cleanup.callback(stack.job.end)
        stack.job.start()
        stack.write_some()
        stack.recover()
        yield stack


def _through_the_proxy(stack: BrokenStack) -> None:
    """The bridge's calls of Kinesis; the mapping begins again with it."""
    settings = stack.home.file("mapping.json")
    content = json.loads(settings.read_text(encoding="utf-8"))
    content["function"]["env"]["AWS_ENDPOINT_URL_KINESIS"] = stack.proxy.url
    settings.write_text(json.dumps(content), encoding="utf-8")
    processes.stop(stack.identity("mapping"), within_s=20)
    assert stack.restarted() == ["mapping"]


def _job_settings(stack: BrokenStack) -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load(stack.home.file("job.yaml").read_text(encoding="utf-8"))
    (port,) = free_ports(1)
    content["lake"] = {"root": str(stack.disk.path / "lake"), "checkpoint": str(stack.disk.path / "checkpoint")}
    content["source"]["options"] = {"endpointUrl": stack.proxy.url}
    content["http"] |= {"port": port, "unhealthy_after_s": UNHEALTHY_AFTER_S}
    assert content["tables"] == [TABLE]
    return content

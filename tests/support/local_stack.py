"""`lakestream local` as a user runs it: a command in a process of its own, its exit code and what it said."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import yaml
from prometheus_client.parser import text_string_to_metric_families

from infra.local.checks import ROOT
from infra.local.emulator import Clients
from infra.local.ports import open_directly

TIMEOUT_S = 120


@dataclass(frozen=True)
class Answer:
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    @property
    def is_one_clear_line(self) -> bool:
        """Nothing on stdout, and one line that is no stack trace."""
        return not self.out and len(self.err.strip().splitlines()) == 1 and "Traceback" not in self.err


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "infra.local.cli", *map(str, arguments)]


def local(*arguments: object, env: Mapping[str, str] | None = None) -> Answer:
    done = subprocess.run(
        command(*arguments),
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
        env={**os.environ, **(env or {})},
    )
    return Answer(done.returncode, done.stdout, done.stderr)


def configuration(folder: Path, *, parameters: Mapping[str, object] | None = None, **more: object) -> Path:
    """config/local.yaml with some of it changed."""
    content = yaml.safe_load((ROOT / "config" / "local.yaml").read_text())
    content |= more
    content["parameters"] |= parameters or {}
    file = folder / "local.yaml"
    file.write_text(yaml.safe_dump(content))
    return file


def processes_in(folder: Path) -> list[str]:
    """Whoever works in the stack's folder: each of its processes does."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.status() != psutil.STATUS_ZOMBIE and Path(process.cwd()).is_relative_to(folder):
                found.append(" ".join(process.cmdline()))
        except psutil.Error:
            continue
    return found


def clients_of(stack: Mapping[str, Any]) -> Clients:
    return Clients(stack["aws_endpoint"], stack["region"])


def metric(folder: Path, worker: str, name: str) -> float:
    """The sum over its labels, as the stack's mapping or delivery says it now."""
    port = json.loads((folder / f"{worker}.json").read_text())["metrics_port"]
    with open_directly(f"http://127.0.0.1:{port}/metrics", 10) as answer:
        families = text_string_to_metric_families(answer.read().decode())
    return sum(sample.value for family in families for sample in family.samples if sample.name == name)

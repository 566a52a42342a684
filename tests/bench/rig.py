"""The embedded stack for benchmarks, and streaming jobs on it whose settings differ: each with a lake of its own."""

import json
import os
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import psutil
import yaml

from infra.local.ports import free_ports
from streaming_job.latency.table import merged_hops

LAKESTREAM = str(Path(sys.executable).parent / "lakestream")
OURS = (LAKESTREAM,)
READY_WITHIN_S = 240
FLUSHED_WITHIN_S = 12
"""Latency figures are written every ten seconds."""
TABLE = "chargeminder-car-telemetry"
ROOT = Path(__file__).parents[2]


def command(*arguments: object) -> str:
    return subprocess.run([LAKESTREAM, *map(str, arguments)], check=True, capture_output=True, text=True).stdout


def changed(settings: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """`changes` laid over `settings`, map by map."""
    merged = dict(settings)
    for name, value in changes.items():
        is_map = isinstance(value, Mapping) and isinstance(merged.get(name), Mapping)
        merged[name] = changed(merged[name], value) if is_map else value
    return merged


def wait_until(condition: Callable[[], bool], *, within_s: float, what: str, every_s: float = 0.1) -> None:
    deadline = time.monotonic() + within_s
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what}: not within {within_s:.0f} s")
        time.sleep(every_s)


@dataclass(frozen=True)
class Hop:
    """Durations of one hop, as occupied bins."""

    bins: Mapping[float, int]
    sum_ms: float

    @property
    def count(self) -> int:
        return sum(self.bins.values())

    def since(self, before: "Hop | None") -> "Hop":
        if before is None:
            return self
        left = Counter(self.bins)
        left.subtract(before.bins)
        return Hop({value: count for value, count in left.items() if count > 0}, self.sum_ms - before.sum_ms)

    def quantile_ms(self, quantile: float) -> float:
        rank, seen = quantile * (self.count - 1), 0
        for value in sorted(self.bins):
            seen += self.bins[value]
            if seen > rank:
                return value
        return float("nan")

    def as_dict(self) -> dict[str, float]:
        quantiles = {f"p{round(q * 100)}_ms": round(self.quantile_ms(q), 1) for q in (0.5, 0.95, 0.99)}
        return {"changes": self.count, **quantiles}


class JobRun:
    """One `lakestream run`, ended with its block."""

    def __init__(
        self, folder: Path, settings: Mapping[str, Any], environment: Mapping[str, str], command: Sequence[str] = OURS
    ) -> None:
        self.folder = folder
        folder.mkdir(parents=True)
        (port,) = free_ports(1)
        lake = {"root": str(folder / "lake"), "checkpoint": str(folder / "checkpoint")}
        self.settings = changed(settings, {"lake": lake, "http": {"port": port}})
        config = folder / "job.yaml"
        config.write_text(yaml.safe_dump(self.settings), encoding="utf-8")
        self.began = time.monotonic()
        self._log = (folder / "job.log").open("wb")
        self._health = f"http://127.0.0.1:{port}/healthz"
        self.process = psutil.Popen(
            [*command, "run", "--config", str(config)], stderr=self._log, env={**os.environ, **environment}, cwd=ROOT
        )

    def __enter__(self) -> Self:
        def answers() -> bool:
            if self.process.poll() is not None:
                raise RuntimeError(f"the job ended: see {self.folder / 'job.log'}")
            with suppress(OSError), urllib.request.urlopen(self._health, timeout=2) as answer:  # noqa: S310 - ours
                return bool(answer.status == 200)
            return False

        try:
            wait_until(answers, within_s=READY_WITHIN_S, what="the job is ready")
        except BaseException:
            self.end()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def end(self) -> None:
        self.process.terminate()
        try:
            self.process.wait(60)
        except psutil.TimeoutExpired:
            self.process.kill()
        self._log.close()

    def hops(self) -> dict[str, Hop]:
        found = merged_hops(str(self.folder / "lake" / "latency"))
        return {
            hop: Hop({a_bin.value_ms: a_bin.count for a_bin in sketch.bins()}, sketch.sum_ms)
            for (_, hop), sketch in found.items()
        }

    def batches(self) -> list[dict[str, Any]]:
        """What the job's log says of each batch that held something."""
        return [said["batch"] for said in self._said() if said.get("batch", {}).get("rows")]

    def triggers_ms(self) -> list[int]:
        """How long each of Spark's rounds took, empty ones too; the first is the empty batch that `ready` waits for."""
        return [said["duration_ms"]["triggerExecution"] for said in self._said() if said.get("duration_ms")]

    def _said(self) -> Iterator[dict[str, Any]]:
        for line in (self.folder / "job.log").read_text(encoding="utf-8", errors="replace").splitlines():
            with suppress(ValueError):
                said = json.loads(line)
                if isinstance(said, dict):
                    yield said

    def usage(self) -> tuple[float, int]:
        """Processor seconds and resident bytes of the job and its children."""
        seconds, resident = 0.0, 0
        for process in (self.process, *self.process.children(recursive=True)):
            with suppress(psutil.Error):
                times = process.cpu_times()
                seconds += times.user + times.system
                resident += process.memory_info().rss
        return seconds, resident


@dataclass(frozen=True)
class Stack:
    folder: Path
    facts: Mapping[str, Any]
    settings: Mapping[str, Any]
    """Of a job on it."""

    @property
    def environment(self) -> dict[str, str]:
        return {"AWS_ACCESS_KEY_ID": "local", "AWS_SECRET_ACCESS_KEY": "local", "AWS_DEFAULT_REGION": "us-east-1"}

    def job(self, name: str, changes: Mapping[str, Any], command: Sequence[str] = OURS) -> JobRun:
        """From here on: what was written before is another job's."""
        settings = changed(changed(self.settings, {"source": {"starting_position": "latest"}}), changes)
        return JobRun(self.folder / "jobs" / name, settings, self.environment, command)

    def load(self, *, rate: float, seconds: float, seed: int) -> dict[str, Any]:
        out = command(
            "local", "load", "--dir", self.folder, "--rate", rate, "--seconds", seconds, "--seed", seed, "--json"
        )
        summary: dict[str, Any] = json.loads(out)
        return summary


@contextmanager
def running_stack(folder: Path) -> Iterator[Stack]:
    """Its own job is ended once its settings are known: each run brings its own."""
    try:
        facts = json.loads(command("local", "up", "--dir", folder, "--json"))
        settings = yaml.safe_load((folder / "job.yaml").read_text(encoding="utf-8"))
        job = psutil.Process(facts["processes"]["job"]["pid"])
        job.terminate()
        job.wait(60)
        yield Stack(folder, facts, settings)
    finally:
        command("local", "down", "--dir", folder)

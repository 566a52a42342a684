"""The embedded stack with everything in it, broken as a machine breaks it and mended as its user mends it."""

import json
import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cached_property
from pathlib import Path
from typing import Any, Final, Self

import psutil
from deltalake import DeltaTable, QueryBuilder
from deltalake.exceptions import TableNotFoundError

from infra.local.emulator import Clients
from infra.local.home import Home
from infra.local.load import Load, LoadPlan, Summary
from infra.local.plan import Mix
from infra.local.telemetry import telemetry_item, to_dynamodb

LAKESTREAM: Final = Path(sys.executable).parent / "lakestream"
TABLE: Final = "chargeminder-car-telemetry"
TTL_ATTRIBUTE: Final = "expires_at"

SPARK: Final = ("job", "jvm", "stream reader", "python worker")
OTHERS: Final = ("mapping", "bridge", "delivery", "expiries", "dashboard")
"""Every process of ours, by the name it is killed under. The bridge runs in one of the mapping's."""


class Command:
    """`lakestream …`, as a person runs it."""

    def __init__(self, *arguments: str | Path, timeout_s: float = 300) -> None:
        done = subprocess.run(
            [LAKESTREAM, *arguments], capture_output=True, text=True, check=False, timeout=timeout_s, errors="replace"
        )
        self.code, self.out, self.err = done.returncode, done.stdout, done.stderr

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    @property
    def said(self) -> str:
        """Its last words."""
        return " ".join(self.err.strip().splitlines()[-3:])


class WholeStack:
    def __init__(self, folder: Path) -> None:
        self.home = Home(folder)

    @classmethod
    def up(cls, folder: Path, configuration: Path, *options: str) -> Self:
        came = Command("local", "up", "--dir", folder, "--config", configuration, *options)
        assert came.code == 0, came.err
        return cls(folder)

    def down(self) -> None:
        Command("local", "down", "--dir", self.home.path)

    @cached_property
    def facts(self) -> Mapping[str, Any]:
        """What stays as it is for the stack's life."""
        content: Mapping[str, Any] = json.loads(self.home.stack_file.read_text(encoding="utf-8"))
        return content

    @cached_property
    def clients(self) -> Clients:
        return Clients(self.facts["aws_endpoint"], self.facts["region"])

    @property
    def job_settings(self) -> Path:
        return self.home.file("job.yaml")

    # --- processes ----------------------------------------------------------------------------------------------------

    def pid(self, name: str) -> int:
        return next(process.pid for process in self.home.processes() if process.name == name)

    def runs(self, name: str) -> bool:
        return any(process.name == name for process in self.home.running())

    def all_run(self) -> bool:
        return len(self.home.running()) == len(self.home.processes())

    def victims(self, name: str) -> list[psutil.Process]:
        """The processes that go by the name, now; none where it does not run."""
        with suppress(psutil.NoSuchProcess):
            match name:
                case "jvm":
                    return [each for each in self._below("job") if each.name() == "java"]
                case "stream reader":
                    return [each for each in self._below("job") if _is_running(each, "python_streaming_source_runner")]
                case "python worker":
                    return [each for each in self._below("job") if _is_running(each, "pyspark.daemon")]
                case "bridge":
                    return self._below("mapping")
                case _:
                    return [psutil.Process(self.pid(name))] if self.runs(name) else []
        return []

    def _below(self, name: str) -> list[psutil.Process]:
        return psutil.Process(self.pid(name)).children(recursive=True) if self.runs(name) else []

    def kill(self, name: str, rng: random.Random, within_s: float = 60) -> int:
        """`kill -9`; the pid it had."""
        deadline = time.monotonic() + within_s
        while True:
            with suppress(psutil.NoSuchProcess):
                if found := self.victims(name):
                    chosen = rng.choice(found)
                    chosen.kill()
                    return chosen.pid
            assert time.monotonic() < deadline, f"no {name} to be killed within {within_s:g} s"
            time.sleep(0.05)

    def restart(self) -> Command:
        """As a user does, or his service manager."""
        return Command("local", "restart", "--dir", self.home.path, "--json")

    # --- what is written and what arrived -----------------------------------------------------------------------------

    def put(self, event_id: str, **more: Mapping[str, str]) -> None:
        """One item, with other attributes as DynamoDB's JSON."""
        item = to_dynamodb(telemetry_item(random.Random(event_id), time.time_ns() // 1_000_000, event_id=event_id))
        self.clients("dynamodb").put_item(TableName=TABLE, Item={**item, **more})

    @contextmanager
    def load(self, rate: float, seed: int) -> Iterator[list[Summary]]:
        """Writes meanwhile; afterwards, what was written."""
        plan = LoadPlan(table=TABLE, rate=rate, seconds=86_400, seed=seed, run=f"{time.time_ns():x}", mix=Mix())
        load, written = Load(plan, self.clients("dynamodb")), list[Summary]()
        writer = threading.Thread(target=lambda: written.append(load.run()), name="load", daemon=True)
        writer.start()
        try:
            yield written
        finally:
            load.stop()
            writer.join()

    def select(self, part: str, sql: str) -> list[dict[str, Any]]:
        """From `current`, `history` or `rejects` under the name `t`; nothing where it is not there yet."""
        try:
            table = DeltaTable(self.table_path(part))
        except TableNotFoundError:
            return []
        found = QueryBuilder().register("t", table).execute(sql).read_all()
        columns = {name: found[name].to_pylist() for name in found.schema.names}
        return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]

    def count(self, part: str) -> int:
        try:
            return int(DeltaTable(self.table_path(part)).count())
        except TableNotFoundError:
            return 0

    def table_path(self, part: str) -> str:
        return str(self.facts["tables"][TABLE][part])

    def has_arrived(self, event_id: str) -> bool:
        return bool(self.select("current", f"SELECT _seq FROM t WHERE _key = '{key_text(event_id)}'"))  # noqa: S608 - a test's

    def wait(self, condition: Callable[[], Any], what: str, within_s: float = 180) -> Any:
        """The first true value; where it does not come, what each process said last."""
        deadline = time.monotonic() + within_s
        while not (value := condition()):
            assert time.monotonic() < deadline, f"not within {within_s:g} s: {what}; {self._last_words()}"
            time.sleep(0.1)
        return value

    def _last_words(self) -> str:
        logs = {process.name: Path(process.log) for process in self.home.processes()}
        return " | ".join(f"{name}: {log.read_text(errors='replace')[-600:]}" for name, log in logs.items())


def key_text(event_id: str) -> str:
    """As `_key` holds it."""
    return json.dumps({"event_id": event_id}, separators=(",", ":"))


def _is_running(process: psutil.Process | None, word: str) -> bool:
    """Spark leaves zombies behind, which have no command any more."""
    with suppress(psutil.NoSuchProcess):
        return process is not None and any(word in part for part in process.cmdline())
    return False

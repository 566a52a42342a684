"""The emulator, and the local workers as processes: on free ports, ended by their id, their log lines at hand."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import boto3
from botocore.config import Config

from infra.local import emulator
from infra.local.checks import EMULATOR
from infra.local.ports import free_ports, open_directly

REGION = "us-east-1"
Value = TypeVar("Value")


def until(look: Callable[[], Value], what: str, *, within_s: float = 60) -> Value:
    """The first true value."""
    deadline = time.monotonic() + within_s
    while not (value := look()):
        assert time.monotonic() < deadline, f"not within {within_s:g} s: {what}"
        time.sleep(0.02)
    return value


class Aws:
    """An emulator's address, and clients of it."""

    def __init__(self, endpoint: str) -> None:
        self.endpoint = endpoint
        self._session = boto3.Session(aws_access_key_id="local", aws_secret_access_key="local", region_name=REGION)

    def __call__(self, service: Any) -> Any:
        config = Config(proxies={}, s3={"addressing_style": "path"}, retries={"total_max_attempts": 3})
        return self._session.client(service, endpoint_url=self.endpoint, config=config)

    def table(self, name: str, view: str = "NEW_AND_OLD_IMAGES") -> str:
        """A table with the string key `id`; its stream's ARN."""
        description = self("dynamodb").create_table(
            TableName=name,
            KeySchema=[{"AttributeName": "id", "KeyType": "HASH"}],
            AttributeDefinitions=[{"AttributeName": "id", "AttributeType": "S"}],
            BillingMode="PAY_PER_REQUEST",
            StreamSpecification={"StreamEnabled": True, "StreamViewType": view},
        )["TableDescription"]
        return str(description["LatestStreamArn"])

    def stream(self, name: str, shards: int = 1) -> None:
        kinesis = self("kinesis")
        kinesis.create_stream(StreamName=name, ShardCount=shards)
        kinesis.get_waiter("stream_exists").wait(StreamName=name, WaiterConfig={"Delay": 1, "MaxAttempts": 30})

    def objects(self, bucket: str, prefix: str = "") -> dict[str, bytes]:
        s3 = self("s3")
        pages = s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
        keys = [entry["Key"] for page in pages for entry in page.get("Contents", ())]
        return {key: s3.get_object(Bucket=bucket, Key=key)["Body"].read() for key in keys}


@contextmanager
def running_emulator(state: Path) -> Iterator[Aws]:
    (port,) = free_ports(1)
    log = (state / "emulator.log").open("wb")
    process = subprocess.Popen(
        [str(EMULATOR)], env=emulator.environment(port, state, REGION), stdout=log, stderr=log, start_new_session=True
    )
    endpoint = emulator.endpoint_of(port)
    try:
        until(lambda: emulator.answers(f"{endpoint}/_ministack/ready") == 200, "the emulator answers")
        yield Aws(endpoint)
    finally:
        process.terminate()
        process.wait(timeout=20)
        log.close()


class Worker:
    """`python -m infra.local.<name>` with its settings in a file; its log lines as they come."""

    def __init__(self, name: str, settings: dict[str, Any], folder: Path) -> None:
        self.file = folder / f"{name}-{time.monotonic_ns()}.json"
        self.file.write_text(json.dumps(settings))
        self.lines: list[dict[str, Any]] = []
        self._errors = (folder / f"{self.file.stem}.stderr").open("wb")
        self.process = subprocess.Popen(
            [sys.executable, "-m", f"infra.local.{name}", "--settings", str(self.file)],
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            env=emulator.without_aws(os.environ) | {"PYTHONUNBUFFERED": "1"},
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        with self.process.stdout as lines:
            for line in lines:
                self.lines.append(json.loads(line))

    def events(self, name: str) -> list[dict[str, Any]]:
        return [line for line in tuple(self.lines) if line.get("event") == name]

    def logged(self, name: str, count: int = 1, *, within_s: float = 60) -> list[dict[str, Any]]:
        """Waits until it has logged the event as often."""
        return until(
            lambda: self._events_or_death(name, count), f"{self.file.stem} logs {name} {count} times", within_s=within_s
        )

    def _events_or_death(self, name: str, count: int) -> list[dict[str, Any]]:
        events = self.events(name)
        if len(events) >= count:
            return events
        assert self.process.poll() is None, f"ended with {self.process.returncode}: {self.stderr} {self.lines[-5:]}"
        return []

    def metrics(self) -> str:
        port = self.logged("started")[0]["metrics_port"]
        with open_directly(f"http://127.0.0.1:{port}/metrics", 10) as answer:
            return str(answer.read().decode())

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.wait()

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.wait()

    def wait(self) -> int:
        code = self.process.wait(timeout=60)
        self._reader.join(timeout=20)
        return code

    @property
    def stderr(self) -> str:
        return Path(self._errors.name).read_text(encoding="utf-8")

    def end(self) -> None:
        if self.process.poll() is None:
            self.kill()
        self._errors.close()


class Workers:
    """Starts workers for a test, and leaves none behind."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._started: list[Worker] = []

    def __call__(self, name: str, settings: dict[str, Any]) -> Worker:
        worker = Worker(name, settings, self._folder)
        self._started.append(worker)
        return worker

    def end(self) -> None:
        for worker in self._started:
            worker.end()

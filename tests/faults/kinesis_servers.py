"""The emulators a Kinesis test needs, on free ports, ended by their id."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

ROOT = Path(__file__).parents[2]
REGION = "us-east-1"
CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "test",
    "AWS_SECRET_ACCESS_KEY": "test",
    "AWS_REGION": REGION,
    "AWS_DEFAULT_REGION": REGION,
    "AWS_CONFIG_FILE": os.devnull,
    "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
    "AWS_EC2_METADATA_DISABLED": "true",
}


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def client(endpoint: str) -> Any:
    return boto3.client(
        "kinesis",
        region_name=REGION,
        endpoint_url=endpoint,
        aws_access_key_id="test",
        aws_secret_access_key="test",
        config=Config(retries={"total_max_attempts": 1}, read_timeout=30),
    )


def until(condition: Callable[[], Any], what: str, *, timeout_s: float = 60) -> Any:
    """Wait for a condition; its first true value."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        value = condition()
        if value:
            return value
        time.sleep(0.05)
    raise AssertionError(f"not within {timeout_s} s: {what}")


def _answers(endpoint: str, process: subprocess.Popen[bytes]) -> bool:
    assert process.poll() is None, f"the emulator ended with {process.returncode}"
    try:
        client(endpoint).list_streams()
    except (BotoCoreError, ClientError):
        return False
    return True


@contextmanager
def _served(command: list[str], env: Mapping[str, str], endpoint: str, log: Path) -> Iterator[str]:
    with log.open("wb") as out:
        process = subprocess.Popen(command, env={**os.environ, **env}, stdout=out, stderr=subprocess.STDOUT)
    try:
        until(lambda: _answers(endpoint, process), f"{command[0]} answers; see {log}")
        yield endpoint
    finally:
        process.terminate()
        try:
            process.wait(3)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(10)


@contextmanager
def ministack(folder: Path) -> Iterator[str]:
    """Kinesis without resharding; its answers are quick."""
    with served_ministack(folder, "kinesis,sts") as endpoint:
        yield endpoint


@contextmanager
def served_ministack(folder: Path, services: str) -> Iterator[str]:
    port = free_port()
    env = {
        **CREDENTIALS,
        "BIND_HOST": "127.0.0.1",
        "GATEWAY_PORT": str(port),
        "SERVICES": services,
        "PERSIST_STATE": "0",
        "STATE_DIR": str(folder / "state"),
        "TMPDIR": str(folder),
        "LOG_LEVEL": "WARNING",
        "IOT_MTLS_ENABLED": "0",
        "SFTP_ENABLED": "0",
    }
    command = [str(ROOT / ".venv-stack" / "bin" / "ministack")]
    with _served(command, env, f"http://127.0.0.1:{port}", folder / "ministack.log") as endpoint:
        yield endpoint


@contextmanager
def kinesis_local(folder: Path) -> Iterator[str]:
    """Kinesis with resharding."""
    package = ROOT / "tests" / "node" / "node_modules" / "kinesis-local"
    port, tls = free_port(), free_port()
    env = {
        "KINESIS_MOCK_PLAIN_PORT": str(port),
        "KINESIS_MOCK_TLS_PORT": str(tls),
        "KINESIS_MOCK_CERT_PATH": str(package / "server.json"),
        "SHOULD_PERSIST_DATA": "false",
        "LOG_LEVEL": "WARN",
        "SHARD_LIMIT": "100",
        "CREATE_STREAM_DURATION": "50ms",
        "DELETE_STREAM_DURATION": "50ms",
        "SPLIT_SHARD_DURATION": "50ms",
        "MERGE_SHARDS_DURATION": "50ms",
        "UPDATE_SHARD_COUNT_DURATION": "50ms",
    }
    command = ["node", str(package / "main.js")]
    with _served(command, env, f"http://127.0.0.1:{port}", folder / "kinesis-local.log") as endpoint:
        yield endpoint


def python() -> str:
    return sys.executable

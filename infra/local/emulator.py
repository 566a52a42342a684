"""The emulator of AWS: its command and environment, and how the stack's processes and we reach it."""

import os
import time
import urllib.error
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import boto3
import botocore.session
from botocore.config import Config

from infra.local.errors import NotReadyError
from infra.local.ports import LOOPBACK, open_directly

ACCESS_KEY = "local"
_SERVICES = (
    "cloudformation,cloudwatch,dynamodb,dynamodbstreams,events,firehose,iam,kinesis,kms,lambda,logs,s3,"
    "secretsmanager,sns,sqs,sts"
)
_LOOK_EVERY_S = 0.05


def endpoint_of(port: int) -> str:
    return f"http://{LOOPBACK}:{port}"


def environment(port: int, state: Path, region: str) -> dict[str, str]:
    (state / "tmp").mkdir(parents=True, exist_ok=True)
    return {**without_aws(os.environ), **own_environment(port, state, region)}


def own_environment(port: int, state: Path, region: str) -> dict[str, str]:
    """Every default that would reach further than this machine's loopback, or outside `state`, is set by hand."""
    return {
        **credentials(region),
        "BIND_HOST": LOOPBACK,
        "GATEWAY_PORT": str(port),
        "MINISTACK_HOST": LOOPBACK,
        "MINISTACK_REGION": region,
        "IOT_MTLS_ENABLED": "0",  # listens on every interface otherwise
        "SFTP_ENABLED": "0",
        "SERVICES": _SERVICES,
        "LAMBDA_EXECUTOR": "local",
        # Streams come back empty from a saved state, so none is kept: every `up` begins anew.
        "PERSIST_STATE": "0",
        "STATE_DIR": str(state / "emulator"),
        "S3_PERSIST": "1",
        "S3_DATA_DIR": str(state / "s3"),
        "TMPDIR": str(state / "tmp"),  # its pid file
        "LOG_LEVEL": "WARNING",
    }


def without_aws(environ: Mapping[str, str]) -> dict[str, str]:
    """Nothing of a developer's own account may leak into the local stack."""
    return {name: value for name, value in environ.items() if not name.startswith("AWS_")}


def credentials(region: str) -> dict[str, str]:
    return {
        "AWS_ACCESS_KEY_ID": ACCESS_KEY,
        "AWS_SECRET_ACCESS_KEY": ACCESS_KEY,
        "AWS_REGION": region,
        "AWS_DEFAULT_REGION": region,
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        "AWS_EC2_METADATA_DISABLED": "true",
    }


def process_environment(endpoint: str, region: str) -> dict[str, str]:
    """For the mapping, the delivery and the job: they speak to the emulator and to nothing else."""
    return {
        **without_aws(os.environ),
        **credentials(region),
        "AWS_ENDPOINT_URL": endpoint,
        "NO_PROXY": f"{LOOPBACK},localhost",
        "no_proxy": f"{LOOPBACK},localhost",
        "PYTHONUNBUFFERED": "1",
    }


def isolated_session(region: str) -> boto3.Session:
    """Blind to the profile, the files and the region that the environment names."""
    nowhere = {
        "profile": (None, None, None, None),
        "config_file": (None, None, os.devnull, None),
        "credentials_file": (None, None, os.devnull, None),
    }
    return boto3.Session(
        aws_access_key_id=ACCESS_KEY,
        aws_secret_access_key=ACCESS_KEY,
        region_name=region,
        botocore_session=botocore.session.Session(session_vars=nowhere),
    )


class Clients:
    """boto3 clients of the emulator, whatever the environment says."""

    def __init__(self, endpoint: str, region: str, *, connections: int = 10) -> None:
        self._session = isolated_session(region)
        self._endpoint = endpoint
        self._config = Config(
            connect_timeout=5,
            read_timeout=30,
            retries={"mode": "standard", "total_max_attempts": 3},
            max_pool_connections=connections,
            parameter_validation=False,
            proxies={},
            s3={"addressing_style": "path"},
        )

    def __call__(self, service: Any) -> Any:
        return self._session.client(service, endpoint_url=self._endpoint, config=self._config)


def answers(url: str, timeout_s: float = 2) -> int | None:
    """The HTTP status a local address answers with; None when nobody does."""
    try:
        with open_directly(url, timeout_s) as response:
            return int(response.status)
    except urllib.error.HTTPError as error:
        return error.code
    except (OSError, urllib.error.URLError):
        return None


def wait_until(
    ready: Callable[[], bool], *, what: str, within_s: float, watch: Callable[[], None], every_s: float = _LOOK_EVERY_S
) -> None:
    """Looks until `ready`; `watch` may raise at any look, when waiting longer makes no sense."""
    deadline = time.monotonic() + within_s
    while not ready():
        watch()
        if time.monotonic() >= deadline:
            raise NotReadyError(
                f"{what} is not ready after {within_s:g} s", hint="see the logs, or raise ready_within_s"
            )
        time.sleep(every_s)

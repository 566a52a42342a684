"""boto3 clients as job and operations use them: patient, and reaching an emulator without anybody's credentials."""

import os
from typing import Any, Final
from urllib.parse import urlsplit

import boto3
from botocore.config import Config

from config.settings import AwsSettings

_LOOPBACK: Final = frozenset(("127.0.0.1", "localhost", "::1"))
_EMULATED: Final = "local"


def client(aws: AwsSettings, service: Any, *, attempts: int = 5, connections: int = 16) -> Any:
    config = Config(
        retries={"mode": "standard", "total_max_attempts": attempts},
        connect_timeout=5,
        max_pool_connections=connections,
        # An emulator answers at one address, whatever the bucket.
        s3={"addressing_style": "path"} if aws.endpoint else None,
    )
    create: Any = boto3.client  # its stubs know no service but by a literal
    return create(
        service, region_name=aws.region, endpoint_url=aws.endpoint, config=config, **emulator_credentials(aws)
    )


def is_emulator(aws: AwsSettings) -> bool:
    return aws.endpoint is not None and urlsplit(aws.endpoint).hostname in _LOOPBACK


def emulator_credentials(aws: AwsSettings) -> dict[str, str]:
    """An emulator takes any, but the clients insist on some; AWS takes the ones of the environment."""
    if not is_emulator(aws) or "AWS_ACCESS_KEY_ID" in os.environ:
        return {}
    return {"aws_access_key_id": _EMULATED, "aws_secret_access_key": _EMULATED}

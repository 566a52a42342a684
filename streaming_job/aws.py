"""boto3 clients as job, operations and local workers use them, reaching an emulator without anybody's credentials."""

import os
from collections.abc import Callable
from typing import Any, Final

import boto3
from botocore.config import Config

from config.errors import ConfigurationError
from config.loopback import is_loopback, proxies_to
from config.settings import AwsSettings

_EMULATED: Final = "local"


def client(
    aws: AwsSettings, service: Any, *, attempts: int = 5, connections: int = 16, read_timeout_s: float = 60
) -> Any:
    config = Config(
        retries={"mode": "standard", "total_max_attempts": attempts},
        connect_timeout=5,
        read_timeout=read_timeout_s,
        max_pool_connections=connections,
        proxies=proxies_to(aws.endpoint),
        # An emulator answers at one address, whatever the bucket.
        s3={"addressing_style": "path"} if aws.endpoint else None,
    )
    # Its stubs know no service but by a literal.
    create: Any = boto3.client if aws.service_credential is None else _session_of(aws.service_credential).client
    return create(
        service, region_name=aws.region, endpoint_url=aws.endpoint, config=config, **emulator_credentials(aws)
    )


def _session_of(service_credential: str) -> boto3.Session:
    """Unity Catalog's: its keys renew themselves."""
    from streaming_job.spark import on_databricks  # noqa: PLC0415 - most clients need no Spark

    if not on_databricks():
        raise ConfigurationError(
            f"service credential {service_credential} is Databricks'", hint="leave aws.service_credential out here"
        )
    return boto3.Session(botocore_session=_provider()(service_credential))


def _provider() -> Callable[[str], Any]:
    """In what Spark calls there are no dbutils, elsewhere nothing but them."""
    try:
        from databricks.service_credentials import getServiceCredentialsProvider  # noqa: PLC0415 - Databricks' alone
    except ImportError:
        from databricks.sdk.runtime import dbutils  # noqa: PLC0415 - as above

        utils: Any = dbutils
        return utils.credentials.getServiceCredentialsProvider  # type: ignore[no-any-return]
    return getServiceCredentialsProvider  # type: ignore[no-any-return]


def is_emulator(aws: AwsSettings) -> bool:
    return is_loopback(aws.endpoint)


def emulator_credentials(aws: AwsSettings) -> dict[str, str]:
    """An emulator takes any, but the clients insist on some; AWS takes the ones of the environment."""
    if not is_emulator(aws) or "AWS_ACCESS_KEY_ID" in os.environ:
        return {}
    return {"aws_access_key_id": _EMULATED, "aws_secret_access_key": _EMULATED}

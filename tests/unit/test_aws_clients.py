"""Which credentials the operations' clients carry to which address."""

import os
import subprocess
import sys
from pathlib import Path

import boto3
import pytest

from config.settings import AwsSettings
from streaming_job.aws import client


@pytest.fixture(autouse=True)
def developer(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """A machine whose AWS profile holds keys of a real account."""
    file = tmp_path_factory.mktemp("aws") / "credentials"
    file.write_text("[default]\naws_access_key_id = REAL\naws_secret_access_key = REAL\n")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(file))
    monkeypatch.setattr(boto3, "DEFAULT_SESSION", None)  # it keeps the keys it found first


@pytest.mark.parametrize(
    ("endpoint", "key"),
    [
        ("http://127.0.0.1:4566", "local"),
        ("http://localhost:4566", "local"),
        ("https://vpce-1.s3.us-east-1.vpce.amazonaws.com", "REAL"),
        (None, "REAL"),
    ],
)
def test_a_developers_own_keys_go_to_aws_and_never_to_an_emulator(endpoint: str | None, key: str) -> None:
    made = client(AwsSettings(region="us-east-1", endpoint=endpoint), "s3")
    assert made._get_credentials().access_key == key


def test_keys_that_the_environment_names_are_taken_everywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "NAMED")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "NAMED")
    made = client(AwsSettings(region="us-east-1", endpoint="http://127.0.0.1:4566"), "kinesis")
    assert made._get_credentials().access_key == "NAMED"


PROVIDER = """
import botocore.session
def getServiceCredentialsProvider(name):
    session = botocore.session.Session()
    session.set_credentials(f"KEY-OF-{name}", "secret")
    return session
"""
ASKED = """
from config.settings import AwsSettings
from streaming_job.aws import client
made = client(AwsSettings(region="us-east-1", service_credential="lakestream"), "s3")
print(made._get_credentials().access_key, made.meta.region_name)
"""


def with_service_credential(folder: Path, **more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", ASKED],
        env={**os.environ, "PYTHONPATH": str(folder), **more},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def test_a_service_credential_is_asked_of_the_platform(tmp_path: Path) -> None:
    """A stand-in for Databricks' own module, where Python finds it."""
    package = tmp_path / "databricks"
    package.mkdir()
    (package / "__init__.py").write_text('__path__ = __import__("pkgutil").extend_path(__path__, __name__)\n')
    (package / "service_credentials.py").write_text(PROVIDER)
    done = with_service_credential(tmp_path, DATABRICKS_RUNTIME_VERSION="17.3")
    assert done.stdout.split() == ["KEY-OF-lakestream", "us-east-1"], done.stderr


def test_a_service_credential_anywhere_else_is_refused_with_what_to_do(tmp_path: Path) -> None:
    done = with_service_credential(tmp_path)
    assert done.returncode == 1
    assert "leave aws.service_credential out here" in done.stderr

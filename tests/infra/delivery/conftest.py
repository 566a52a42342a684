"""Of each test of the delivery: a stream, a folder of the bucket, and its settings, on one emulator a file."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.deliveries import BUCKET, MIB
from tests.support.local_workers import REGION, Aws, running_emulator


@pytest.fixture(scope="module")
def aws(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Aws]:
    with running_emulator(tmp_path_factory.mktemp("emulator")) as running:
        running("s3").create_bucket(Bucket=BUCKET)
        yield running


@pytest.fixture
def name(tmp_path: Path) -> str:
    """Of the test's stream, and its folder in the bucket."""
    return re.sub(r"\W", "-", tmp_path.name)


@pytest.fixture
def settings(aws: Aws, name: str, tmp_path: Path) -> dict[str, Any]:
    return {
        "endpoint": aws.endpoint,
        "region": REGION,
        "stream": name,
        "bucket": BUCKET,
        "prefix": f"{name}/date=!{{timestamp:yyyy-MM-dd}}/hour=!{{timestamp:HH}}/",
        "error_prefix": f"{name}-errors/!{{firehose:error-output-type}}/",
        "buffer_s": 300,
        "buffer_bytes": MIB,
        "state_dir": str(tmp_path / "state"),
        "metrics_port": 0,
    }

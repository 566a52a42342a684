"""Fixtures every suite may use: one Spark session a run, temporary lake paths."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from pyspark.sql import SparkSession


@pytest.fixture(scope="session")
def spark(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SparkSession]:
    from streaming_job.spark import build_session  # noqa: PLC0415 - the other suites need no Spark

    warehouse = tmp_path_factory.mktemp("warehouse")
    session = build_session("tests", {"spark.sql.warehouse.dir": str(warehouse)})
    session.sparkContext.setLogLevel("ERROR")
    yield session
    session.stop()


@pytest.fixture
def lake(tmp_path: Path) -> Path:
    """An empty folder that a test may fill with Delta tables."""
    root = tmp_path / "lake"
    root.mkdir()
    return root

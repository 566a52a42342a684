"""Databricks' API on loopback, with the job that arrivals start."""

from collections.abc import Iterator

import pytest

from tests.support.arrivals import JOB
from tests.support.databricks_fake import FakeDatabricks, running_databricks


@pytest.fixture
def databricks() -> Iterator[FakeDatabricks]:
    with running_databricks() as fake:
        fake.add_job("lakestream-arrival", JOB)
        fake.begins = False
        yield fake

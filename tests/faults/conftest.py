"""Emulators shared by the tests here; each test makes a stream of its own."""

import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.faults.kinesis_servers import client, kinesis_local, ministack, until


@pytest.fixture(scope="session")
def kinesis_endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with ministack(tmp_path_factory.mktemp("ministack")) as endpoint:
        yield endpoint


@pytest.fixture(scope="session")
def resharding_endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with kinesis_local(tmp_path_factory.mktemp("kinesis-local")) as endpoint:
        yield endpoint


def _made(endpoint: str, shards: int) -> str:
    name = f"stream-{uuid.uuid4().hex[:8]}"
    kinesis = client(endpoint)
    kinesis.create_stream(StreamName=name, ShardCount=shards)
    until(
        lambda: (
            kinesis.describe_stream_summary(StreamName=name)["StreamDescriptionSummary"]["StreamStatus"] == "ACTIVE"
        ),
        "the stream is active",
    )
    return name


@pytest.fixture
def new_stream() -> Callable[[str, int], str]:
    return _made


@pytest.fixture
def kinesis(kinesis_endpoint: str) -> Any:
    return client(kinesis_endpoint)

"""Emulators of the end-to-end suite: from containers when an engine answers, else embedded; the run says which."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from tests.support import containers

_SAID: pytest.StashKey[str] = pytest.StashKey()
REGION = "us-east-1"


@pytest.fixture(scope="session")
def container_engine() -> containers.Engine | str:
    return containers.engine()


@pytest.fixture
def emulator_options(
    container_engine: containers.Engine | str,
    pytestconfig: pytest.Config,
    record_testsuite_property: Callable[[str, object], None],
) -> Iterator[list[str]]:
    """For `lakestream local up`: nothing, or the address of an emulator in a container of its own."""
    with ExitStack() as started:
        options, said = containers.emulator_options(container_engine, started, REGION)
        pytestconfig.stash[_SAID] = said
        record_testsuite_property("emulators", said)
        yield options


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if said := config.stash.get(_SAID, None):
        terminalreporter.write_line(f"end-to-end emulators: {said}")

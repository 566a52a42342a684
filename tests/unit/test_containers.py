"""Where the end-to-end suite's emulators come from, and what is said of it."""

from contextlib import ExitStack
from types import SimpleNamespace
from typing import Any

import pytest
from docker.errors import DockerException

from tests.support import containers


@pytest.mark.parametrize(
    ("host", "said"),
    [
        ("unix:///no/such/socket", "no container engine answers at unix:///no/such/socket"),
        ("tcp://192.0.2.7:2375", "is not this machine's"),
    ],
)
def test_without_an_engine_of_this_machine_it_says_why(host: str, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", host)
    found = containers.engine()
    assert isinstance(found, str)
    assert said in found
    assert containers.emulator_options(found, ExitStack(), "us-east-1") == ([], f"embedded ({found})")


def test_an_engine_that_starts_no_container_is_named_and_done_without() -> None:
    def refuse(_: Any) -> None:
        raise DockerException("no room left")

    refusing: Any = SimpleNamespace(client=SimpleNamespace(images=SimpleNamespace(get=refuse)))
    found = containers.Engine(refusing, "Podman 4.3.1")
    options, said = containers.emulator_options(found, ExitStack(), "us-east-1")
    assert options == []
    assert said == "embedded (Podman 4.3.1 starts none: no room left)"


def test_the_image_holds_what_the_emulator_is_started_with() -> None:
    """The interpreter behind the environment's links, and the libraries that it loads by their own names."""
    files = containers._files()
    assert containers._interpreter() in files
    assert containers.EMULATOR in files
    assert any(library.name.startswith("ld-") for library in containers._libraries(containers._interpreter()))

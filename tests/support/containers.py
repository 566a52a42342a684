"""Emulators in containers, where a container engine answers: docker's, or podman's behind docker's API.

The image is made on the spot of what runs the embedded emulator - this interpreter, the libraries it needs, the locked
environment - so that no registry is asked, and both ways run the very same. It shares the machine's network and listens
on loopback alone; so the engine has to be this machine's, and this machine a Linux.
"""

import contextlib
import hashlib
import io
import json
import os
import re
import subprocess
import sys
import tarfile
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from infra.local import emulator
from infra.local.checks import EMULATOR, ROOT
from infra.local.ports import free_ports

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)
    from docker.errors import DockerException, ImageNotFound
    from testcontainers.core.container import DockerContainer
    from testcontainers.core.docker_client import DockerClient
    from testcontainers.core.exceptions import ContainerStartException
    from testcontainers.core.wait_strategies import LogMessageWaitStrategy

REPOSITORY = "localhost/lakestream-emulator"
STATE = Path("/state")
"""Where the emulator keeps what it is told, inside."""
SERVES = "Running on http"
"""What the emulator's log says when it does."""
_START_FAILURES = (ContainerStartException, DockerException, TimeoutError, OSError)
_LEFT_OUT = re.compile(r"/(__pycache__|test|tests|idlelib|ensurepip|site-packages/pip|turtledemo)(/|$)")


@dataclass(frozen=True)
class Engine:
    client: DockerClient
    name: str


def engine() -> Engine | str:
    """Or why there is none."""
    if sys.platform != "linux":
        return "containers share the machine's network here, which takes a Linux"
    host = os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock")
    if not host.startswith("unix://"):
        return f"the engine at {host} is not this machine's"
    try:
        client = DockerClient()
        version = client.client.version()
    except (DockerException, OSError) as error:
        return f"no container engine answers at {host}: {' '.join(str(error).split())[:150]}"
    names = [component["Name"] for component in version.get("Components", ())]
    return Engine(client, f"{names[0] if names else 'an engine'} {version.get('Version', '')}".strip())


def emulator_options(found: Engine | str, started: contextlib.ExitStack, region: str) -> tuple[list[str], str]:
    """What `lakestream local up` is given, and what to say of it."""
    if isinstance(found, str):
        return [], f"embedded ({found})"
    try:
        address = started.enter_context(emulator_in_container(found, region))
    except _START_FAILURES as error:
        return [], f"embedded ({found.name} starts none: {' '.join(str(error).split())[:300]})"
    return ["--emulator", address], f"in containers, by {found.name}"


@contextlib.contextmanager
def emulator_in_container(running: Engine, region: str) -> Iterator[str]:
    """Its address."""
    (port,) = free_ports(1)
    container = DockerContainer(image(running.client)).with_command([str(EMULATOR)])
    environment = emulator.own_environment(port, STATE, region) | {"LOG_LEVEL": "INFO"}
    container.with_envs(**environment).with_kwargs(network_mode="host", working_dir=str(STATE))
    with container.waiting_for(LogMessageWaitStrategy(SERVES).with_startup_timeout(60)):
        yield emulator.endpoint_of(port)


def image(client: DockerClient) -> str:
    """Its name; made when the engine has none of just this content."""
    lock = (ROOT / "infra" / "locks" / "stack.txt").read_bytes()
    tag = hashlib.sha256(lock + sys.version.encode() + str(ROOT).encode()).hexdigest()[:16]
    try:
        client.client.images.get(f"{REPOSITORY}:{tag}")
    except ImageNotFound:
        # Podman heeds no tag here.
        said = client.client.api.import_image_from_data(_content(), repository=REPOSITORY).splitlines()
        client.client.images.get(json.loads(said[-1])["status"]).tag(REPOSITORY, tag)
    return f"{REPOSITORY}:{tag}"


def _content() -> bytes:
    body = io.BytesIO()
    with tarfile.open(fileobj=body, mode="w") as tar:
        for folder in (STATE, STATE / "tmp"):
            entry = tarfile.TarInfo(str(folder))
            entry.type, entry.mode = tarfile.DIRTYPE, 0o777
            tar.addfile(entry)
        files = _files()
        for path in sorted(files):
            tar.add(path, arcname=str(path), recursive=False)
        # By the names that the loader asks for; the folders on the way to them are links here, there are none there.
        compiled = [
            path for path in files if not path.is_symlink() and (path.suffix == ".so" or path == _interpreter())
        ]
        for library in sorted({library for path in compiled for library in _libraries(path)} - files):
            tar.add(library.resolve(), arcname=str(library), recursive=False)
    return body.getvalue()


def _interpreter() -> Path:
    return (EMULATOR.parent / "python").resolve()


def _files() -> set[Path]:
    base = Path(sys.base_prefix)
    name = f"python{sys.version_info.major}.{sys.version_info.minor}"
    roots = (base / "lib" / name, EMULATOR.parents[1])
    found = {
        path
        for root in roots
        for path in root.rglob("*")
        if not _LEFT_OUT.search(str(path)) and (root != roots[0] or "site-packages" not in path.parts)
    }
    link = EMULATOR.parent / "python"
    while link.is_symlink():
        found.add(link)
        link = link.parent / link.readlink()
    return found | {_interpreter()}


def _libraries(path: Path) -> Iterator[Path]:
    """What the loader would load for it."""
    listed = subprocess.run(["ldd", str(path)], capture_output=True, text=True, check=False).stdout
    for match in re.finditer(r"(/\S+) \(0x", listed):
        yield Path(match.group(1))

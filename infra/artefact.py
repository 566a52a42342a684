"""The functions' artefact: code, rules, and libraries for Lambda's runtime. `python -m infra.artefact --table …`.

The same input gives the same hash: wheels by the lock's hashes, files in one order with one date, and the hash taken of
what the files say, not of how they were compiled and compressed.

Byte code comes with it: a function's folder is read-only, so that without it every cold start compiles anew. It is the
building interpreter's, and the function is deployed to the runtime of that same Python.
"""

import argparse
import hashlib
import io
import json
import os
import re
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from config.errors import LakestreamError
from config.rules import TABLES, compile_rules

ROOT: Final = Path(__file__).parents[1]
LOCK: Final = ROOT / "infra" / "locks" / "bridge.txt"
PYTHON: Final = f"{sys.version_info.major}.{sys.version_info.minor}"
RUNTIME: Final = f"python{PYTHON}"
"""Parameter PythonRuntime of template.yaml, which knows the ones Lambda has."""
PLATFORM: Final = "manylinux2014_aarch64"
"""Architectures of the functions in template.yaml; a test holds them equal."""
SERVICES: Final = frozenset({"kinesis", "s3", "secretsmanager"})
"""Whose descriptions botocore is left with: those of all services would be 25 MB."""
BYTES_MAX: Final = 18 * 1024 * 1024
"""Unpacked. Lambda takes 250 MB; what is fetched and loaded costs cold start."""
_ZIP_TIME: Final = (1980, 1, 1, 0, 0, 0)
_OWN: Final = (
    "bridge_lambda/*.py",
    "config/__init__.py",
    "config/limits.py",
    "infra/__init__.py",
    "infra/arrival/*.py",
)
_TASK_ROOT: Final = "/var/task"
"""Where Lambda unpacks it: what its stack traces name."""
_LEFT_OUT: Final = re.compile(
    r"(^|/)(__pycache__|bin|tests?)/|\.dist-info/(RECORD|INSTALLER|REQUESTED|direct_url\.json)$"
)
_TIMEOUT_S: Final = 300
_CACHE: Final = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "lakestream"


class ArtefactError(LakestreamError):
    """The artefact cannot be built; nothing was written."""

    exit_code = 2


@dataclass(frozen=True)
class Artefact:
    files: Mapping[str, bytes]

    @property
    def size(self) -> int:
        return sum(map(len, self.files.values()))

    @property
    def digest(self) -> str:
        """Of sources and runtime; byte code follows from the two."""
        whole = hashlib.sha256(RUNTIME.encode())
        for name, body in sorted(self.files.items()):
            if not name.endswith(".pyc"):
                whole.update(f"{hashlib.sha256(body).hexdigest()}  {name}\n".encode())
        return whole.hexdigest()

    @property
    def key(self) -> str:
        """Parameter ArtefactKey of template.yaml: another content is another key, so that it is deployed."""
        return f"bridge/{self.digest[:32]}.zip"

    def zipped(self) -> bytes:
        body = io.BytesIO()
        with zipfile.ZipFile(body, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
            for name, content in sorted(self.files.items()):
                entry = zipfile.ZipInfo(name, _ZIP_TIME)
                entry.compress_type = zipfile.ZIP_DEFLATED
                entry.external_attr = 0o644 << 16  # Lambda's user is another
                archive.writestr(entry, content)
        return body.getvalue()


def own_files(rules: Mapping[str, Any]) -> dict[str, bytes]:
    """What the functions import of this project, and the rules that lie beside it."""
    paths = [path for pattern in _OWN for path in ROOT.glob(pattern)]
    files = {path.relative_to(ROOT).as_posix(): path.read_bytes() for path in paths}
    return {**files, "rules.json": json.dumps(rules, sort_keys=True, separators=(",", ":")).encode()}


def libraries(lock: Path | None = None, platform: str = PLATFORM) -> dict[str, bytes]:
    """The lock's, for our interpreter and the platform, whatever machine this is.

    botocore among them, which Lambda's runtime has too, but without byte code and at a version that nobody tested.
    """
    with tempfile.TemporaryDirectory() as scratch:
        target = Path(scratch) / "target"
        _install(lock or LOCK, target, platform)
        found = {path.relative_to(target).as_posix(): path for path in target.rglob("*") if path.is_file()}
        return {name: path.read_bytes() for name, path in found.items() if _is_needed(name)}


def _is_needed(name: str) -> bool:
    service = re.match(r"botocore/data/([^/]+)/", name)
    return not _LEFT_OUT.search(name) and (service is None or service.group(1) in SERVICES)


def _install(lock: Path, target: Path, platform: str) -> None:
    options = ["--quiet", "--disable-pip-version-check", "--no-input", "--no-deps", "--no-compile", "--require-hashes"]
    wheels = ["--only-binary=:all:", "--implementation", "cp", "--python-version", PYTHON, "--platform", platform]
    try:
        done = subprocess.run(
            [sys.executable, "-m", "pip", "install", *options, *wheels, "--target", str(target), "-r", str(lock)],
            capture_output=True,
            text=True,
            check=False,
            timeout=_TIMEOUT_S,
        )
    except subprocess.TimeoutExpired as error:
        raise ArtefactError(f"pip took longer than {_TIMEOUT_S} s", hint="is the network there?") from error
    if done.returncode:
        said = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
        raise ArtefactError(f"pip could not install: {said[0] if said else done.stderr.strip()[-200:]}")


def compiled(files: Mapping[str, bytes]) -> dict[str, bytes]:
    """Byte code that is trusted without a look at its source, beside each source."""
    with tempfile.TemporaryDirectory() as scratch:
        sources = sorted(name for name in files if name.endswith(".py"))
        for name in sources:
            path = Path(scratch) / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(files[name])
        # Apart and with fixed hashes, so that nothing this process did before shows in the byte code.
        done = subprocess.run(
            [sys.executable, "-I", "-S", "-c", _COMPILE, _TASK_ROOT, *sources],
            cwd=scratch,
            env={"PYTHONHASHSEED": "0"},
            capture_output=True,
            text=True,
            check=False,
            timeout=_TIMEOUT_S,
        )
        if done.returncode:
            raise ArtefactError(f"a source does not compile: {' '.join(done.stderr.split())[-200:]}")
        return {path.relative_to(scratch).as_posix(): path.read_bytes() for path in Path(scratch).rglob("*.pyc")}


_COMPILE: Final = """
import py_compile, sys
for name in sys.argv[2:]:
    trusted = py_compile.PycInvalidationMode.UNCHECKED_HASH
    py_compile.compile(name, dfile=f"{sys.argv[1]}/{name}", doraise=True, invalidation_mode=trusted)
"""


def build(table: str, tables: Path = TABLES, platform: str = PLATFORM) -> Artefact:
    """With the rules of this one table: a stack has one, and may read no other's secret."""
    own = own_files(compile_rules(tables, (table,)))
    return within_budget(Artefact({**kept_libraries(platform), **own, **compiled(own)}))


def kept_libraries(platform: str) -> dict[str, bytes]:
    """The libraries and their byte code, from the last time that anybody here asked for the very same."""
    asked = (LOCK.read_bytes(), Path(__file__).read_bytes(), sys.version.encode(), platform.encode())
    kept = _CACHE / f"libraries-{hashlib.sha256(b'/'.join(asked)).hexdigest()[:32]}.zip"
    try:
        with zipfile.ZipFile(kept) as archive:
            return {name: archive.read(name) for name in archive.namelist()}
    except (OSError, zipfile.BadZipFile):
        files = libraries(platform=platform)
        files |= compiled(files)
    kept.parent.mkdir(parents=True, exist_ok=True)
    half = kept.with_name(f"{kept.name}.{os.getpid()}")
    half.write_bytes(Artefact(files).zipped())
    half.replace(kept)
    return files


def within_budget(artefact: Artefact, bytes_max: int = BYTES_MAX) -> Artefact:
    if artefact.size > bytes_max:
        raise ArtefactError(
            f"the artefact has {artefact.size} bytes, its budget is {bytes_max}", hint="what came in by the lock?"
        )
    return artefact


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m infra.artefact", description="Build the functions' artefact.")
    parser.add_argument("--out", type=Path, default=ROOT / "dist" / "bridge.zip")
    parser.add_argument("--table", required=True, help="the stack's own, whose rules come with it")
    parser.add_argument("--tables", type=Path, default=TABLES, help="folder of the rules files")
    options = parser.parse_args()
    try:
        artefact = build(options.table, options.tables)
    except LakestreamError as error:
        sys.stderr.write(f"error: {error}\n")
        return error.exit_code
    body = artefact.zipped()
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_bytes(body)
    said = {"path": str(options.out), "key": artefact.key, "sha256": artefact.digest, "runtime": RUNTIME}
    sys.stdout.write(json.dumps({**said, "bytes": artefact.size, "bytes_zipped": len(body)}) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())

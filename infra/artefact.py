"""The bridge's artefact: its code, its rules and its libraries for the Lambda runtime. `python -m infra.artefact`.

The same input gives the same hash: wheels by the lock's hashes, files in one order with one date, and the hash taken of
what the files say, not of how they were compressed.
"""

import argparse
import hashlib
import io
import json
import re
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from config.errors import LakestreamError
from config.rules import TABLES, compile_rules

ROOT: Final = Path(__file__).parents[1]
LOCK: Final = ROOT / "infra" / "locks" / "bridge.txt"
PYTHON: Final = "3.13"
PLATFORM: Final = "manylinux2014_aarch64"
"""Runtime and Architectures of the function in template.yaml; a test holds them equal."""
IN_THE_RUNTIME: Final = frozenset({"boto3", "botocore", "jmespath", "python-dateutil", "s3transfer", "six", "urllib3"})
"""Lambda's Python has these, and keeps them patched; ours again would be 25 MB more to load."""
BYTES_MAX: Final = 8 * 1024 * 1024
"""Unpacked. Lambda takes 250 MB; what is loaded costs cold start."""
_ZIP_TIME: Final = (1980, 1, 1, 0, 0, 0)
_OWN: Final = ("bridge_lambda/*.py", "config/__init__.py", "config/limits.py")
_LEFT_OUT: Final = re.compile(
    r"(^|/)(__pycache__|bin|tests?)/|\.dist-info/(RECORD|INSTALLER|REQUESTED|direct_url\.json)$"
)
_TIMEOUT_S: Final = 300


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
        whole = hashlib.sha256()
        for name, body in sorted(self.files.items()):
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
    """What the bridge imports of this project, and the rules it reads beside it."""
    paths = [path for pattern in _OWN for path in ROOT.glob(pattern)]
    files = {path.relative_to(ROOT).as_posix(): path.read_bytes() for path in paths}
    return {**files, "rules.json": json.dumps(rules, sort_keys=True, separators=(",", ":")).encode()}


def libraries(lock: Path = LOCK) -> dict[str, bytes]:
    """Those of the lock that the runtime lacks, for its interpreter and architecture, whatever machine this is."""
    with tempfile.TemporaryDirectory() as scratch:
        wanted, target = Path(scratch) / "wanted.txt", Path(scratch) / "target"
        wanted.write_text("".join(_requirements(lock.read_text(encoding="utf-8"))), encoding="utf-8")
        _install(wanted, target)
        found = {path.relative_to(target).as_posix(): path for path in target.rglob("*") if path.is_file()}
        return {name: path.read_bytes() for name, path in found.items() if not _LEFT_OUT.search(name)}


def _requirements(lock: str) -> Iterator[str]:
    """The lock's blocks, a package with its hashes each, without those the runtime has."""
    for block in re.split(r"(?m)^(?=[A-Za-z0-9])", lock):
        name = re.match(r"[A-Za-z0-9._-]+", block)
        if name and name.group().lower() not in IN_THE_RUNTIME:
            yield block


def _install(wanted: Path, target: Path) -> None:
    options = ["--quiet", "--disable-pip-version-check", "--no-input", "--no-deps", "--no-compile", "--require-hashes"]
    platform = ["--only-binary=:all:", "--implementation", "cp", "--python-version", PYTHON, "--platform", PLATFORM]
    try:
        done = subprocess.run(
            [sys.executable, "-m", "pip", "install", *options, *platform, "--target", str(target), "-r", str(wanted)],
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


def build(tables: Path = TABLES) -> Artefact:
    return within_budget(Artefact({**libraries(), **own_files(compile_rules(tables))}))


def within_budget(artefact: Artefact, bytes_max: int = BYTES_MAX) -> Artefact:
    if artefact.size > bytes_max:
        raise ArtefactError(
            f"the artefact has {artefact.size} bytes, its budget is {bytes_max}", hint="what came in by the lock?"
        )
    return artefact


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m infra.artefact", description="Build the bridge's artefact.")
    parser.add_argument("--out", type=Path, default=ROOT / "dist" / "bridge.zip")
    parser.add_argument("--tables", type=Path, default=TABLES, help="folder of the rules files")
    options = parser.parse_args()
    try:
        artefact = build(options.tables)
    except LakestreamError as error:
        sys.stderr.write(f"error: {error}\n")
        return error.exit_code
    body = artefact.zipped()
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_bytes(body)
    said = {"path": str(options.out), "key": artefact.key, "sha256": artefact.digest, "bytes": artefact.size}
    sys.stdout.write(json.dumps({**said, "bytes_zipped": len(body)}) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""What must be true before the stack starts. Each check says in one line what is wrong and what to do about it."""

import os
import re
import shutil
import subprocess
from pathlib import Path

from infra.local.errors import NotPossibleError
from infra.local.ports import is_free

ROOT = Path(__file__).parents[2]
EMULATOR = ROOT / ".venv-stack" / "bin" / "ministack"
JARS = ROOT / ".jars"
JARS_LOCK = ROOT / "infra" / "locks" / "jars.sha256"
JAVA_VERSION = 17
_JAVA_TIMEOUT_S = 20


def java() -> None:
    """The Java that Spark would start: JAVA_HOME's, else the first in PATH."""
    home = os.environ.get("JAVA_HOME")
    command = str(Path(home) / "bin" / "java") if home else shutil.which("java")
    hint = f"install a Java {JAVA_VERSION} runtime, or point JAVA_HOME at one"
    if command is None or not Path(command).is_file():
        where = f"JAVA_HOME={home} holds no bin/java" if home else "no java in PATH"
        raise NotPossibleError(f"Java {JAVA_VERSION} is needed, and there is {where}", hint=hint)
    try:
        answer = subprocess.run(
            [command, "-version"], capture_output=True, text=True, timeout=_JAVA_TIMEOUT_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NotPossibleError(f"{command} does not start: {error}", hint=hint) from error
    found = java_version(answer.stderr + answer.stdout)
    if found != JAVA_VERSION:
        said = f"is version {found}" if found else "does not tell its version"
        raise NotPossibleError(f"Java {JAVA_VERSION} is needed, and {command} {said}", hint=hint)


def java_version(text: str) -> int | None:
    """The feature release out of `java -version`: 17 from `"17.0.15"`, 8 from `"1.8.0_402"`."""
    match = re.search(r'version "(?:1\.)?(\d+)', text)
    return int(match.group(1)) if match else None


def disk(folder: Path, free_gb_min: float) -> None:
    existing = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    free_gb = shutil.disk_usage(existing).free / 1024**3
    if free_gb < free_gb_min:
        raise NotPossibleError(
            f"{existing} has {free_gb:.1f} GB free, {free_gb_min:g} GB are needed",
            hint="make room, name another folder with --dir, or lower disk_free_gb_min in the configuration",
        )


def folder(path: Path) -> None:
    """It can be made and written to; found out here rather than half way."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise NotPossibleError(
            f"cannot make {path}: {error.strerror}", hint="name another folder with --dir"
        ) from error
    if not os.access(path, os.W_OK | os.X_OK):
        raise NotPossibleError(f"cannot write to {path}", hint="name another folder with --dir")


def emulator() -> None:
    if not EMULATOR.exists():
        raise NotPossibleError("the emulator's environment .venv-stack is not there", hint="run `make setup`")


def jars() -> None:
    names = [line.split()[1] for line in JARS_LOCK.read_text(encoding="utf-8").splitlines() if line.strip()]
    missing = [name for name in names if not (JARS / name).is_file()]
    if missing:
        raise NotPossibleError(
            f"{len(missing)} of {len(names)} Delta jars are missing in .jars", hint="run `make setup`"
        )


def port(number: int, option: str) -> None:
    if number and not is_free(number):
        raise NotPossibleError(
            f"port {number} is occupied", hint=f"end what listens there, or give {option} 0 for a free port"
        )

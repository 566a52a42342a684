"""The Kinesis Client Library as amazon-kclpy brings it, for the probe alone: in a folder of its own, `.kcl`.

`python -m infra.local.kcl` installs it. Its jars are fetched while it is built, where pip checks nothing: every file is
held to the hashes of the lock before the folder is there at all.
"""

import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import typer

from config.errors import LakestreamError
from infra.local.checks import ROOT
from infra.local.jars import JarsError, locked, wrong

FOLDER = ROOT / ".kcl"
LOCK = ROOT / "infra" / "locks" / "kcl.sha256"
REQUIREMENTS = ROOT / "infra" / "locks" / "kcl.txt"
_TIMEOUT_S = 600


def check(folder: Path = FOLDER, lock: Path = LOCK) -> None:
    if bad := wrong(folder, locked(lock)):
        raise JarsError(
            f"the Kinesis Client Library in {folder} is not what the lock says: {len(bad)} files, {bad[0]} first",
            hint="run `make setup-probe`",
        )


def install(scratch: Path) -> None:
    """By pip, which holds the package to its hash; its chatter is shown only if it fails."""
    words = ["install", "--quiet", "--disable-pip-version-check", "--no-input", "--no-deps", "--no-compile"]
    command = [sys.executable, "-m", "pip", *words, "--require-hashes", "--target", str(scratch)]
    done = subprocess.run(
        [*command, "-r", str(REQUIREMENTS)], capture_output=True, text=True, timeout=_TIMEOUT_S, check=False
    )
    if done.returncode:
        sys.stderr.write(done.stdout + done.stderr)
        raise JarsError("amazon-kclpy could not be installed, see above", hint="is the network there?")


def ensure(folder: Path = FOLDER, lock: Path = LOCK, *, get: Callable[[Path], None] = install) -> bool:
    """True when it had to be installed, false when all was there."""
    expected = locked(lock)
    if not wrong(folder, expected):
        return False
    # In the same file system, so that each file arrives whole or not at all.
    with tempfile.TemporaryDirectory(prefix=".kcl-", dir=folder.parent) as scratch:
        get(Path(scratch))
        if bad := wrong(Path(scratch), expected):
            raise JarsError(
                f"{bad[0]} and {len(bad) - 1} more are not what the lock says",
                hint=f"compare {lock} with what your package index and Maven repository serve",
            )
        for name in expected:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (Path(scratch) / name).replace(folder / name)
    return True


def main() -> None:
    try:
        installed = ensure()
    except LakestreamError as error:
        typer.echo(f"error: {error}", err=True)
        raise SystemExit(error.exit_code) from error
    typer.echo("the Kinesis Client Library is installed" if installed else "the Kinesis Client Library is there")


if __name__ == "__main__":
    main()

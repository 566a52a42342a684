"""The Delta jars Spark starts with: resolved once, checked by hash, kept in `.jars`. `python -m infra.local.jars`.

Spark could resolve them at every start; but then every start needs the network, and Ivy fails when the user's own Maven
folder holds only half of what it wants. Here it sees neither: a home and an Ivy folder of their own, gone afterwards.
"""

import hashlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import typer

from config.errors import LakestreamError
from infra.local import checks

_PACKAGE = "io.delta:delta-spark_4.2_2.13:4.4.0"
_TIMEOUT_S = 600
# What pyspark ships already; the hashes tell whether anything needed was left out.
_EXCLUDED = (
    "org.apache.hadoop:*",
    "org.apache.logging.log4j:*",
    "org.antlr:*",
    "org.slf4j:*",
    "org.openapitools:*",
    "com.fasterxml.jackson.core:*",
    "com.fasterxml.jackson.datatype:*",
    "com.fasterxml.jackson.module:*",
    "com.google.code.findbugs:*",
    "jakarta.annotation:*",
    "org.scala-lang:*",
    "io.dropwizard.metrics:*",
)

_RESOLVE = """
import sys
from pyspark.sql import SparkSession
SparkSession.builder.master("local[1]").config("spark.ui.enabled", "false").getOrCreate().stop()
"""


class JarsError(LakestreamError):
    """The jars could not be had, or are not what the lock says."""

    exit_code = 3


def locked(lock: Path) -> dict[str, str]:
    """SHA-256 by file name."""
    pairs = (line.split() for line in lock.read_text(encoding="utf-8").splitlines() if line.strip())
    return {name: digest for digest, name in pairs}


def wrong(folder: Path, expected: dict[str, str]) -> list[str]:
    """Names that are missing from the folder, or there with another content."""
    return [name for name, digest in expected.items() if _digest(folder / name) != digest]


def resolve(scratch: Path) -> Path:
    """Through Spark's own resolution, which knows the machine's repositories; its chatter is shown only if it fails."""
    checks.java()
    ivy, home = scratch / "ivy", scratch / "home"
    home.mkdir()
    settings = {
        "spark.jars.packages": _PACKAGE,
        "spark.jars.excludes": ",".join(_EXCLUDED),
        "spark.jars.ivy": str(ivy),
        "spark.driver.bindAddress": "127.0.0.1",
        "spark.driver.host": "127.0.0.1",
    }
    options = " ".join(f"--conf {name}={value}" for name, value in settings.items())
    env = {
        **os.environ,
        "PYSPARK_SUBMIT_ARGS": f"{options} --driver-java-options -Duser.home={home} pyspark-shell",
        "PYSPARK_PYTHON": sys.executable,
        "SPARK_LOCAL_IP": "127.0.0.1",
    }
    try:
        done = subprocess.run(
            [sys.executable, "-c", _RESOLVE],
            env=env,
            cwd=scratch,
            capture_output=True,
            text=True,
            timeout=_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise JarsError(f"resolving the jars took longer than {_TIMEOUT_S} s", hint="is the network there?") from error
    if done.returncode:
        sys.stderr.write(done.stderr)
        raise JarsError("Spark could not resolve the Delta jars, see above", hint="is the network there?")
    return ivy / "jars"


def ensure(folder: Path, lock: Path, *, find: Callable[[Path], Path] = resolve) -> bool:
    """True when something had to be resolved, false when all was there."""
    expected = locked(lock)
    if not wrong(folder, expected):
        return False
    folder.mkdir(exist_ok=True)
    # In the same file system, so that each jar arrives whole or not at all.
    with tempfile.TemporaryDirectory(prefix=".resolving-", dir=folder) as scratch:
        found = find(Path(scratch))
        if bad := wrong(found, expected):
            raise JarsError(
                f"{bad[0]} and {len(bad) - 1} more did not resolve to what the lock says",
                hint=f"compare {lock} with what your Maven repository serves",
            )
        for name in expected:
            (found / name).replace(folder / name)
    for stranger in {path.name for path in folder.glob("*.jar")} - expected.keys():
        (folder / stranger).unlink()
    return True


def _digest(path: Path) -> str | None:
    try:
        with path.open("rb") as jar:
            return hashlib.file_digest(jar, "sha256").hexdigest()
    except FileNotFoundError:
        return None


def main() -> None:
    try:
        resolved = ensure(checks.JARS, checks.JARS_LOCK)
    except LakestreamError as error:
        typer.echo(f"error: {error}", err=True)
        raise SystemExit(error.exit_code) from error
    typer.echo("jars resolved" if resolved else "jars are all there")


if __name__ == "__main__":
    main()

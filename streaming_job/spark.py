"""The Spark session: ours when we start one, the platform's when there is one already."""

import atexit
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

import pyspark
from py4j.protocol import Py4JError
from pyspark.sql import SparkSession

from config.errors import ConfigurationError
from streaming_job.errors import SparkGoneError

JARS = Path(__file__).parent.parent / ".jars"

# Measured on small batches, 2 cores: a warm MERGE takes 1.0-1.5 s with these and 4-7 s with the defaults.
_DEFAULTS: Mapping[str, str] = {
    "spark.sql.extensions": "io.delta.sql.DeltaSparkSessionExtension",
    "spark.sql.catalog.spark_catalog": "org.apache.spark.sql.delta.catalog.DeltaCatalog",
    "spark.sql.session.timeZone": "UTC",
    "spark.sql.shuffle.partitions": "2",
    "spark.sql.adaptive.enabled": "false",
    "spark.databricks.delta.snapshotPartitions": "1",
    # VACUUM lists with 10,000 tasks otherwise: 48 s on a tiny table, 2 s with this.
    "spark.sql.sources.parallelPartitionDiscovery.parallelism": "2",
    # Hadoop's checksummed local files cost a process for each change of permissions, several a batch.
    "spark.hadoop.fs.file.impl": "org.apache.hadoop.fs.RawLocalFileSystem",
    "spark.sql.execution.arrow.pyspark.enabled": "true",
    # How soon a stream with nothing to read says that it is idle: our health depends on it.
    "spark.sql.streaming.noDataProgressEventInterval": "2000",
    "spark.ui.enabled": "false",
    "spark.ui.showConsoleProgress": "false",
    "spark.driver.bindAddress": "127.0.0.1",
    "spark.driver.host": "127.0.0.1",
    "spark.driver.memory": "2g",
    # What goes on after it is in no known state; ended, it is said, and the job goes on from its checkpoint.
    "spark.driver.extraJavaOptions": "-XX:+ExitOnOutOfMemoryError",
}


def build_session(name: str, conf: Mapping[str, str] | None = None, *, master: str = "local[2]") -> SparkSession:
    """A session with Delta and our defaults; `conf` is laid over them."""
    jars = sorted(JARS.glob("*.jar"))
    if not jars:
        raise ConfigurationError(f"no Delta jars in {JARS}", hint="run `make setup`")
    # Python data sources fail with "failed to connect back" under any other interpreter.
    os.environ["PYSPARK_PYTHON"] = sys.executable
    os.environ.setdefault("SPARK_LOCAL_IP", "127.0.0.1")
    builder = SparkSession.builder.appName(name).master(master).config("spark.jars", ",".join(map(str, jars)))
    for key, value in {**_DEFAULTS, **(conf or {})}.items():
        builder = builder.config(key, value)
    with _home_without_zips():
        return builder.getOrCreate()


@contextmanager
def _home_without_zips() -> Iterator[None]:
    """Where a JVM that is started in the block looks for Spark: what is installed, but for PySpark's zip.

    Every Python process it starts would import PySpark from there, and a zip keeps no byte code: it is compiled anew,
    1.3 s in place of 0.4, in each of the four that a query's start waits for. So they take the installed one, as we do.
    """
    installed = Path(pyspark.__file__).parent
    if "SPARK_HOME" in os.environ or not (installed / "jars").is_dir():
        yield
        return
    # As long as the JVM lives, which is as long as we do.
    home = tempfile.mkdtemp(prefix="lakestream-spark-")
    atexit.register(shutil.rmtree, home, ignore_errors=True)
    for part in ("bin", "jars"):
        Path(home, part).symlink_to(installed / part)
    os.environ["SPARK_HOME"] = home
    try:
        yield
    finally:
        del os.environ["SPARK_HOME"]


def write_checkpoints_quickly(spark: SparkSession, checkpoint: str) -> None:
    """On a local disk, where a rename is atomic: by the plain file system. The two logs of an empty batch took 100 ms
    of 150 by Hadoop's FileContext, and take 20 of 60 so.
    """
    if "://" not in checkpoint and not on_databricks():
        spark.conf.set("spark.sql.streaming.checkpointFileManagerClass", _PLAIN_FILES)


_PLAIN_FILES = "org.apache.spark.sql.execution.streaming.checkpointing.FileSystemBasedCheckpointFileManager"


def on_databricks() -> bool:
    return "DATABRICKS_RUNTIME_VERSION" in os.environ


def speaks_connect(spark: SparkSession) -> bool:
    """Whether the session is a client of Spark elsewhere: serverless compute, and shared clusters."""
    return type(spark).__module__.startswith("pyspark.sql.connect")


@contextmanager
def spark_session(name: str, conf: Mapping[str, str] | None = None) -> Iterator[SparkSession]:
    """On Databricks the cluster's session, left running; anywhere else one of our own, ended with the block."""
    if on_databricks():
        session = SparkSession.builder.getOrCreate()
        for key, value in (conf or {}).items():
            session.conf.set(key, value)
        yield session
        return
    session = build_session(name, conf)
    session.sparkContext.setLogLevel("WARN")
    gateway = session.sparkContext._gateway  # noqa: SLF001 - nobody else knows how its process ended
    assert gateway is not None
    jvm: subprocess.Popen[bytes] = gateway.proc
    try:
        yield session
    except Exception as error:
        if _has_ended(jvm, error):
            raise SparkGoneError(
                f"Spark's JVM (process {jvm.pid}) {_how_it_ended(jvm.returncode)}",
                hint="start again: a job goes on from its checkpoint. If memory ran out, raise spark.driver.memory or "
                "lower source.batch_rows_max",
            ) from error
        raise
    finally:
        if jvm.poll() is None:
            session.stop()


_JVM_OUT_OF_MEMORY: Final = 3
"""Exit code of a JVM told to exit when its heap is full."""
_REAPED_WITHIN_S: Final = 2.0


def _has_ended(jvm: "subprocess.Popen[bytes]", error: Exception) -> bool:
    """A broken connection is seen a moment before the end of the process behind it."""
    with suppress(subprocess.TimeoutExpired):
        jvm.wait(_REAPED_WITHIN_S if isinstance(error, Py4JError | OSError) else 0)
    return jvm.returncode is not None


def _how_it_ended(code: int) -> str:
    if code < 0:
        return f"was killed by {signal.Signals(-code).name}"
    return "ran out of memory" if code == _JVM_OUT_OF_MEMORY else f"ended with exit code {code}"

"""The job in a process whose Spark is a client of Spark Connect: `connect_job.py CONFIG RUNS`, once for each run.

Before each run it waits for a line on its input; after it, it says so on its output.
"""

import os
import sys
from pathlib import Path

from pyspark.sql import SparkSession

from config.errors import ConfigurationError
from config.settings import load_settings
from streaming_job import remote
from streaming_job.main import configured_tables
from streaming_job.spark import JARS, speaks_connect


def session() -> SparkSession:
    """A server of our own in this process, and a client of it."""
    builder = SparkSession.builder.remote("local[2]").config(
        "spark.jars", ",".join(map(str, sorted(JARS.glob("*.jar"))))
    )
    for name, value in {
        "spark.sql.extensions": "io.delta.sql.DeltaSparkSessionExtension",
        "spark.sql.catalog.spark_catalog": "org.apache.spark.sql.delta.catalog.DeltaCatalog",
        "spark.sql.session.timeZone": "UTC",
        "spark.ui.enabled": "false",
        "spark.driver.bindAddress": "127.0.0.1",
        "spark.driver.host": "127.0.0.1",
    }.items():
        builder = builder.config(name, value)
    return builder.getOrCreate()


def main() -> None:
    settings = load_settings(Path(sys.argv[1]))
    tables = configured_tables(settings)
    spark = session()
    assert speaks_connect(spark)
    try:
        remote.run(spark, settings, tables, available_now=False)
    except ConfigurationError as error:
        sys.stdout.write(f"{error}\n")
        sys.stdout.flush()
    for line in sys.stdin:
        remote.run(spark, settings, tables, available_now=True)
        sys.stdout.write(f"done {line.strip()}\n")
        sys.stdout.flush()
    spark.stop()


if __name__ == "__main__":
    os.environ["PYSPARK_PYTHON"] = sys.executable
    main()

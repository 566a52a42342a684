"""How a Delta table is opened, created or looked for, by path or by name, with the engine its rules choose."""

from collections.abc import Callable

from delta.tables import DeltaTable as SparkDeltaTable
from deltalake import DeltaTable
from pyspark.sql import SparkSession

from config.settings import Settings
from streaming_job.pipeline.locations import Lake, Location
from streaming_job.pipeline.merge import Engine, LakeTable, TableSpec
from streaming_job.pipeline.merge_rust import RustTable
from streaming_job.pipeline.merge_spark import SparkTable


class Tables:
    """`spark` is asked only where Spark is needed: tables by path with engine `rust` do without."""

    def __init__(self, settings: Settings, spark: Callable[[], SparkSession]) -> None:
        self._settings = settings
        self._spark = spark

    def open(self, engine: Engine, spec: TableSpec) -> LakeTable:
        """The table; made when it is not there yet."""
        if engine == "spark":
            return SparkTable(self._spark(), spec)
        return RustTable(spec, storage_options(self._settings, str(spec.location)))

    def properties(self, place: Location) -> dict[str, str]:
        """Whatever engine writes the table; none where there is no table."""
        if place.name is not None:
            if not self._spark().catalog.tableExists(place.name):
                return {}
            rows = self._spark().sql(f"SHOW TBLPROPERTIES {place.sql}").collect()
            return {row["key"]: row["value"] for row in rows}
        storage = storage_options(self._settings, str(place))
        if not DeltaTable.is_deltatable(str(place), storage):
            return {}
        table = DeltaTable(str(place), storage_options=storage)
        return {name: value or "" for name, value in table.metadata().configuration.items()}

    def drop(self, place: Location) -> None:
        """Of a catalog; harmless where it is gone."""
        self._spark().sql(f"DROP TABLE IF EXISTS {place.sql}")

    def exists(self, engine: Engine, place: Location) -> bool:
        if place.name is not None:
            return self._spark().catalog.tableExists(place.name)
        if engine == "spark":
            return SparkDeltaTable.isDeltaTable(self._spark(), str(place))
        return DeltaTable.is_deltatable(str(place), storage_options(self._settings, str(place)))


def shared_engine(lake: Lake) -> Engine:
    """The tables all share follow the lake: names need Spark, paths do not."""
    return "spark" if lake.has_catalog else "rust"


def log_properties(engine: Engine, settings: Settings) -> dict[str, str]:
    """A commit a second fills the log's folder, and each refresh lists it: what is a day old goes with a checkpoint.

    Spark commits more rarely, and insists on as long a log as deleted files are kept.
    """
    interval = str(settings.upkeep.checkpoint_after_commits)
    days = 1 if engine == "rust" else 7
    return {"delta.logRetentionDuration": f"interval {days} days", "delta.checkpointInterval": interval}


def current_properties(engine: Engine, settings: Settings) -> dict[str, str]:
    """Spark marks replaced rows in place, where it would write their files anew; delta-rs cannot."""
    marks = {"delta.enableDeletionVectors": "true"} if engine == "spark" else {}
    return log_properties(engine, settings) | marks


def storage_options(settings: Settings, address: str) -> dict[str, str]:
    """How delta-rs reaches a bucket; credentials come from the environment, as for boto3."""
    if not address.startswith("s3"):
        return {}
    options = {"AWS_REGION": settings.aws.region}
    if settings.aws.endpoint is not None:
        options |= {"AWS_ENDPOINT_URL": settings.aws.endpoint, "AWS_ALLOW_HTTP": "true"}
    return options

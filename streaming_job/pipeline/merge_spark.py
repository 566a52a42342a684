"""Engine `spark`: Spark's MERGE, for clusters, catalogs and large batches."""

import contextlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, TypeVar

import pyarrow as pa
from delta.exceptions import (
    ConcurrentAppendException,
    ConcurrentDeleteDeleteException,
    ConcurrentDeleteReadException,
    ConcurrentTransactionException,
    ConcurrentWriteException,
    DeltaConcurrentModificationException,
    MetadataChangedException,
    ProtocolChangedException,
)
from delta.tables import DeltaTable
from pyspark.errors import PySparkException
from pyspark.sql import SparkSession
from pyspark.sql import functions as F  # noqa: N812 - as everybody calls it
from pyspark.sql.types import StructType

from streaming_job.errors import CommitConflictError
from streaming_job.pipeline.arrow import Column
from streaming_job.pipeline.locations import Location
from streaming_job.pipeline.merge import (
    TAKEN_OVER,
    Engine,
    Guard,
    Merge,
    Merged,
    TableSpec,
    first_int,
    no_guard,
    refuse_features,
    refuse_foreign,
)

T = TypeVar("T")
_ATTEMPTS: Final = 5
# In Python the first of them is a base of none of the others, whatever its description says.
_CONFLICTS: Final = (
    DeltaConcurrentModificationException,
    ConcurrentAppendException,
    ConcurrentDeleteDeleteException,
    ConcurrentDeleteReadException,
    ConcurrentTransactionException,
    ConcurrentWriteException,
    MetadataChangedException,
    ProtocolChangedException,
)


class SparkTable:
    engine: Engine = "spark"

    def __init__(self, spark: SparkSession, spec: TableSpec) -> None:
        self._spark = spark
        self._location = spec.location
        # Our sources are local relations, the same each time they are read: copying them first only costs.
        _prefer(spark, "spark.databricks.delta.merge.materializeSource", "none")
        _create(spark, spec)
        detail = self._detail()
        refuse_features("spark", spec.location, detail["tableFeatures"] or (), detail["properties"])
        refuse_foreign(spec, self.columns(), detail["partitionColumns"])

    @property
    def location(self) -> Location:
        return self._location

    def refresh(self) -> None:
        """Spark looks at the log for each query anew."""

    def columns(self) -> StructType:
        return self._spark.table(self._location.sql).schema

    def properties(self) -> dict[str, str]:
        rows = self._spark.sql(f"SHOW TBLPROPERTIES {self._location.sql}").collect()
        return {row["key"]: row["value"] for row in rows}

    def set_properties(self, properties: Mapping[str, str], guard: Guard = no_guard) -> None:
        listed = ", ".join(f"{_quote(name)} = {_quote(value)}" for name, value in properties.items())
        self._alter(f"SET TBLPROPERTIES ({listed})", guard)

    def add_columns(self, columns: StructType, guard: Guard = no_guard) -> None:
        self._alter(f"ADD COLUMNS ({_declared(columns)})", guard)

    def merge(self, source: pa.Table, merge: Merge, guard: Guard = no_guard) -> Merged:
        frame = self._spark.createDataFrame(source).alias("s")

        def attempt() -> Merged:
            builder = self._delta().alias("t").merge(frame, merge.on)
            for update in merge.updates:
                builder = builder.whenMatchedUpdate(update.when, _assign(update.columns))
            metrics = builder.whenNotMatchedInsert(values=_assign(merge.insert)).execute().first()
            counts = metrics.asDict() if metrics is not None else {}
            return Merged(first_int(counts, "num_inserted_rows"), first_int(counts, "num_updated_rows"))

        return self._commit(attempt, guard)

    def lacks(self, keys: Column) -> Column | None:  # noqa: ARG002 - Spark is not asked: it would be a job of its own
        return None

    def delete(self, where: str, guard: Guard = no_guard) -> int:
        def attempt() -> int:
            result = self._spark.sql(f"DELETE FROM {self._location.sql} WHERE {where}").first()  # noqa: S608 - our own condition
            return max(0, first_int(result.asDict() if result is not None else {}, "num_affected_rows"))

        return self._commit(attempt, guard)

    def become(self, other: Location, number: int, guard: Guard = no_guard) -> None:
        taken = {"overwriteSchema": "true", "txnAppId": TAKEN_OVER, "txnVersion": str(number)}

        def attempt() -> None:
            write = self._spark.table(other.sql).write.format("delta").mode("overwrite").options(**taken)
            if self._location.path is not None:
                write.save(self._location.path)
            else:
                write.saveAsTable(self._location.sql)

        self._commit(attempt, guard)

    def newest(self, keys: Sequence[str], where: str = "true") -> dict[str, str]:
        wanted = self._spark.createDataFrame(pa.table({"_key": pa.array(keys, pa.string())}))
        rows = (
            self._spark.table(self._location.sql)
            .where(where)
            .join(F.broadcast(wanted), "_key", "left_semi")
            .groupBy("_key")
            .agg(F.max("_seq").alias("newest"))
            .collect()
        )
        return {row["_key"]: row["newest"] for row in rows}

    def read(self, columns: Sequence[str], where: str | None = None) -> pa.Table:
        frame = self._spark.table(self._location.sql)
        return (frame.where(where) if where else frame).select(*columns).toArrow()

    def count(self, where: str) -> int:
        return self._spark.table(self._location.sql).where(where).count()

    def small_files(self, target_bytes: int) -> int:
        """By the mean of all files: which ones are small only a scan would tell."""
        detail = self._detail()
        files, size = int(detail["numFiles"]), int(detail["sizeInBytes"])
        return files if files > 1 and size // files < target_bytes // 2 else 0

    def compact(self, *, target_bytes: int, guard: Guard = no_guard) -> int:
        _prefer(self._spark, "spark.databricks.delta.optimize.maxFileSize", str(target_bytes))

        def attempt() -> int:
            metrics = self._spark.sql(f"OPTIMIZE {self._location.sql}").first()
            return int(metrics["metrics"]["numFilesRemoved"]) if metrics is not None else 0

        return self._commit(attempt, guard)

    def unreferenced_files(self, retention_h: int) -> int:
        """Spark names a thousand at most."""
        return self._spark.sql(f"VACUUM {self._location.sql} RETAIN {retention_h} HOURS DRY RUN").count()

    def vacuum(self, retention_h: int) -> int:
        self._spark.sql(f"VACUUM {self._location.sql} RETAIN {retention_h} HOURS").collect()
        return 0

    def _delta(self) -> DeltaTable:
        if self._location.path is not None:
            return DeltaTable.forPath(self._spark, self._location.path)
        return DeltaTable.forName(self._spark, self._location.sql)

    def _detail(self) -> dict[str, Any]:
        return self._delta().detail().collect()[0].asDict()

    def _alter(self, change: str, guard: Guard) -> None:
        def attempt() -> None:
            self._spark.sql(f"ALTER TABLE {self._location.sql} {change}")

        self._commit(attempt, guard)

    def _commit(self, attempt: Callable[[], T], guard: Guard) -> T:
        for _ in range(_ATTEMPTS):
            guard()
            try:
                return attempt()
            except _CONFLICTS as error:
                conflict = error
        guard()
        raise CommitConflictError(
            f"{self._location}: {_ATTEMPTS} commits in a row conflicted with another writer's: {conflict}",
            hint="find what else writes to the table (DESCRIBE HISTORY says who) and stop it",
        ) from conflict


def _prefer(spark: SparkSession, name: str, value: str) -> None:
    """A setting that only makes things faster. Serverless compute lets nobody set it."""
    with contextlib.suppress(PySparkException):
        spark.conf.set(name, value)


def _create(spark: SparkSession, spec: TableSpec) -> None:
    partition = f" PARTITIONED BY ({', '.join(spec.partition_by)})" if spec.partition_by else ""
    listed = ", ".join(f"{_quote(name)} = {_quote(value)}" for name, value in spec.properties.items())
    properties = f" TBLPROPERTIES ({listed})" if listed else ""
    spark.sql(
        f"CREATE TABLE IF NOT EXISTS {spec.location.sql} ({_declared(spec.columns)}) USING delta{partition}{properties}"
    )


def _declared(columns: StructType) -> str:
    """As DDL, comments included: flattening remembers in them where a column's values come from."""
    listed = []
    for field in columns.fields:
        comment = field.metadata.get("comment")
        listed.append(
            f"`{field.name}` {field.dataType.simpleString()}" + (f" COMMENT {_quote(comment)}" if comment else "")
        )
    return ", ".join(listed)


def _assign(columns: Sequence[str]) -> dict[str, str | Any]:
    return {f"`{name}`": f"s.`{name}`" for name in columns}


def _quote(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"

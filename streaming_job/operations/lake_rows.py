"""`current` of one table as the operations read it, by Spark: deletion vectors, catalogs and all."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa
from pyspark.errors import AnalysisException
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F  # noqa: N812 - as everybody calls it

from config.errors import LakestreamError
from streaming_job.operations.verify import LakeRow
from streaming_job.pipeline.arrow import pc, table
from streaming_job.pipeline.locations import TableLocations
from streaming_job.pipeline.row_digest import row_digests


class NoTableError(LakestreamError):
    """The lake has no such table yet."""


def _judged(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Of each live row its key and digest, whether its columns still give the digest they were written with, and
    whether it is kept though its item was deleted.
    """
    for batch in batches:
        rows = pa.Table.from_batches([batch])
        intact = pc.coalesce(pc.equal(row_digests(rows), rows["_row_digest"]), False)
        kept = pc.equal(rows["_op"], "REMOVE")
        judged = table({"key": rows["_key"], "digest": rows["_digest"], "intact": intact, "kept": kept})
        yield from judged.to_batches()


class SparkLakeRows:
    def __init__(self, spark: SparkSession, locations: TableLocations) -> None:
        self._spark = spark
        self._locations = locations

    def write_all(self, folder: Path) -> None:
        self._live().write.parquet(str(folder))

    def of(self, keys: Sequence[str]) -> dict[str, LakeRow]:
        wanted = self._spark.createDataFrame([(key,) for key in keys], "key string")
        found = self._live().join(F.broadcast(wanted), "key", "left_semi").collect()
        return {row.key: LakeRow(row.digest, row.intact, row.kept) for row in found}

    def sequences(self, keys: Sequence[str]) -> dict[str, str]:
        """`_seq` of these keys' rows, tombstones included."""
        wanted = self._spark.createDataFrame([(key,) for key in keys], "_key string")
        rows = self._read(self._locations.current.sql).select("_key", "_seq")
        return {row["_key"]: row["_seq"] for row in rows.join(F.broadcast(wanted), "_key", "left_semi").collect()}

    def newest_created_ms(self) -> int:
        # Of `current`, tombstones too: `history` is committed a moment before. When an item was scanned is no change.
        changes = self._read(self._locations.current.sql).where("_op <> 'SNAPSHOT'")
        newest = changes.agg(F.max("_created_ms")).first()
        return int(newest[0]) if newest is not None and newest[0] is not None else 0

    def _live(self) -> DataFrame:
        rows = self._read(self._locations.current.sql).where("NOT _deleted")
        return rows.mapInArrow(_judged, "key string, digest string, intact boolean, kept boolean")

    def _read(self, table: str) -> DataFrame:
        """As committed now: a table by path is looked up anew each time."""
        try:
            return self._spark.sql(f"SELECT * FROM {table}")  # noqa: S608 - a location of the configuration
        except AnalysisException as error:
            raise NoTableError(
                f"there is no table {table.replace('`', '')}", hint="run the job first; it makes the tables"
            ) from error

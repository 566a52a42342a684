"""`current` of one table as the operations read it: by delta-rs where engine `rust` writes it, by Spark elsewhere."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

import pyarrow as pa
import pyarrow.parquet
from deltalake import DeltaTable, QueryBuilder
from pyspark.errors import AnalysisException
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F  # noqa: N812 - as everybody calls it
from pyspark.sql.pandas.types import from_arrow_schema

from config.errors import LakestreamError
from config.settings import Settings
from config.tables import TableConfig
from streaming_job.operations.verify import LakeRow, LakeRows
from streaming_job.pipeline import rust_sql
from streaming_job.pipeline.arrow import pc, plain, table
from streaming_job.pipeline.locations import TableLocations
from streaming_job.pipeline.opening import storage_options
from streaming_job.pipeline.row_digest import row_digests

_FIELDS: Final[list[tuple[str, pa.DataType]]] = [
    ("key", pa.string()),
    ("digest", pa.string()),
    ("intact", pa.bool_()),
    ("kept", pa.bool_()),
]
_JUDGED: Final = pa.schema(_FIELDS)
_KEYS_AT_ONCE: Final = 1_000
_ROWS_AT_ONCE: Final = 10_000
_AHEAD_MS_MAX: Final = 60_000
"""What clocks may differ by. A change that was taken in longer than this before it was made has its time of a writer
whose clock is ahead, as `pull` reads it, and says nothing of what came before it.
"""


class NoTableError(LakestreamError):
    """The lake has no such table yet."""


def lake_rows(
    settings: Settings, config: TableConfig, places: TableLocations, spark: Callable[[], SparkSession]
) -> LakeRows:
    """`spark` is asked only where Spark is needed."""
    path = places.current.path
    if path is not None and config.lake.engine == "rust":
        return DeltaLakeRows(path, storage_options(settings, path))
    return SparkLakeRows(spark(), places)


def _judged(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Of each live row its key and digest, whether its columns still give the digest they were written with, and
    whether it is kept though its item was deleted.
    """
    for batch in batches:
        rows = pa.Table.from_batches([batch])
        intact = pc.coalesce(pc.equal(row_digests(rows), rows["_row_digest"]), False)
        kept = pc.equal(rows["_op"], "REMOVE")
        judged = table({"key": rows["_key"], "digest": rows["_digest"], "intact": intact, "kept": kept}, _JUDGED)
        yield from judged.to_batches()


def _by_key(found: Iterable[tuple[str, LakeRow]]) -> dict[str, LakeRow]:
    """A key that is met again is not intact, whatever its rows hold."""
    rows: dict[str, LakeRow] = {}
    for key, row in found:
        held = rows.get(key)
        rows[key] = row if held is None else row._replace(intact=False, rows=held.rows + 1)
    return rows


class DeltaLakeRows:
    """By path: a session of Spark takes longer to start than most tables take to be read."""

    def __init__(self, path: str, storage: Mapping[str, str]) -> None:
        self._path = path
        self._storage = dict(storage)

    def write_all(self, folder: Path) -> None:
        folder.mkdir()
        with pyarrow.parquet.ParquetWriter(folder / "rows.parquet", _JUDGED) as file:
            for batch in _judged(self._select("*", "NOT _deleted")):
                file.write_batch(batch)

    def of(self, keys: Sequence[str]) -> dict[str, LakeRow]:
        found = (row for batch in _judged(self._of_keys("*", keys, " AND NOT _deleted")) for row in batch.to_pylist())
        return _by_key((row["key"], LakeRow(row["digest"], row["intact"], row["kept"])) for row in found)

    def sequences(self, keys: Sequence[str]) -> dict[str, str]:
        found = (row for batch in self._of_keys("_key, _seq", keys) for row in batch.to_pylist())
        return {row["_key"]: row["_seq"] for row in found}

    def newest_created_ms(self) -> int:
        # See SparkLakeRows.
        taken_in_ms = "CAST(_ingest_ts AS BIGINT) / 1000"
        found = self._select(
            "max(_created_ms) AS newest", f"_op <> 'SNAPSHOT' AND _created_ms <= {taken_in_ms} + {_AHEAD_MS_MAX}"
        )
        return max((int(row["newest"] or 0) for batch in found for row in batch.to_pylist()), default=0)

    def _of_keys(self, columns: str, keys: Sequence[str], further: str = "") -> Iterator[pa.RecordBatch]:
        for start in range(0, len(keys), _KEYS_AT_ONCE):
            some = keys[start : start + _KEYS_AT_ONCE]
            yield from self._select(columns, f"_key IN ({rust_sql.texts(some)}){further}")

    def _select(self, columns: str, where: str) -> Iterator[pa.RecordBatch]:
        """As committed now."""
        if not DeltaTable.is_deltatable(self._path, self._storage):
            raise _no_table(self._path)
        query = QueryBuilder().register("t", DeltaTable(self._path, storage_options=self._storage))
        for batch in query.execute(f"SELECT {columns} FROM t WHERE {where}"):  # noqa: S608 - ours, keys quoted
            yield from plain(pa.Table.from_batches([pa.record_batch(batch)])).to_batches(_ROWS_AT_ONCE)


class SparkLakeRows:
    """Deletion vectors, catalogs and all."""

    def __init__(self, spark: SparkSession, locations: TableLocations) -> None:
        self._spark = spark
        self._locations = locations

    def write_all(self, folder: Path) -> None:
        self._live().write.parquet(str(folder))

    def of(self, keys: Sequence[str]) -> dict[str, LakeRow]:
        wanted = self._spark.createDataFrame([(key,) for key in keys], "key string")
        found = self._live().join(F.broadcast(wanted), "key", "left_semi").collect()
        return _by_key((row.key, LakeRow(row.digest, row.intact, row.kept)) for row in found)

    def sequences(self, keys: Sequence[str]) -> dict[str, str]:
        """`_seq` of these keys' rows, tombstones included."""
        wanted = self._spark.createDataFrame([(key,) for key in keys], "_key string")
        rows = self._read(self._locations.current.sql).select("_key", "_seq")
        return {row["_key"]: row["_seq"] for row in rows.join(F.broadcast(wanted), "_key", "left_semi").collect()}

    def newest_created_ms(self) -> int:
        # Of `current`, tombstones too: `history` is committed a moment before. When an item was scanned is no change.
        of_changes = f"_op <> 'SNAPSHOT' AND _created_ms <= unix_millis(_ingest_ts) + {_AHEAD_MS_MAX}"
        changes = self._read(self._locations.current.sql).where(of_changes)
        newest = changes.agg(F.max("_created_ms")).first()
        return int(newest[0]) if newest is not None and newest[0] is not None else 0

    def _live(self) -> DataFrame:
        rows = self._read(self._locations.current.sql).where("NOT _deleted")
        return rows.mapInArrow(_judged, from_arrow_schema(_JUDGED))

    def _read(self, table: str) -> DataFrame:
        """As committed now: a table by path is looked up anew each time."""
        try:
            return self._spark.sql(f"SELECT * FROM {table}")  # noqa: S608 - a location of the configuration
        except AnalysisException as error:
            raise _no_table(table.replace("`", "")) from error


def _no_table(place: str) -> NoTableError:
    return NoTableError(f"there is no table {place}", hint="run the job first; it makes the tables")

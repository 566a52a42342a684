"""What `history` of one table can be asked without reading it whole, by path without Spark."""

from collections.abc import Callable, Sequence
from contextlib import ExitStack

import pyarrow as pa
from deltalake import DeltaTable, QueryBuilder
from pyspark.sql import functions as F  # noqa: N812 - as everybody calls it

from config.settings import Settings
from config.tables import TableConfig
from streaming_job.pipeline import rust_sql
from streaming_job.pipeline.batch import now_ms
from streaming_job.pipeline.locations import Lake
from streaming_job.pipeline.opening import storage_options
from streaming_job.pipeline.order import Placing
from streaming_job.spark import spark_session

Exists = Callable[[str], bool]
"""Whether a row fulfils this condition, asked of the table as it is committed now."""


class HistoryPast:
    def __init__(self, exists: Exists, counts_as: Callable[[str], str] = str) -> None:
        """`counts_as`: under which generation a stream's changes stand, where the rules state another than its own."""
        self._exists = exists
        self._counts_as = counts_as

    def has_change(self, generation: str, *, until_ms: int | None = None) -> bool:
        generation = self._counts_as(generation)
        created = f" AND _created_ms <= {until_ms}" if until_ms is not None else ""
        # `.` follows `-`, which ends the generation in `_seq`.
        return self._exists(f"_op <> 'SNAPSHOT' AND _seq > '{generation}-' AND _seq < '{generation}.'{created}")

    def has_newer_than(self, generation: str) -> bool:
        return self._exists(f"_op <> 'SNAPSHOT' AND _seq > '{self._counts_as(generation)}.'")


def past_of(settings: Settings, table: TableConfig, cleanup: ExitStack) -> HistoryPast:
    location = Lake(settings.lake).of(table).history
    path, placing = location.path, Placing(table.lake)

    def counts_as(generation: str) -> str:
        return placing.of(generation, now_ms())

    if path is not None:
        storage = storage_options(settings, path)
        return HistoryPast(lambda condition: _exists_by_path(path, storage, condition), counts_as)
    spark = cleanup.enter_context(spark_session("lakestream", settings.spark))

    def exists(condition: str) -> bool:
        return spark.catalog.tableExists(location.sql) and not spark.table(location.sql).where(condition).isEmpty()

    return HistoryPast(exists, counts_as)


def _exists_by_path(path: str, storage: dict[str, str], condition: str) -> bool:
    if not DeltaTable.is_deltatable(path, storage):
        return False
    history = QueryBuilder().register("history", DeltaTable(path, storage_options=storage))
    found = history.execute(f"SELECT 1 AS one FROM history WHERE {condition} LIMIT 1")  # noqa: S608 - ours
    return pa.table(found.read_all()).num_rows > 0


def versions_of(settings: Settings, table: TableConfig, keys: Sequence[str], cleanup: ExitStack) -> dict[str, str]:
    """The version each of these keys has in `current`; absent ones are absent."""
    location = Lake(settings.lake).of(table).current
    if location.path is not None:
        storage = storage_options(settings, location.path)
        if not DeltaTable.is_deltatable(location.path, storage):
            return {}
        current = QueryBuilder().register("current", DeltaTable(location.path, storage_options=storage))
        wanted = rust_sql.texts(keys)
        found = current.execute(f"SELECT _key, _seq FROM current WHERE _key IN ({wanted})")  # noqa: S608 - quoted
        return {row["_key"]: row["_seq"] for row in pa.table(found.read_all()).to_pylist()}
    spark = cleanup.enter_context(spark_session("lakestream", settings.spark))
    rows = spark.table(location.sql).where(F.col("_key").isin(list(keys))).select("_key", "_seq").collect()
    return {row["_key"]: row["_seq"] for row in rows}

"""The Delta table `latency`: one row for each hop, table and minute of each flush, appended, merged when read."""

import threading
import time
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, Final, Protocol

import pyarrow as pa
from deltalake import DeltaTable, QueryBuilder, write_deltalake
from deltalake.exceptions import TableNotFoundError
from pyspark.errors import AnalysisException
from pyspark.sql import SparkSession

from streaming_job.latency.book import LatencyBook, MinuteOfHop
from streaming_job.latency.hops import HOPS
from streaming_job.latency.sketches import Bin, HopSketch

FLUSH_EVERY_S: Final = 10.0
KNOWN_BATCHES_WITHIN_S: Final = 3_600
"""A batch that comes again does so right after a restart; what was flushed longer ago need not be remembered."""

_RESOLUTION_MS: Final = {hop.name: hop.resolution_ms for hop in HOPS}

_FIELDS: Final["list[pa.Field[Any]]"] = [
    pa.field("minute", pa.timestamp("us", tz="UTC"), nullable=False),
    pa.field("table", pa.string(), nullable=False),
    pa.field("hop", pa.string(), nullable=False),
    pa.field("resolution_ms", pa.int32(), nullable=False),
    pa.field("count", pa.int64(), nullable=False),
    pa.field("negative", pa.int64(), nullable=False),
    pa.field("sum_ms", pa.float64(), nullable=False),
    pa.field("min_ms", pa.float64(), nullable=False),
    pa.field("max_ms", pa.float64(), nullable=False),
    pa.field("p50_ms", pa.float64(), nullable=False),
    pa.field("p95_ms", pa.float64(), nullable=False),
    pa.field("p99_ms", pa.float64(), nullable=False),
    pa.field("bins", pa.list_(pa.struct([("value_ms", pa.float64()), ("count", pa.int64())]))),
    pa.field("batches", pa.list_(pa.string())),
    pa.field("written_at", pa.timestamp("us", tz="UTC"), nullable=False),
]
SCHEMA: Final = pa.schema(_FIELDS)


class LatencyTable(Protocol):
    """Where flushes go, and where the names of batches already flushed are read from."""

    def append(self, rows: pa.Table) -> None: ...
    def batches_since(self, moment: datetime) -> list[str]: ...


class RustLatencyTable:
    """The table by path, written by delta-rs."""

    def __init__(self, path: str, storage: Mapping[str, str] | None = None) -> None:
        self._path = path
        self._storage = dict(storage or {})

    def append(self, rows: pa.Table) -> None:
        write_deltalake(self._path, rows, mode="append", storage_options=self._storage)

    def batches_since(self, moment: datetime) -> list[str]:
        try:
            table = DeltaTable(self._path, storage_options=self._storage)
        except TableNotFoundError:
            return []
        sql = f"SELECT batches FROM latency WHERE written_at >= TIMESTAMP '{moment:%Y-%m-%d %H:%M:%S}'"  # noqa: S608 - a time of ours
        found = pa.table(QueryBuilder().register("latency", table).execute(sql).read_all())
        return [name for names in found.column("batches").to_pylist() for name in names or ()]


class SparkLatencyTable:
    """The table by its Unity Catalog name, written by Spark."""

    def __init__(self, spark: SparkSession, name: str) -> None:
        self._spark = spark
        self._name = name

    def append(self, rows: pa.Table) -> None:
        self._spark.createDataFrame(rows).write.format("delta").mode("append").saveAsTable(self._name)

    def batches_since(self, moment: datetime) -> list[str]:
        try:
            rows = self._spark.table(self._name).where(f"written_at >= '{moment.isoformat()}'").select("batches")
        except AnalysisException:
            return []
        return [name for row in rows.collect() for name in row.batches or ()]


def latency_table(
    spark: SparkSession, *, path: str | None, name: str | None, storage: Mapping[str, str]
) -> LatencyTable:
    """By path, which `storage` says how to reach, or by its name in a catalog."""
    return RustLatencyTable(path, storage) if path is not None else SparkLatencyTable(spark, name or "latency")


class LatencyFlusher:
    """Writes the book to the table every few seconds, in a thread of its own so that no batch waits for it."""

    def __init__(self, book: LatencyBook, table: LatencyTable, on_failure: Callable[[Exception], None]) -> None:
        self._book = book
        self._table = table
        self._on_failure = on_failure
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="latency-flusher", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """End the thread and write what is left."""
        self._stopping.set()
        self._thread.join()
        self.flush()

    def flush(self) -> None:
        """Rows that could not be written are kept for the next flush: figures are late, not lost."""
        rows = self._book.take()
        if not rows:
            return
        try:
            self._table.append(to_arrow(rows, datetime.now(UTC)))
        except Exception as error:  # noqa: BLE001 - whatever a table can fail with, the job's work goes on
            self._book.give_back(rows)
            self._on_failure(error)

    def _run(self) -> None:
        while not self._stopping.wait(FLUSH_EVERY_S):
            self.flush()


def known_batches(table: LatencyTable) -> list[str]:
    return table.batches_since(datetime.fromtimestamp(time.time() - KNOWN_BATCHES_WITHIN_S, UTC))


def to_arrow(rows: Iterable[MinuteOfHop], written_at: datetime) -> pa.Table:
    return pa.Table.from_pylist([_row(row, written_at) for row in rows], schema=SCHEMA)


def _row(row: MinuteOfHop, written_at: datetime) -> dict[str, object]:
    sketch = row.sketch
    return {
        "minute": datetime.fromtimestamp(row.minute_ms / 1000, UTC),
        "table": row.table,
        "hop": row.hop,
        "resolution_ms": _RESOLUTION_MS[row.hop],
        "count": sketch.count,
        "negative": sketch.negative,
        "sum_ms": sketch.sum_ms,
        "min_ms": sketch.min_ms,
        "max_ms": sketch.max_ms,
        "p50_ms": sketch.quantile_ms(0.50),
        "p95_ms": sketch.quantile_ms(0.95),
        "p99_ms": sketch.quantile_ms(0.99),
        "bins": [{"value_ms": a_bin.value_ms, "count": a_bin.count} for a_bin in sketch.bins()],
        "batches": row.batches,
        "written_at": written_at,
    }


def of_arrow(rows: pa.Table) -> dict[tuple[str, str], HopSketch]:
    """All minutes of the rows merged, by table and hop."""
    merged: dict[tuple[str, str], HopSketch] = {}
    for row in rows.to_pylist():
        sketch = HopSketch.of_bins(
            (Bin(a_bin["value_ms"], a_bin["count"]) for a_bin in row["bins"]),
            negative=row["negative"],
            sum_ms=row["sum_ms"],
            min_ms=row["min_ms"],
            max_ms=row["max_ms"],
        )
        merged.setdefault((row["table"], row["hop"]), HopSketch()).merge(sketch)
    return merged


def merged_hops(path: str) -> dict[tuple[str, str], HopSketch]:
    """Everything the table at `path` holds, merged by table and hop; empty when nothing was written yet."""
    try:
        return of_arrow(DeltaTable(path).to_pyarrow_table())
    except TableNotFoundError:
        return {}

"""Batches of made-up changes through a scratch copy of the pipeline, so that the first real one meets warm code.

What a batch needs starts with the first one: threads, engines, plans, and workers where Spark reads it. Those are
seconds that nobody should find in the freshness of a real change. The changes are made of the table's sample items; the
scratch tables go with their folder.
"""

import json
from base64 import b64decode, b64encode
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import orjson
import pyarrow as pa
from boto3.dynamodb.types import Binary, TypeDeserializer
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql.pandas.types import from_arrow_schema

from config.limits import GENERATION_DIGITS, SEQUENCE_DIGITS
from config.settings import LakeSettings, Settings
from config.tables import TableConfig
from streaming_job.pipeline.batch import Pipeline, is_bounded
from streaming_job.pipeline.naming import pointer

_BATCHES: Final = 4
_CHANGES: Final = 50
_KEY_OF: Final[Mapping[str, Any]] = {"S": "warm-up", "N": 1, "B": "d2FybS11cA=="}


class _Nowhere:
    """Latency of made-up changes is nobody's."""

    def record(self, clocks: pa.Table, *, table: str, batch: str, batch_start_ms: int, commit_ms: int) -> None:
        pass


def warm_up(spark: SparkSession, settings: Settings, tables: Mapping[str, TableConfig]) -> None:
    """Only where tables lie by path: in a catalog there is no place that is surely ours."""
    if settings.lake.root is None:
        return
    with TemporaryDirectory(prefix="lakestream-warm-up-") as folder:
        lake = LakeSettings(root=str(Path(folder) / "lake"), checkpoint=str(Path(folder) / "checkpoint"))
        scratch = settings.model_copy(update={"lake": lake})
        with Pipeline(spark, scratch, tables, _Nowhere()) as pipeline:
            for batch in range(_BATCHES):
                numbers = range(batch * _CHANGES, (batch + 1) * _CHANGES)
                rows = pa.Table.from_pylist(made_up(tables, settings.tables_dir, numbers))
                pipeline.process_batch(rows if is_bounded(settings) else _as_read(spark, rows), batch)


def made_up(tables: Mapping[str, TableConfig], tables_dir: Path, numbers: range) -> list[dict[str, Any]]:
    """So many changes of each table, as rows of the source."""
    items = {name: sample_items(tables_dir, table) for name, table in tables.items()}
    return [_row(tables[name], items[name], number) for name in tables for number in numbers]


def _as_read(spark: SparkSession, rows: pa.Table) -> DataFrame:
    """By Python workers, as a batch of such a source is: they are there for the first real one."""

    def read(parts: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for part in parts:
            if part.num_rows and part.column(0)[0].as_py() == 0:
                yield from rows.to_batches()

    parts = spark.sparkContext.defaultParallelism
    return spark.range(0, parts, 1, parts).mapInArrow(read, from_arrow_schema(rows.schema))


def sample_items(tables_dir: Path, table: TableConfig) -> list[dict[str, Any]]:
    """The table's sample items as plain JSON values, near enough; of a table without a sample, its key alone."""
    sample = tables_dir / f"{table.table}.sample.json"
    if not sample.exists():
        return [{attribute.name: _KEY_OF[attribute.type] for attribute in table.key}]
    restore = TypeDeserializer().deserialize
    items = json.loads(sample.read_text(encoding="utf-8"), object_hook=_with_bytes)["Items"]
    return [restore({"M": item}) for item in items]


def _with_bytes(value: dict[str, Any]) -> dict[str, Any]:
    """DynamoDB's JSON holds binary as text."""
    if isinstance(text := value.get("B"), str):
        return {"B": b64decode(text)}
    if isinstance(texts := value.get("BS"), list):
        return {"BS": [b64decode(text) for text in texts]}
    return value


def _row(table: TableConfig, items: list[dict[str, Any]], number: int) -> dict[str, Any]:
    """One change in the shape of the source's rows; every item comes as insert, change and removal by turns."""
    item = items[number % len(items)]
    key = {attribute.name: item[attribute.name] for attribute in table.key}
    removed = number % 10 == 9
    now = datetime.now(UTC)
    now_ms = int(now.timestamp() * 1000)
    envelope = {
        "v": 1,
        "rules": str(table.version),
        "table": table.table,
        "op": "REMOVE" if removed else "MODIFY",
        "id": "",
        "gen": "0" * GENERATION_DIGITS,
        "seq": str(number).zfill(SEQUENCE_DIGITS),
        "key": key,
        "new": None if removed else item,
        "old": None,
        "types": {"/key" + pointer([each.name]): "B" for each in table.key if each.type == "B"},
        "digest": None if removed else "0" * 64,
        "ttl": False,
        "filtered": False,
        "created_ms": now_ms,
        "origin_ms": now_ms,
        "bridge_in_ms": now_ms,
        "ref": None,
        "bridge_out_ms": now_ms,
    }
    return {
        "partitionKey": "warm-up",
        "data": orjson.dumps(envelope, default=_plain, option=orjson.OPT_SORT_KEYS) + b"\n",
        "stream": "warm-up",
        "shardId": "warm-up",
        "sequenceNumber": str(number + 1),
        "approximateArrivalTimestamp": now,
    }


def _plain(value: object) -> Any:
    if isinstance(value, Binary):
        return b64encode(bytes(value)).decode("ascii")  # type: ignore[call-overload]  # its stub lacks __bytes__
    if isinstance(value, set | frozenset):
        return sorted(value, key=str)
    return orjson.Fragment(str(value))

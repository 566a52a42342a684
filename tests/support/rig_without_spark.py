"""The pipeline over a temporary lake without Spark: engine `rust` on tables by path needs none."""

from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import pyarrow as pa
from envelopes import DAY_MS, Change
from lake_rig import SOURCE, LakeRig
from pyspark.sql import SparkSession

from config.tables import TableConfig


class RigWithoutSpark(LakeRig):
    def __init__(self, root: Path, *tables: TableConfig, **more: Any) -> None:
        super().__init__(cast("SparkSession", None), root, *tables, **more)
        self._at = 0

    def frame(self, batch: Iterable[Change | bytes]) -> pa.Table:
        rows = [
            {
                "partitionKey": "p",
                "data": data,
                "stream": "lakestream",
                "shardId": "shardId-000000000000",
                "sequenceNumber": f"{self._at + offset:056d}",
                "approximateArrivalTimestamp": datetime.fromtimestamp(DAY_MS / 1000, UTC),
            }
            for offset, data in enumerate(map(bytes_of, batch), start=1)
        ]
        self._at += len(rows)
        return pa.Table.from_pylist(rows, schema=SOURCE)


def bytes_of(change: Change | bytes) -> bytes:
    return change if isinstance(change, bytes) else change.line()

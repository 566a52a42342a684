"""The Spark data source for an archive: what Spark calls, and where it runs.

`FilesStreamReader` lives in one Python process of the driver as long as the query does; its `read` runs on the
executors. A batch is the objects between two offsets, each read whole.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any, Final

import pyarrow as pa
from pyspark.sql.datasource import DataSource, DataSourceStreamReader, InputPartition
from pyspark.sql.streaming.datasource import ReadAllAvailable, ReadLimit, SupportsTriggerAvailableNow
from pyspark.sql.types import StructType

from config.settings import AwsSettings
from streaming_job.aws import client
from streaming_job.files.errors import ObjectLostError
from streaming_job.files.offsets import Offset
from streaming_job.files.options import FilesOptions
from streaming_job.files.unpack import rows_of
from streaming_job.files.watch import Watch
from streaming_job.kinesis.clock import SystemClock
from streaming_job.kinesis.rows import SCHEMA, Rows
from streaming_job.objects import Bucket, ObjectGoneError

_TASKS_MAX: Final = 8
_ATTEMPTS: Final = 8
_SECOND_MS: Final = 1_000


@dataclass(repr=True)
class ObjectsPartition(InputPartition):
    names: Sequence[str]
    planned_ms: int


class FilesStreamReader(DataSourceStreamReader, SupportsTriggerAvailableNow):
    def __init__(self, options: FilesOptions) -> None:
        self._options = options

    # On the driver.

    def initialOffset(self) -> dict[str, Any]:  # noqa: N802 - Spark's name
        return self._initial.to_json()

    def getDefaultReadLimit(self) -> ReadLimit:  # noqa: N802 - Spark's name
        """A batch's bounds are ours: objects, and their bytes."""
        return ReadAllAvailable()

    def prepareForTriggerAvailableNow(self) -> None:  # noqa: N802 - Spark's name
        self._watch.read_until_now()

    def latestOffset(self, start: dict[str, Any], limit: ReadLimit) -> dict[str, Any]:  # noqa: ARG002, N802 - Spark's
        begin = Offset.from_json(start)
        planned = self._watch.plan(begin)
        return start if planned is begin else planned.to_json()

    def reportLatestOffset(self) -> dict[str, Any]:  # noqa: N802 - Spark's name
        """Not an offset: the one thing of a Python source that Spark shows in a query's progress."""
        return self._watch.progress()

    def partitions(self, start: dict[str, Any], end: dict[str, Any]) -> Sequence[InputPartition]:
        names = list(Offset.from_json(end).taken_since(Offset.from_json(start)))
        planned_ms = SystemClock().now_ms()
        share = -(-len(names) // _TASKS_MAX)
        return [ObjectsPartition(names[at : at + share], planned_ms) for at in range(0, len(names), share or 1)]

    @cached_property
    def _initial(self) -> Offset:
        """Spark asks more than once, and `latest` must stay the same."""
        return self._watch.initial()

    @cached_property
    def _watch(self) -> Watch:
        return Watch(_bucket(self._options.aws, self._options.bucket), self._options, SystemClock())

    def __getstate__(self) -> dict[str, Any]:
        """To the executors goes only what `read` needs."""
        return {"_options": self._options}

    # On the executors.

    def read(self, partition: InputPartition) -> Iterator[pa.RecordBatch]:
        if not isinstance(partition, ObjectsPartition):
            raise TypeError(f"not a partition of ours: {partition!r}")
        for name in partition.names:
            for rows in self._rows(name, partition.planned_ms):
                yield rows.to_arrow(self._options.stream, name)

    def _rows(self, name: str, planned_ms: int) -> Iterator[Rows]:
        try:
            body = _bucket(self._options.aws, self._options.bucket).body(name)
        except ObjectGoneError as error:
            if self._options.fail_on_data_loss:
                raise ObjectLostError.of(f"s3://{self._options.bucket}/{name}") from error
            yield Rows.of(["0"], [planned_ms], [""], [b""])
            return
        yield from rows_of(body.content, arrival_ms(body.modified_ms, planned_ms))


def arrival_ms(modified_ms: int, planned_ms: int) -> int:
    """S3 rounds down to the second: by its end the object had landed, and by the time it was planned too."""
    return min(modified_ms + _SECOND_MS - 1, planned_ms) if modified_ms % _SECOND_MS == 0 else modified_ms


@lru_cache(maxsize=8)
def _bucket(aws: AwsSettings, name: str) -> Bucket:
    """One client a process, for every task it runs."""
    return Bucket(client(aws, "s3", attempts=_ATTEMPTS), name)


class LakestreamFiles(DataSource):
    """`spark.dataSource.register(LakestreamFiles)`, then `spark.readStream.format("lakestream_files")`."""

    @classmethod
    def name(cls) -> str:
        return "lakestream_files"

    def schema(self) -> str:
        return SCHEMA

    def streamReader(self, schema: StructType) -> DataSourceStreamReader:  # noqa: ARG002, N802 - Spark's signature
        return FilesStreamReader(FilesOptions.from_spark_options(dict(self.options)))

"""A batch's rows left in a file on the driver, for a `foreachBatch` that takes them from there.

Rows read ahead on the driver are wanted on the driver, by Python both times. The ordinary way between the two goes
through a task to a Python worker, and back through the JVM: for a small batch the task's 90 ms, for a large one more
processor time than decoding it. So the rows are left in a file, and Spark is given one partition that names it.

The frame of such a batch stays whole. Whoever reads it the ordinary way, or finds the file gone, has an executor read
the same rows from Kinesis: the partition knows them by their bounds, too.
"""

import logging
import os
import shutil
import tempfile
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from hashlib import sha256
from itertools import count
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
from py4j.protocol import Py4JError
from pyspark.serializers import CPickleSerializer
from pyspark.sql import DataFrame
from pyspark.sql.datasource import InputPartition

from streaming_job.kinesis.rows import ARROW

log = logging.getLogger("lakestream.kinesis")

_FILES_KEPT: Final = 3
"""A batch that Spark plans twice, and the one before it."""


class SpooledPartition(InputPartition):
    """All rows of a batch: in a file of the driver's, and as the ranges of the shards that hold them."""

    def __init__(self, path: str, ranges: Sequence[InputPartition]) -> None:
        super().__init__(None)
        self.path = path
        self.ranges = tuple(ranges)

    def __repr__(self) -> str:
        return f"SpooledPartition({self.path}, {self.ranges})"


class Spool:
    """The writing end."""

    def __init__(self, folder: str) -> None:
        self._folder = Path(folder)
        self._names = (self._folder / f"{os.getpid()}-{number}.arrow" for number in count())
        self._kept: deque[Path] = deque()

    def put(self, batches: Sequence[pa.RecordBatch]) -> str | None:
        """Where they are now; None where they cannot be left, as on a full disk."""
        path = next(self._names)
        self._kept.append(path)
        while len(self._kept) > _FILES_KEPT:
            self._kept.popleft().unlink(missing_ok=True)
        try:
            self._folder.mkdir(mode=0o700, exist_ok=True)
            with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, ARROW) as writer:
                for batch in batches:
                    writer.write_batch(batch)
        except OSError as error:
            log.warning("a batch's rows cannot be left in a file; Spark carries them", extra={"reason": str(error)})
            with suppress(OSError):
                path.unlink()
            return None
        return str(path)

    def close(self) -> None:
        for path in self._kept:
            path.unlink(missing_ok=True)
        with suppress(OSError):
            self._folder.rmdir()


@contextmanager
def own_folder(checkpoint: str) -> Iterator[str | None]:
    """For the files of the one query on a checkpoint, readable by its user alone; gone with the block.

    What a killed one left is gone when the next begins. None where there can be none: then Spark carries the rows.
    """
    folder = folder_of(checkpoint)
    try:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(mode=0o700)
    except OSError as error:
        log.warning("no folder for a batch's rows; Spark carries them", extra={"reason": str(error)})
        yield None
        return
    try:
        yield str(folder)
    finally:
        # The reader's process ends with the query, often before it could tidy up itself.
        shutil.rmtree(folder, ignore_errors=True)


def folder_of(checkpoint: str) -> Path:
    name = f"lakestream-{os.getuid()}-{sha256(checkpoint.encode()).hexdigest()[:16]}"
    return Path(tempfile.gettempdir()) / name


def left_rows(frame: DataFrame) -> pa.Table | None:
    """The rows of a micro-batch, where its source left them; None where Spark has to be asked for them."""
    partition = _only_partition(frame)
    if not isinstance(partition, SpooledPartition):
        return None
    try:
        with pa.memory_map(partition.path) as file, pa.ipc.open_stream(file) as reader:
            return reader.read_all()
    except FileNotFoundError:
        return None


_PLANNED: Final = ("org.apache.spark.sql.execution.LogicalRDD", "DataSourceRDDPartition")


def _only_partition(frame: DataFrame) -> Any:
    """What the source planned, if it is one partition; looked up in Spark's plan, for which it offers no other way."""
    plan_class, partition_class = _PLANNED
    try:
        plan = frame._jdf.queryExecution().logical()  # noqa: SLF001 - as said
        partitions = list(plan.rdd().partitions()) if plan.getClass().getName() == plan_class else []
        if len(partitions) != 1 or partitions[0].getClass().getSimpleName() != partition_class:
            return None
        pickled = partitions[0].inputPartition().get().pickedPartition()
    except Py4JError:
        log.warning("the plan of this Spark is not as known; it carries the rows itself", exc_info=True)
        return None
    return CPickleSerializer().loads(pickled)  # type: ignore[no-untyped-call]

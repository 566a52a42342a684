"""The archive as Spark reads it: objects in a real bucket, a checkpoint on disk, batches that fail and come again."""

import gzip
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pyspark.errors import StreamingQueryException
from pyspark.sql import DataFrame, Row, SparkSession

from config.settings import Settings
from streaming_job.files.auto_loader import rows_of_lines
from streaming_job.files.folders import HOUR_MS, folder_at
from streaming_job.kinesis.rows import SCHEMA
from streaming_job.sources import source_frame
from tests.support.local_workers import REGION, Aws, running_emulator

pytestmark = [pytest.mark.spark, pytest.mark.stack]

NOW_MS = time.time_ns() // 1_000_000
HOUR = f"archive/{folder_at(NOW_MS - HOUR_MS)}"
LONG_PAST = f"archive/{folder_at(NOW_MS - 20 * HOUR_MS)}"


@pytest.fixture(scope="module")
def aws(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Aws]:
    with running_emulator(tmp_path_factory.mktemp("emulator")) as running:
        yield running


class World:
    def __init__(self, spark: SparkSession, aws: Aws, folder: Path) -> None:
        self.spark = spark
        self.s3 = aws("s3")
        self.bucket = f"files-{folder.name.replace('_', '-')[-30:]}".lower()
        self.s3.create_bucket(Bucket=self.bucket)
        self.checkpoint = str(folder / "checkpoint")
        self.endpoint = aws.endpoint
        self.batches: list[list[Row]] = []

    def settings(self, **source: Any) -> Settings:
        return Settings.model_validate(
            {
                "aws": {"region": REGION, "endpoint": self.endpoint},
                "source": {"connector": "files", "stream": "changes", **source},
                "bucket": {"name": self.bucket},
                "lake": {"root": "unused", "checkpoint": self.checkpoint},
                "tables": ["t"],
            }
        )

    def put(self, name: str, *lines: bytes, packed: bool = True) -> None:
        body = b"".join(line + b"\n" for line in lines)
        self.s3.put_object(Bucket=self.bucket, Key=name, Body=gzip.compress(body) if packed else body)

    def run(self, before: Callable[[int], None] = lambda _: None, **source: Any) -> list[Row]:
        """Until all that is there has been read; the rows of this run."""
        first = len(self.batches)

        def keep(frame: DataFrame, number: int) -> None:
            rows = frame.collect()
            before(number)
            if rows:
                self.batches.append(rows)

        frame = source_frame(self.spark, self.settings(**source))
        query = (
            frame.writeStream.foreachBatch(keep)
            .option("checkpointLocation", self.checkpoint)
            .trigger(availableNow=True)
            .start()
        )
        try:
            query.awaitTermination()
        finally:
            query.stop()
        return [row for rows in self.batches[first:] for row in rows]


@pytest.fixture
def world(spark: SparkSession, aws: Aws, tmp_path: Path) -> World:
    return World(spark, aws, tmp_path)


def data_of(rows: list[Row]) -> list[bytes]:
    return sorted(bytes(row.data) for row in rows)


def test_rows_are_the_stream_s_own_with_the_object_and_the_line_as_their_position(world: World) -> None:
    world.put(f"{HOUR}a.gz", b'{"v":1}', b'{"v":2}')
    world.put(f"{HOUR}b.gz", b'{"v":3}')
    world.put("archive/readme.txt", b"not ours", packed=False)
    assert source_frame(world.spark, world.settings()).schema.simpleString() == (
        f"struct<{SCHEMA.replace(' ', ':').replace(',:', ',')}>"
    )
    rows = world.run()
    found = {(row.stream, row.shardId, row.sequenceNumber): bytes(row.data) for row in rows}
    assert found == {
        ("changes", f"{HOUR}a.gz", "1"): b'{"v":1}\n',
        ("changes", f"{HOUR}a.gz", "2"): b'{"v":2}\n',
        ("changes", f"{HOUR}b.gz", "1"): b'{"v":3}\n',
    }
    world.put(f"{LONG_PAST}late.gz", b'{"v":4}')
    assert data_of(world.run()) == [b'{"v":4}\n']


def test_a_batch_that_failed_is_the_same_batch_when_it_comes_again(world: World) -> None:
    """The first batch with rows fails, another object lands before the restart: no gap, and nothing moved."""
    world.put(f"{HOUR}b.gz", b'{"v":1}')
    failed: list[int] = []

    def fail(number: int) -> None:
        if number and not failed:
            failed.append(number)
            raise RuntimeError("cut off")

    with pytest.raises(StreamingQueryException, match="cut off"):
        world.run(fail)
    world.put(f"{HOUR}a.gz", b'{"v":2}')
    world.run()
    assert [data_of(rows) for rows in world.batches] == [[b'{"v":1}\n'], [b'{"v":2}\n']]


def test_an_object_that_is_no_archive_gives_rejects_and_the_others_go_on(world: World) -> None:
    whole = gzip.compress(b'{"v":1}\n{"v":2}\n' * 1_000)
    world.s3.put_object(Bucket=world.bucket, Key=f"{HOUR}broken.gz", Body=whole[:-40])
    world.s3.put_object(Bucket=world.bucket, Key=f"{HOUR}picture.png", Body=bytes(range(256)) * 500)
    world.put(f"{HOUR}good.gz", b'{"v":3}')
    rows = world.run()
    assert {row.shardId.rpartition("/")[2] for row in rows} == {"broken.gz", "picture.png", "good.gz"}
    assert b'{"v":3}\n' in data_of(rows)
    assert len(rows) < 3_500


def test_an_object_that_is_gone_before_it_is_read_stops_the_job_and_leaves_a_reject_where_that_is_accepted(
    world: World,
) -> None:
    world.put(f"{HOUR}a.gz", b'{"v":1}')

    def cut_off(number: int) -> None:
        if number:
            raise RuntimeError("cut off")

    with pytest.raises(StreamingQueryException, match="cut off"):
        world.run(cut_off)
    world.s3.delete_object(Bucket=world.bucket, Key=f"{HOUR}a.gz")
    world.put(f"{HOUR}b.gz", b'{"v":2}')
    with pytest.raises(StreamingQueryException, match=r"a\.gz is gone.*fail_on_data_loss"):
        world.run()
    rows = world.run(fail_on_data_loss=False)
    assert {row.shardId.rpartition("/")[2]: bytes(row.data) for row in rows} == {"a.gz": b"", "b.gz": b'{"v":2}\n'}


def test_auto_loader_s_columns_become_the_same_rows(spark: SparkSession, tmp_path: Path) -> None:
    """Spark's own file stream has the columns of Auto Loader's text format; what is no UTF-8 stays as it is."""
    hour = tmp_path / "archive" / "date=2026-01-31" / "hour=07"
    hour.mkdir(parents=True)
    (hour / "a.gz").write_bytes(gzip.compress(b'{"v":1,"\xc3\xa9":"\xff"}\n\n{"v":2}\n'))
    lines = spark.readStream.format("text").schema("value string").load(str(tmp_path / "archive"))
    kept: list[Row] = []
    query = (
        rows_of_lines(lines, "changes")
        .writeStream.foreachBatch(lambda frame, _: kept.extend(frame.collect()))
        .option("checkpointLocation", str(tmp_path / "checkpoint"))
        .trigger(availableNow=True)
        .start()
    )
    query.awaitTermination()
    assert data_of(kept) == [b'{"v":1,"\xc3\xa9":"\xff"}', b'{"v":2}']
    assert {row.shardId.endswith("/date=2026-01-31/hour=07/a.gz") for row in kept} == {True}
    assert {row.stream for row in kept} == {"changes"}
    assert [field.name for field in rows_of_lines(lines, "s").schema] == [
        part.split()[0] for part in SCHEMA.split(", ")
    ]

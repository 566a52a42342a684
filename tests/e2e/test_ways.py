"""The same changes by the stream, by its archive and by pulling, into three lakes that all agree with the source."""

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from streaming_job.aws import client
from streaming_job.health import Health
from streaming_job.job import Job
from streaming_job.kinesis.spool import folder_of
from streaming_job.latency.book import LatencyBook
from streaming_job.main import configured_tables
from streaming_job.metrics import JobMetrics
from streaming_job.operations.lake_rows import SparkLakeRows
from streaming_job.operations.pull_run import Outcome, Request, run_of
from streaming_job.operations.source_rules import source_rules
from streaming_job.operations.verify import Options, Report, Verification
from streaming_job.pipeline.batch import Pipeline
from streaming_job.pipeline.locations import Lake
from tests.support.ways import TABLE, Ways, source_of_all, write_changes

pytestmark = [pytest.mark.spark, pytest.mark.stack, pytest.mark.timeout(1_800)]

CHANGES = int(os.environ.get("LAKESTREAM_WAYS_CHANGES", "500"))
"""20000 is the size it is made for."""
PATIENCE_S = 600


@pytest.fixture
def ways(tmp_path: Path) -> Iterator[Ways]:
    with source_of_all(tmp_path) as ready:
        yield ready


def job(spark: SparkSession, ways: Ways, way: str, **source: object) -> JobMetrics:
    """The job, until all that is there now is in its lake; what it published."""
    settings = ways.settings(way, **source)
    book, health = LatencyBook(), Health(60)
    metrics = JobMetrics(book, health)
    with Pipeline(spark, settings, configured_tables(settings), book) as pipeline:
        running = Job(spark, settings, pipeline, drain=None, metrics=metrics, health=health)
        running.run(available_now=True)
    assert not folder_of(settings.lake.checkpoint).exists(), "rows of its batches are left behind"
    return metrics


def pull(spark: SparkSession, ways: Ways, *, reconcile: bool = False) -> Outcome:
    request = Request(state_file=ways.home / "pull.json")
    run = run_of(ways.settings("pull"), ways.table, request, lambda _: None, spark)
    with run.delivery() as delivery:
        outcome = run.once(delivery)
    if reconcile:
        run.reconcile(outcome)
    return outcome


def verified(spark: SparkSession, ways: Ways, way: str) -> Report:
    settings = ways.settings(way)
    rows = SparkLakeRows(spark, Lake(settings.lake).of(ways.table))
    rules = source_rules(settings, TABLE)
    return Verification(client(settings.aws, "dynamodb"), ways.table, rules, rows, Options(settle_s=0)).run()


def wait_for_all(count: Callable[[], int]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while (there := count()) < CHANGES:
        assert time.monotonic() < deadline, f"{there} of {CHANGES} changes are there"
        time.sleep(0.2)


def test_the_same_changes_by_stream_files_and_pull_all_verify(spark: SparkSession, ways: Ways) -> None:
    """LAKESTREAM_WAYS_CHANGES=20000 is the size it is made for. Pulling sees no delete, reconciling just those."""
    half = CHANGES // 2
    gone = write_changes(ways, half, seed=1)
    first = pull(spark, ways)
    gone |= write_changes(ways, CHANGES - half, seed=2)

    wait_for_all(ways.bridged)
    by_stream = job(spark, ways, "stream")
    assert verified(spark, ways, "stream").equal

    wait_for_all(ways.archived)
    by_files = job(spark, ways, "files", connector="files")
    assert verified(spark, ways, "files").equal
    for metrics in (by_stream, by_files):
        assert metrics.registry.get_sample_value("lakestream_changes_total", {"table": TABLE}) == CHANGES
        assert metrics.registry.get_sample_value("lakestream_rejects_total") == 0
        hop = {"table": TABLE, "hop": "origin_to_commit"}
        assert metrics.registry.get_sample_value("lakestream_hop_duration_ms_count", hop), "freshness is measured"

    # Compared with the whole source, what was pulled lacks nothing and is not old: only the deletes were not seen.
    second = pull(spark, ways, reconcile=True)
    assert first.counts.sent + second.counts.sent >= second.counts.read
    assert second.mended is not None
    assert (second.mended.missing, second.mended.stale, second.mended.different) == (0, 0, 0)
    assert 0 < second.mended.removed <= len(gone)
    assert verified(spark, ways, "pull").equal

"""What a job that is asked to stop makes of the batch in hand: finished or failed, never hushed up. Without Spark."""

import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from pyspark.errors import StreamingQueryException

from config.errors import LakestreamError
from config.settings import AwsSettings, LakeSettings, Settings, SourceSettings
from streaming_job.errors import JobFailedError, LeaseLostError
from streaming_job.health import Health
from streaming_job.job import Job
from streaming_job.latency.book import LatencyBook
from streaming_job.metrics import JobMetrics
from streaming_job.pipeline.batch import BatchReport


class PipelineAskedToStopMeanwhile:
    """The stop is requested while a batch is in hand; then the batch ends as the test says."""

    def __init__(self, failure: Exception | None) -> None:
        self.failure = failure
        self.request_stop: Callable[[], None] = lambda: None
        self.batches = 0

    def process_batch(self, _frame: object, batch_id: int) -> BatchReport:
        self.batches += 1
        self.request_stop()
        if self.failure is not None:
            raise self.failure
        return BatchReport(batch_id)

    def between_batches(self) -> dict[str, Any]:
        return {}


class Ended(StreamingQueryException):
    """As Spark raises it: the text alone."""

    def __init__(self, text: str) -> None:
        Exception.__init__(self, text)

    def __str__(self) -> str:
        return str(self.args[0])


class QueryInAThread:
    """Batch after batch until one fails; `died` is what Spark itself says of the end."""

    def __init__(self, process_batch: Callable[[Any, int], None], died: str | None = None) -> None:
        self._process_batch = process_batch
        self._died = died
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        try:
            for batch_id in range(1_000):
                self._process_batch(None, batch_id)
        except Exception as error:  # noqa: BLE001 - whatever a batch fails with ends a query
            module, name = type(error).__module__, type(error).__name__
            self._died = self._died or f"[STREAM_FAILED]\n{module}.{name}: {error}"

    @property
    def isActive(self) -> bool:  # noqa: N802 - Spark's name
        return self._thread.is_alive()

    def stop(self) -> None:
        self._thread.join()

    def awaitTermination(self) -> None:  # noqa: N802
        self._thread.join()
        if self._died is not None:
            raise Ended(self._died)


def run_until_stopped(folder: Path, failure: Exception | None, *, died: str | None = None) -> int:
    """How many batches were begun."""
    settings = Settings(
        aws=AwsSettings(region="us-east-1"),
        source=SourceSettings(stream="changes", connector="databricks"),
        lake=LakeSettings(root=str(folder / "lake"), checkpoint=str(folder / "checkpoint")),
        tables=("cars",),
    )
    pipeline, health = PipelineAskedToStopMeanwhile(failure), Health(60)
    spark: Any = SimpleNamespace()
    job = Job(
        spark,
        settings,
        pipeline,  # type: ignore[arg-type]
        drain=None,
        metrics=JobMetrics(LatencyBook(), health),
        health=health,
    )
    pipeline.request_stop = job._gate.request_stop
    job._wait(QueryInAThread(job._process_batch, died))  # type: ignore[arg-type]
    return pipeline.batches


@pytest.mark.parametrize(
    ("failure", "raised", "says"),
    [
        (LeaseLostError("cars is another writer's now", hint="stop it"), LeaseLostError, "another writer's now"),
        (OSError(28, "No space left on device"), JobFailedError, "No space left on device"),
    ],
)
def test_a_batch_that_fails_while_a_stop_is_requested_is_no_clean_end(
    tmp_path: Path, failure: Exception, raised: type[LakestreamError], says: str
) -> None:
    with pytest.raises(raised, match=says) as error:
        run_until_stopped(tmp_path, failure)
    assert error.value.hint
    assert error.value.exit_code != 0


@pytest.mark.parametrize("died", [None, "java.io.EOFException: the reader's process ended"])
def test_a_batch_that_is_finished_ends_a_job_that_is_asked_to_stop_whatever_the_stop_breaks(
    tmp_path: Path, died: str | None
) -> None:
    """The batch behind it is refused, and Spark says so or says of something else that the stop ended."""
    assert run_until_stopped(tmp_path, None, died=died) == 1

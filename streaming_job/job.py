"""The streaming job: Kinesis in, tables out, until it is asked to stop. It wires the parts and decides nothing."""

import logging
import re
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from types import FrameType
from typing import Any, Final

from pyspark.errors import StreamingQueryException
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql.streaming.query import StreamingQuery
from pyspark.sql.streaming.readwriter import DataStreamWriter

from config.errors import LakestreamError
from config.settings import LakeSettings, Settings
from streaming_job.errors import JobFailedError
from streaming_job.health import Health
from streaming_job.kinesis.spool import left_rows, own_folder
from streaming_job.metrics import JobMetrics
from streaming_job.pipeline.batch import BatchReport, Pipeline, is_bounded
from streaming_job.pipeline.intake_drain import Drain
from streaming_job.pipeline.lane import TableReport
from streaming_job.progress_listener import ProgressListener
from streaming_job.sources import source_frame
from streaming_job.spark import write_checkpoints_quickly

log = logging.getLogger("lakestream.job")

_LOOK_EVERY_S: Final = 0.2
_TEND_EVERY_S: Final = 5.0
"""On a quiet stream no batch comes to renew leases and drain what is parked."""
_QUIET_AFTER_S: Final = 1.0


class StopRequestedError(Exception):
    """Raised in place of a batch not yet begun: Spark must not take it for done."""


class BatchGate:
    """Lets one batch through at a time, and none once a stop was requested."""

    def __init__(self) -> None:
        self._in_hand = threading.Lock()
        self._stop = threading.Event()

    @contextmanager
    def batch(self) -> Iterator[None]:
        with self._in_hand:
            if self._stop.is_set():
                raise StopRequestedError
            yield

    @contextmanager
    def pause(self) -> Iterator[bool]:
        """True when no batch is in hand; none begins as long as this lasts."""
        is_free = self._in_hand.acquire(blocking=False)
        try:
            yield is_free
        finally:
            if is_free:
                self._in_hand.release()

    def request_stop(self) -> None:
        self._stop.set()

    @property
    def stop_requested(self) -> bool:
        return self._stop.is_set()

    def wait_for_stop(self, seconds: float) -> bool:
        return self._stop.wait(seconds)

    def wait_for_batch_in_hand(self) -> None:
        with self._in_hand:
            pass


class Job:
    def __init__(
        self,
        spark: SparkSession,
        settings: Settings,
        pipeline: Pipeline,
        *,
        drain: Drain | None,
        metrics: JobMetrics,
        health: Health,
    ) -> None:
        self._spark = spark
        self._settings = settings
        self._pipeline = pipeline
        self._drain = drain
        self._metrics = metrics
        self._health = health
        self._gate = BatchGate()
        self._failure: Exception | None = None
        """What a batch failed with."""
        self._tended_at = self._batch_ended_at = time.monotonic()

    def run(self, *, available_now: bool) -> None:
        """Stream until stopped by SIGTERM or SIGINT, or, with `available_now`, until what is there now is done."""
        with ExitStack() as cleanup:
            cleanup.enter_context(_signals_call(self._gate.request_stop))
            listener = ProgressListener(self._metrics, self._health)
            self._spark.streams.addListener(listener)
            cleanup.callback(self._spark.streams.removeListener, listener)
            write_checkpoints_quickly(self._spark, self._settings.lake.checkpoint)
            spool_folder = cleanup.enter_context(self._spool_folder())
            query = self._writer(spool_folder, available_now=available_now).start()
            self._wait(query)
            if available_now:
                self._take_in_what_waits()

    def _writer(self, spool_folder: str | None, *, available_now: bool) -> DataStreamWriter:
        trigger: dict[str, Any] = (
            {"availableNow": True}
            if available_now
            else {"processingTime": f"{self._settings.trigger.interval_ms} milliseconds"}
        )
        return (
            source_frame(self._spark, self._settings, spool_folder=spool_folder)
            .writeStream.foreachBatch(self._process_batch)
            .option("checkpointLocation", self._settings.lake.checkpoint)
            .queryName("lakestream")
            .trigger(**trigger)
        )

    def _spool_folder(self) -> AbstractContextManager[str | None]:
        return own_folder(self._settings.lake.checkpoint) if is_bounded(self._settings) else nullcontext()

    def _process_batch(self, frame: DataFrame, batch_id: int) -> None:
        with self._gate.batch(), self._remembered_failure():
            left = left_rows(frame) if is_bounded(self._settings) else None
            report = self._pipeline.process_batch(frame if left is None else left, batch_id)
            self._publish(report)
            self._tend()
            self._batch_ended_at = time.monotonic()

    @contextmanager
    def _remembered_failure(self) -> Iterator[None]:
        """Spark hands on its text alone, without its hint and exit code, and not whose it was."""
        try:
            yield
        except Exception as error:
            self._failure = error
            raise

    def _tend(self) -> None:
        """What is due between batches: leases, parked changes, a piece of upkeep, a slice of what was handed over."""
        self._tended_at = time.monotonic()
        self._count(self._pipeline.between_batches())
        if self._drain is not None:
            self._take_in(self._drain)

    def _take_in(self, drain: Drain) -> None:
        report = drain.step(is_quiet=self._is_quiet)
        if report is not None:
            self._health.progressed()
            self._metrics.taken_in.inc(report.rows)
            self._metrics.rejects.inc(report.rejects)
            self._count(report.tables)

    def _take_in_what_waits(self) -> None:
        """A job that ends by itself leaves no hand-over behind that it can take in."""
        while self._drain is not None and self._drain.is_due(is_quiet=True) and not self._gate.stop_requested:
            self._take_in(self._drain)

    @property
    def _is_quiet(self) -> bool:
        return time.monotonic() - self._batch_ended_at > _QUIET_AFTER_S

    def _is_time_to_tend(self) -> bool:
        if time.monotonic() - self._tended_at > _TEND_EVERY_S:
            return True
        return self._drain is not None and self._drain.is_due(is_quiet=self._is_quiet)

    def _publish(self, report: BatchReport) -> None:
        self._health.progressed()
        metrics = self._metrics
        metrics.batches.inc()
        metrics.batch_rows.set(report.rows)
        metrics.rejects.inc(report.rejects)
        for step, duration_ms in report.steps_ms.items():
            metrics.step_seconds.labels(step).observe(duration_ms / 1000)
        self._count(report.tables)
        metrics.last_commit.set(time.time())
        log.info("batch committed", extra={"batch": report.as_dict()})

    def _count(self, tables: Mapping[str, TableReport]) -> None:
        metrics = self._metrics
        for table, counts in tables.items():
            metrics.changes.labels(table).inc(counts.history_inserted)
            metrics.duplicates.labels(table).inc(counts.duplicates)
            metrics.columns.labels(table).inc(len(counts.columns_added))
            metrics.rescued.labels(table).inc(counts.rescued)
            metrics.parked.labels(table).set(counts.parked)
            metrics.refused.labels(table).set(counts.refused)
            metrics.unproven.labels(table).set(counts.is_unproven)

    def _wait(self, query: StreamingQuery) -> None:
        while query.isActive:
            if self._gate.wait_for_stop(_LOOK_EVERY_S):
                self._health.stopping()
                self._gate.wait_for_batch_in_hand()
                query.stop()
            elif self._is_time_to_tend():
                self._tend_when_quiet(query)
        try:
            query.awaitTermination()
        except StreamingQueryException as error:
            # What else a query that is being stopped ends with is the stop's own doing.
            if self._failure is not None or not self._gate.stop_requested:
                told = self._failure if isinstance(self._failure, LakestreamError) else self._failed(reason_of(error))
                raise told from error

    def _failed(self, reason: str) -> JobFailedError:
        mend = mend_of(reason, self._settings.lake)
        return JobFailedError(reason, hint=f"{mend}, and start the job again: it goes on from its checkpoint")

    def _tend_when_quiet(self, query: StreamingQuery) -> None:
        try:
            with self._gate.pause() as is_quiet:
                if is_quiet:
                    self._tend_or_shut()
        except BaseException:
            # Not under the gate: a batch that waits at it would never let the query end.
            query.stop()
            raise

    def _tend_or_shut(self) -> None:
        try:
            self._tend()
        except BaseException as error:
            self._gate.request_stop()
            if isinstance(error, LakestreamError) or not isinstance(error, Exception):
                raise
            log.exception("between two batches")
            raise self._failed(" ".join(f"{type(error).__name__}: {error}".split())) from error


def reason_of(error: StreamingQueryException) -> str:
    """The innermost message: what our source or a batch said, without Spark's wrapping around it."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    ours = [line for line in lines if re.match(r"^(\w+\.)*\w*Error\b.*:", line)]
    if ours:
        return re.sub(r"^(streaming_job|config)\.[\w.]+: ", "", ours[-1])
    # Over Spark Connect there is none.
    trace = [line.strip() for line in str(getattr(error, "_stackTrace", "")).splitlines()]
    if any(_STREAM_READER in line for line in trace):
        return "the process that reads the stream ended without a word: killed, or out of memory"
    causes = [line.removeprefix(_CAUSE) for line in trace if line.startswith(_CAUSE)]
    return (causes[-1:] or lines or ["the query failed"])[0]


_CAUSE: Final = "Caused by: "
_STREAM_READER: Final = "PythonStreamingSourceRunner"
"""Spark's side of the process in which a Python source lives; it raises nothing of its own while that one answers."""


def mend_of(reason: str, lake: LakeSettings) -> str:
    """What no message of a disk's own says: which."""
    places = " and ".join(place for place in (lake.root, lake.checkpoint) if place)
    if "No space left on device" in reason:
        return f"make room for {places}"
    return f"make {places} writable" if "Read-only file system" in reason else "mend it"


@contextmanager
def _signals_call(request_stop: Callable[[], None]) -> Iterator[None]:
    """Where we are the process's main thread: elsewhere, as in a notebook's task, its signals are not ours to take."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, _frame: FrameType | None) -> None:
        log.info("stopping after the batch in hand", extra={"signal": signal.Signals(number).name})
        request_stop()

    previous = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)

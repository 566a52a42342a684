"""Spark's own progress as health, metrics and one structured log line a batch."""

import json
import logging
from typing import Any

from pyspark.sql.streaming.listener import (
    JStreamingQueryListener,
    QueryIdleEvent,
    QueryProgressEvent,
    QueryStartedEvent,
    QueryTerminatedEvent,
    StreamingQueryListener,
)

from streaming_job.files.watch import progress_of
from streaming_job.health import Health
from streaming_job.kinesis.progress import platform_progress, shard_progress
from streaming_job.metrics import JobMetrics
from streaming_job.pipeline.batch import now_ms

log = logging.getLogger("lakestream.job")


class ProgressListener(StreamingQueryListener):
    def __init__(self, metrics: JobMetrics, health: Health) -> None:
        self._metrics = metrics
        self._health = health

    def onQueryStarted(self, event: QueryStartedEvent) -> None:  # noqa: N802 - Spark's name
        log.info("query started", extra={"query": str(event.id), "run": str(event.runId)})

    def onQueryProgress(self, event: QueryProgressEvent) -> None:  # noqa: N802
        self.progressed(event.progress.json)

    def progressed(self, text: str) -> None:
        """`text`: the progress as Spark writes it."""
        self._health.progressed()
        progress = json.loads(text)
        for source in progress["sources"]:
            shards = shard_progress(source.get("latestOffset")) or platform_progress(source, now_ms())
            self._metrics.source.update(shards)
            self._metrics.source.update_archives(progress_of(source.get("latestOffset")))
        log.info("progress", extra={"duration_ms": progress.get("durationMs", {})})

    def onQueryIdle(self, event: QueryIdleEvent) -> None:  # noqa: N802
        log.debug("idle", extra={"query": str(event.id)})
        self._health.progressed()

    def onQueryTerminated(self, event: QueryTerminatedEvent) -> None:  # noqa: N802
        log.info("query ended", extra={"failed": event.exception is not None})

    @property
    def _jlistener(self) -> Any:
        """What the JVM calls; not asked for over Spark Connect, which sends the text."""
        if not hasattr(self, "_jlistenerobj"):
            from pyspark import SparkContext  # noqa: PLC0415 - a client of Connect has none

            assert SparkContext._jvm is not None  # noqa: SLF001 - where PySpark's own listener looks
            self._jlistenerobj = SparkContext._jvm.PythonStreamingQueryListenerWrapper(_TextListener(self))  # noqa: SLF001
        return self._jlistenerobj


class _TextListener(JStreamingQueryListener):
    """PySpark's reads a progress field by field through the gateway, each of its maps up to the exception at its end:
    more processor time than everything else that Spark does for a small batch.
    """

    def __init__(self, listener: ProgressListener) -> None:
        super().__init__(listener)
        self._listener = listener

    def onQueryProgress(self, jevent: Any) -> None:  # noqa: N802 - Spark's name
        self._listener.progressed(jevent.progress().json())

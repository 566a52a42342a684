"""Objects in S3: their names, as Firehose makes them, and putting them there until they are."""

import gzip
import threading
import uuid
from datetime import UTC, datetime
from typing import Any

from config.errors import LakestreamError
from infra.local import worker
from infra.local.delivery.metrics import Metrics
from infra.local.delivery.prefix import evaluate

_VERSION = 1
"""Of the delivery stream: Firehose counts its configuration's changes."""


class NotDeliveredError(LakestreamError):
    """Told to stop while the bucket did not take the object; the position has not moved."""

    exit_code = 5


def name_of(prefix: str, *, stream: str, oldest: datetime, now: datetime, error_type: str | None = None) -> str:
    """The prefix is of the oldest record's arrival, the name of the moment of writing."""
    folder = evaluate(prefix, oldest, error_type=error_type)
    return f"{folder}{stream}-{_VERSION}-{now.astimezone(UTC):%Y-%m-%d-%H-%M-%S}-{uuid.uuid4()}.gz"


class Bucket:
    def __init__(self, client: Any, name: str, *, metrics: Metrics, log: worker.Log, stop: threading.Event) -> None:
        self._client = client
        self._name = name
        self._metrics = metrics
        self._log = log
        self._stop = stop

    def check(self) -> None:
        try:
            self._client.head_bucket(Bucket=self._name)
        except worker.ServiceError as error:
            if worker.is_passing(error):
                return  # it is not up yet: the first put waits for it
            raise LakestreamError(
                f"the bucket {self._name!r} cannot be used: {worker.one_line(error)}", hint="deploy it, or name another"
            ) from error

    def put(self, key: str, lines: bytes) -> None:
        """Tries until it is there. Whatever S3 says may be mended from outside, and the stream keeps the records."""
        body = gzip.compress(lines, mtime=0)
        failures = 0
        while True:
            try:
                self._client.put_object(Bucket=self._name, Key=key, Body=body, ContentType="application/octet-stream")
            except worker.ServiceError as error:
                failures += 1
                self._metrics.put_failures.inc()
                self._log.problem("put_failed", key=key, error=worker.one_line(error), failures=failures)
                if self._stop.wait(worker.backoff_s(failures, first_s=0.5, longest_s=30)):
                    raise NotDeliveredError(
                        f"{key} could not be written: {worker.one_line(error)}",
                        hint="nothing is lost: the next start reads and writes it again",
                    ) from error
            else:
                self._metrics.objects.inc()
                self._metrics.object_bytes.inc(len(body))
                return

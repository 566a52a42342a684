"""The machine's clock, and one whose sleeps end when a query does."""

import threading
import time

from streaming_job.kinesis.fetch import Clock


class StoppedError(Exception):
    """The query stopped while a thread slept."""


class SystemClock:
    def now_ms(self) -> int:
        return time.time_ns() // 1_000_000

    def sleep_ms(self, ms: int) -> None:
        time.sleep(ms / 1000)


class StoppableClock:
    """Sleeps end when the query does."""

    def __init__(self, clock: Clock, stopped: threading.Event) -> None:
        self.now_ms = clock.now_ms
        self._stopped = stopped

    def sleep_ms(self, ms: int) -> None:
        if self._stopped.wait(ms / 1000):
            raise StoppedError

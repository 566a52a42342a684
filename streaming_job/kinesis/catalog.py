"""What streams and shards there are, asked with retries."""

from collections.abc import Iterable
from typing import Final

from streaming_job.kinesis.fetch import Clock, Counters, KinesisApi, with_retries
from streaming_job.kinesis.shards import Shard, StreamInfo

DESCRIBE_MS: Final = 300_000
"""How often a running query asks whether a stream's retention changed or the stream is another."""


class Catalog:
    """The streams of one query; listings are kept for `refresh_ms`."""

    def __init__(
        self, api: KinesisApi, streams: Iterable[str], clock: Clock, *, refresh_ms: int, retry_ms_max: int
    ) -> None:
        self._api = api
        self._streams = tuple(streams)
        self._clock = clock
        self._refresh_ms = refresh_ms
        self._retry_ms_max = retry_ms_max
        self._infos: dict[str, StreamInfo] = {}
        self._described_ms = 0
        self._listing: dict[str, tuple[Shard, ...]] = {}
        self._listed_ms = 0

    def infos(self) -> dict[str, StreamInfo]:
        now_ms = self._clock.now_ms()
        if now_ms - self._described_ms >= DESCRIBE_MS:
            self._infos = {name: self._describe(name) for name in self._streams}
            self._described_ms = now_ms
        return self._infos

    def listing(self) -> dict[str, tuple[Shard, ...]]:
        now_ms = self._clock.now_ms()
        if now_ms - self._listed_ms >= self._refresh_ms:
            self._listing = {name: self._list(name) for name in self._streams}
            self._listed_ms = now_ms
        return self._listing

    def list_again(self) -> None:
        """A shard ended: its children are wanted now."""
        self._listed_ms = 0

    def _describe(self, name: str) -> StreamInfo:
        what = f"describing {name}"
        return with_retries(lambda: self._api.describe(name), self._clock, self._retry_ms_max, Counters(), what)

    def _list(self, name: str) -> tuple[Shard, ...]:
        what = f"listing the shards of {name}"
        return with_retries(lambda: self._api.list_shards(name), self._clock, self._retry_ms_max, Counters(), what)

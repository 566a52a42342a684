"""The archive's objects in S3, by the day and hour in their names."""

import re
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any, Final

from config.errors import LakestreamError
from streaming_job.objects import Bucket
from streaming_job.operations.archive_query import Hour

_LISTINGS_AT_ONCE: Final = 8
_day_of: Final = re.compile(r"date=(\d{4}-\d{2}-\d{2})/$").search
_hour_of: Final = re.compile(r"date=(\d{4}-\d{2}-\d{2})/hour=(\d{2})/").search


class ArchiveUnreadableError(LakestreamError):
    """An object of the archive is none of ours."""


@dataclass(frozen=True, slots=True)
class ArchiveObject:
    name: str
    version: str
    """The ETag: another one is another content."""
    bytes: int
    day: date
    hour: int


@dataclass(frozen=True, slots=True)
class Span:
    """Whole hours, UTC: the archive files a change under the hour it arrived at the delivery stream in."""

    since: datetime | None = None
    until: datetime | None = None
    """The hour this lies in still counts, unless it begins then."""

    def admits(self, hour: Hour) -> bool:
        day, number = hour
        begins = datetime(day.year, day.month, day.day, number, tzinfo=UTC)
        after = self.since is None or begins + timedelta(hours=1) > self.since
        return after and (self.until is None or begins < self.until)

    def admits_day(self, day: date) -> bool:
        return any(self.admits((day, number)) for number in range(24))


class Archive:
    def __init__(self, client: Any, bucket: str, prefix: str) -> None:
        self._objects = Bucket(client, bucket)
        self.bucket = bucket
        self.prefix = prefix

    def days(self) -> list[date]:
        """The days there is something of; a folder of another name is none of the archive's."""
        found = (_day_of(name) for name in self._objects.level(self.prefix))
        return [date.fromisoformat(match[1]) for match in found if match]

    def objects(self, hours: Sequence[Hour]) -> list[ArchiveObject]:
        """Of these hours, oldest first. A day that is asked for whole is listed at once."""
        by_day: dict[date, set[int]] = {}
        for day, hour in hours:
            by_day.setdefault(day, set()).add(hour)
        with ThreadPoolExecutor(_LISTINGS_AT_ONCE) as pool:
            listings = pool.map(lambda entry: list(self._of_day(*entry)), sorted(by_day.items()))
            return [found for listing in listings for found in listing]

    def fetch(self, found: ArchiveObject) -> bytes:
        return self._objects.body(found.name, found.version).content

    def _of_day(self, day: date, hours: set[int]) -> Iterator[ArchiveObject]:
        for found in self._objects.listed(f"{self.prefix}date={day.isoformat()}/"):
            place = _hour_of(found.name)
            if place and int(place[2]) in hours and found.bytes:
                yield ArchiveObject(found.name, found.version, found.bytes, day, int(place[2]))

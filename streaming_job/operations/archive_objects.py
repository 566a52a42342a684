"""The archive's objects in S3, by the day and hour in their names."""

import re
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any, Final, TypeVar

from botocore.exceptions import BotoCoreError, ClientError

from config.errors import LakestreamError
from streaming_job.operations.archive_query import Hour

_LISTINGS_AT_ONCE: Final = 8
_day_of: Final = re.compile(r"date=(\d{4}-\d{2}-\d{2})/$").search
_hour_of: Final = re.compile(r"date=(\d{4}-\d{2}-\d{2})/hour=(\d{2})/").search

_Found = TypeVar("_Found")


class ArchiveUnreadableError(LakestreamError):
    """S3 did not give the archive: no such bucket, no permission, no answer, or an object that is none of ours."""


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
        self._client = client
        self.bucket = bucket
        self.prefix = prefix

    def days(self) -> list[date]:
        """The days there is something of; a folder of another name is none of the archive's."""
        found = (_day_of(prefix) for prefix in self._folders(self.prefix))
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
        def get() -> bytes:
            answer = self._client.get_object(Bucket=self.bucket, Key=found.name, IfMatch=found.version)
            body: bytes = answer["Body"].read()
            return body

        return self._said(get)

    def _of_day(self, day: date, hours: set[int]) -> Iterator[ArchiveObject]:
        for entry in self._said(lambda: list(self._entries(f"{self.prefix}date={day.isoformat()}/"))):
            place = _hour_of(entry["Key"])
            if place and int(place[2]) in hours and entry["Size"]:
                yield ArchiveObject(entry["Key"], entry["ETag"], entry["Size"], day, int(place[2]))

    def _entries(self, prefix: str) -> Iterator[dict[str, Any]]:
        for page in self._client.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=prefix):
            yield from page.get("Contents", ())

    def _folders(self, prefix: str) -> list[str]:
        def walk() -> list[str]:
            pages = self._client.get_paginator("list_objects_v2").paginate(
                Bucket=self.bucket, Prefix=prefix, Delimiter="/"
            )
            return [folder["Prefix"] for page in pages for folder in page.get("CommonPrefixes", ())]

        return self._said(walk)

    def _said(self, ask: Callable[[], _Found]) -> _Found:
        try:
            return ask()
        except ClientError as error:
            code = error.response.get("Error", {}).get("Code", "unknown")
            raise ArchiveUnreadableError(f"s3://{self.bucket}/{self.prefix}: {code}", hint=_MENDS.get(code)) from error
        except BotoCoreError as error:
            raise ArchiveUnreadableError(
                f"s3://{self.bucket}/{self.prefix}: {type(error).__name__}", hint="check endpoint, region, credentials"
            ) from error


_MENDS: Final = {
    "NoSuchBucket": "check `bucket` in the configuration, or name one with --bucket",
    "AccessDenied": "this needs s3:ListBucket on the bucket, s3:GetObject on the archive, kms:Decrypt on its key",
    "PreconditionFailed": "an object was replaced meanwhile; ask again",
}

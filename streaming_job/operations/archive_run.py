"""From a query to its answer: which hours, which objects, fetched, loaded, sealed off, asked."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import duckdb

from config.errors import LakestreamError
from streaming_job.operations.archive_cache import ObjectCache
from streaming_job.operations.archive_database import ArchiveDatabase
from streaming_job.operations.archive_objects import Archive, Span
from streaming_job.operations.archive_query import Query, first_line, hours_of

_ROWS_AT_ONCE: Final = 1_000

Show = Callable[[str, int, int | None], None]
"""Step, bytes done, bytes in all."""


class QueryFailedError(LakestreamError):
    """DuckDB could not answer: an unknown column, a cast that fails, not enough memory."""


@dataclass(frozen=True, slots=True)
class Answer:
    columns: Sequence[str]
    rows: Iterator[Sequence[Any]]


@dataclass
class Asking:
    archive: Archive
    cache_folder: Path
    cache_bytes_max: int
    show: Show
    objects: int = 0
    bytes: int = 0
    bytes_fetched: int = 0

    @property
    def summary(self) -> str:
        megabytes = f"{self.bytes / 1e6:,.1f} MB, {self.bytes_fetched / 1e6:,.1f} MB of them fetched now"
        return f"{self.objects:,} objects, {megabytes}"

    @contextlib.contextmanager
    def answer(self, query: Query, span: Span) -> Iterator[Answer]:
        """1 the hours that can matter, 2 their objects, fetched and loaded in portions, 3 the way out closed, 4 the
        query. An interruption at any of them leaves whole objects in the cache and nothing else.
        """
        self.show("listing", 0, None)
        days = [day for day in self.archive.days() if span.admits_day(day)]
        hours = [hour for hour in hours_of(query, days) if span.admits(hour)]
        objects = self.archive.objects(hours)
        self.objects, self.bytes = len(objects), sum(found.bytes for found in objects)
        cache = ObjectCache(self.cache_folder, self.cache_bytes_max)
        with ArchiveDatabase(self.cache_folder) as database:
            done = 0
            for portion in cache.chunks(objects):
                with cache.holding(self.archive, portion, self._fetched) as files:
                    self.show("loading", done, self.bytes)
                    database.load(portion, files)
                done += sum(found.bytes for found in portion)
                self.show("loaded", done, self.bytes)
            database.seal()
            self.show("asking", done, self.bytes)
            with _in_words(), database.ask(query.sql) as cursor:
                yield Answer([name for name, *_ in cursor.description or ()], _rows(cursor))

    def _fetched(self, size: int) -> None:
        self.bytes_fetched += size


def _rows(cursor: duckdb.DuckDBPyConnection) -> Iterator[Sequence[Any]]:
    while portion := cursor.fetchmany(_ROWS_AT_ONCE):
        yield from portion


@contextlib.contextmanager
def _in_words() -> Iterator[None]:
    try:
        yield
    except duckdb.Error as error:
        raise QueryFailedError(
            first_line(error), hint='`lakestream archive query "DESCRIBE changes"` shows the columns'
        ) from error

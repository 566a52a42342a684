"""Looking at an archive: its objects by folder, and what lies there that is none of it."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import groupby
from typing import Final

from streaming_job.files.folders import DATED, split
from streaming_job.files.planning import Look
from streaming_job.objects import Bucket, Listed

_STRANGERS_MAX: Final = 10_000
"""Remembered by name; more are not told apart."""


@dataclass
class Archive:
    """The objects below one prefix."""

    bucket: Bucket
    prefix: str
    is_dated: bool = False
    """Filed by day and hour. It turns out with the first such folder, and stays."""
    strangers: set[str] = field(default_factory=set)
    """Names that are none of an archive's: passed over, and counted."""

    def look(self, begin: str, until_ms: int | None = None) -> Look:
        """From a folder on; without what landed after `until_ms`. What is not filed by time is looked at whole."""
        if not self.is_dated:
            self.look_beside()
        return self._by_folder(self._ours(begin, until_ms))

    def look_beside(self) -> None:
        """At what lies just below the prefix: whether there are days, and what lies beside them."""
        names = list(self.bucket.level(self.prefix))
        days = [name for name in names if name.startswith(f"{self.prefix}{DATED}")]
        self.is_dated = self.is_dated or bool(days)
        if self.is_dated:
            self._note(set(names) - set(days))

    def _by_folder(self, found: Iterator[tuple[str, Listed]]) -> Look:
        for folder, entries in groupby(found, key=lambda entry: entry[0]):
            yield folder, [entry for _, entry in entries]

    def _ours(self, begin: str, until_ms: int | None) -> Iterator[tuple[str, Listed]]:
        below = f"{self.prefix}{DATED}" if self.is_dated else self.prefix
        after = f"{self.prefix}{begin}" if self.is_dated and begin else ""
        for entry in self.bucket.listed(below, after=after):
            place = split(entry.name.removeprefix(self.prefix), dated=self.is_dated)
            if place is None or not entry.bytes:
                self._note({entry.name})
            elif until_ms is None or entry.modified_ms <= until_ms:
                yield place[0], replace(entry, name=place[1])

    def _note(self, names: set[str]) -> None:
        if len(self.strangers) < _STRANGERS_MAX:
            self.strangers |= names

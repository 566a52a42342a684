"""The bridge's marks under `unproven/`: where changes of a table may have been lost, until a person has settled it."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from streaming_job.objects import Bucket

PREFIX: Final = "unproven/"


@dataclass(frozen=True)
class Mark:
    name: str
    reason: str
    marked_ms: int

    def __str__(self) -> str:
        return f"{self.reason} at {datetime.fromtimestamp(self.marked_ms / 1000, UTC):%Y-%m-%dT%H:%MZ}"


def marks_of(bucket: Bucket, table: str) -> Sequence[Mark]:
    """Oldest first."""
    found = [_read(bucket, entry.name) for entry in bucket.listed(f"{PREFIX}{table}/")]
    return sorted(found, key=lambda mark: mark.marked_ms)


def _read(bucket: Bucket, name: str) -> Mark:
    """A mark that cannot be understood is one all the same."""
    try:
        said = json.loads(bucket.body(name).content)
        return Mark(name, str(said["reason"]), int(said["marked_ms"]))
    except (ValueError, LookupError, TypeError):
        return Mark(name, "unknown", 0)

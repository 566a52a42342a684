"""What pulling cannot see: items deleted, written behind the overlap, or never in the index. Found by a whole Scan.

The lake is read first, then the source: what lies in the lake and not in the source is gone from it. What is sent goes
just behind the row it mends, so that every later version beats it.
"""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final, Protocol

from bridge_lambda.envelope import Reading, encode_absence, encode_item
from bridge_lambda.masks import Mask
from streaming_job.operations.comparison import Finding, Suspect, comparison
from streaming_job.operations.pull import GENERATION, Pull
from streaming_job.operations.pull_versions import after, sequence
from streaming_job.operations.source_scan import Item, read_consistently, scan
from streaming_job.operations.source_side import SourceSide

_AT_ONCE: Final = 1_000


class LakeSide(Protocol):
    """`current` of the table."""

    def write_all(self, folder: Path) -> None:
        """Live rows as Parquet files of `key`, `digest`, `intact`, `kept`."""

    def sequences(self, keys: Sequence[str]) -> dict[str, str]:
        """`_seq` of these keys' rows, tombstones included."""


@dataclass
class Mended:
    scanned: int = 0
    missing: int = 0
    """Items the lake did not have: written behind the overlap, or not in the index."""
    stale: int = 0
    removed: int = 0
    """Rows whose item is gone, or has left the filter."""
    different: int = 0
    """Rows of the right version whose columns are not what was written: `lakestream replay --repair` mends them. Keys
    that have more rows than one too: `lakestream verify` tells them apart, `lakestream rebuild` mends them.
    """

    def as_dict(self) -> dict[str, int]:
        return asdict(self)


@dataclass
class Reconcile:
    pull: Pull
    source: SourceSide
    lake: LakeSide
    segments: int
    counts: Mended = field(default_factory=Mended)

    def read(self) -> Iterator[list[bytes]]:
        """Lines to hand over, some at a time."""
        suspects = self._suspects()
        for start in range(0, len(suspects), _AT_ONCE):
            if lines := self._mend(suspects[start : start + _AT_ONCE]):
                yield lines

    def _suspects(self) -> Sequence[Suspect]:
        index = self.pull.index
        with TemporaryDirectory(prefix="lakestream-pull-") as folder, comparison(Path(folder)) as sides:
            self.lake.write_all(Path(folder) / "lake")
            sides.add_lake(Path(folder) / "lake")
            for page in scan(index.client, index.table, segments=self.segments, budget=index.budget):
                self.counts.scanned += len(page)
                sides.add_source(self.source.rows(self.source.admitted(page)))
            return sides.suspects()

    def _mend(self, suspects: Sequence[Suspect]) -> list[bytes]:
        """Each is read again: what changed meanwhile is as it is now."""
        index = self.pull.index
        held = self.lake.sequences([suspect.key for suspect in suspects])
        known = [address for suspect in suspects if (address := self.source.known_address(suspect)) is not None]
        found = {
            self.source.key(item): item for item in read_consistently(index.client, index.table, known, index.budget)
        }
        lines = (self._line(suspect, held.get(suspect.key), found.get(suspect.key)) for suspect in suspects)
        return [line for line in lines if line is not None]

    def _line(self, suspect: Suspect, held: str | None, item: Item | None) -> bytes | None:
        """None where there is nothing to mend, or a pass brings it."""
        number = held.partition("-")[2] if held is not None else None
        if item is None or not self.source.rules.admits(item):
            return self._absence(suspect, number, is_there=item is not None) if number is not None else None
        if suspect.finding is Finding.DIFFERENT:
            self.counts.different += 1
        if suspect.finding not in (Finding.MISSING, Finding.STALE):
            return None
        self.counts.missing += suspect.finding is Finding.MISSING
        self.counts.stale += suspect.finding is Finding.STALE
        return self._item(item, number)

    def _item(self, item: Item, number: str | None) -> bytes | None:
        versions, now_ms = self.pull.versions, self.pull.now_ms()
        version = versions.read(item.get(self.pull.index.version))

        def numbered(digest: str) -> str:
            own = sequence(version, digest)
            return own if number is None else max(own, after(number))

        reading = Reading("MODIFY", GENERATION, numbered, versions.created_ms(version), now_ms)
        change = encode_item(item, self.source.rules, reading, self.pull.claims_bucket)
        if change is not None and change.claim is not None:
            self.pull.park(change.claim)
        return change.line(now_ms) if change is not None else None

    def _absence(self, suspect: Suspect, number: str, *, is_there: bool) -> bytes | None:
        if suspect.finding is Finding.MISSING:
            return None
        self.counts.removed += 1
        now_ms = self.pull.now_ms()
        reading = Reading("REMOVE", GENERATION, lambda _digest: after(number), now_ms, now_ms)
        unmasked = replace(self.source.rules, masks=Mask())  # the lake's key is masked already
        return encode_absence(self.source.masked_key(suspect.key), unmasked, reading, filtered=is_there).line(now_ms)

"""The archive as material of a replay: first loads under `snapshot/`, then every change as it left the bridge."""

import gzip
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Final

from streaming_job.objects import Bucket
from streaming_job.operations import snapshot
from streaming_job.operations.archive_objects import Archive, ArchiveUnreadableError, Span
from streaming_job.operations.replay import Sieve
from streaming_job.pipeline.intake import Intake, Piece
from streaming_job.pipeline.intake_rows import lines

_PACKING: Final = 3


@dataclass
class ArchiveMaterial:
    """Objects that hold nothing else than what is asked for are handed over as they lie there; of others a copy."""

    archive: Archive
    bucket: Bucket
    intake: Intake
    of_id: str
    span: Span
    show: Callable[[int, int], None]
    """Objects read, objects in all."""
    stream: str = "archive"
    _count: int = field(default=0)

    def pieces(self, sieve: Sieve) -> Iterator[Piece]:
        hours = [(day, hour) for day in self.archive.days() for hour in range(24) if self.span.admits((day, hour))]
        names = [*self._first_loads(), *(found.name for found in self.archive.objects(hours))]
        for number, name in enumerate(names, start=1):
            piece = self._sieved(name, sieve)
            self.show(number, len(names))
            if piece is not None:
                yield piece

    def _first_loads(self) -> list[str]:
        """Of a time span none: a first load has no place in time."""
        if self.span.since is not None:
            return []
        return [found.name for found in self.bucket.listed(snapshot.PREFIX) if found.name.endswith(snapshot.ENDING)]

    def _sieved(self, name: str, sieve: Sieve) -> Piece | None:
        body = self.bucket.body(name).content
        try:
            found = [(line, sieve.keeps(line)) for line in lines(body) if line.strip()]
        except (OSError, EOFError, zlib.error) as error:
            raise ArchiveUnreadableError(
                f"s3://{self.bucket.name}/{name} is no gzip NDJSON: {error}", hint="was it written by somebody else?"
            ) from error
        kept = [line for line, is_kept in found if is_kept]
        if not kept:
            return None
        self._count += 1
        piece = f"{self._count:08d}"
        if len(kept) == len(found):
            return Piece(name=piece, address=f"s3://{self.bucket.name}/{name}", form="lines")
        copy = gzip.compress(b"".join(kept), _PACKING, mtime=0)
        return Piece(name=piece, address=self.intake.stage(self.of_id, piece, copy), form="lines")

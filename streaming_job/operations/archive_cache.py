"""Objects of the archive on this machine's disk: bounded in bytes, least recently used first out, safe for several
processes at once.

Readers hold the folder's lock shared while they fetch and load, the one who clears it holds it alone: nobody's files
go while they are being read.
"""

import contextlib
import fcntl
import os
import secrets
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from pathlib import Path
from typing import Final

from config.errors import ConfigurationError
from streaming_job.operations.archive_objects import Archive, ArchiveObject

_FETCHES_AT_ONCE: Final = 8
_OBJECTS_AT_ONCE: Final = 1_000
_BYTES_AT_ONCE: Final = 64 * 1024 * 1024
_GZIP: Final = b"\x1f\x8b"


class ObjectCache:
    def __init__(self, folder: Path, bytes_max: int) -> None:
        self._folder = folder
        self._bytes_max = bytes_max
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)  # masked, and still nobody else's
            (folder / "lock").touch()
        except OSError as error:
            raise ConfigurationError(
                f"cannot use the cache folder {folder}: {error.strerror}", hint="name another with --cache"
            ) from error

    def chunks(self, objects: Sequence[ArchiveObject]) -> Iterator[Sequence[ArchiveObject]]:
        """In such portions that a query over more than the cache holds still keeps within it."""
        bytes_max = min(_BYTES_AT_ONCE, self._bytes_max // 4)
        portion: list[ArchiveObject] = []
        size = 0
        for found in objects:
            if portion and (size + found.bytes > bytes_max or len(portion) >= _OBJECTS_AT_ONCE):
                yield portion
                portion, size = [], 0
            portion.append(found)
            size += found.bytes
        if portion:
            yield portion

    @contextlib.contextmanager
    def holding(
        self, archive: Archive, objects: Sequence[ArchiveObject], fetched: Callable[[int], None]
    ) -> Iterator[list[Path]]:
        """The objects as files, there for as long as the block lasts. `fetched` hears of the bytes of each."""
        with self._locked(fcntl.LOCK_SH), ThreadPoolExecutor(_FETCHES_AT_ONCE) as pool:
            yield list(pool.map(lambda found: self._file_of(archive, found, fetched), objects))
        with self._locked(fcntl.LOCK_EX):
            self._clear()

    def _file_of(self, archive: Archive, found: ArchiveObject, fetched: Callable[[int], None]) -> Path:
        identity = f"{archive.bucket}\0{found.name}\0{found.version}"
        path = self._folder / f"{sha256(identity.encode()).hexdigest()}.gz"
        plain = path.with_suffix(".ndjson")
        for known in (path, plain):
            with contextlib.suppress(FileNotFoundError):
                os.utime(known)
                return known
        body = archive.fetch(found)
        fetched(len(body))
        target = path if body.startswith(_GZIP) else plain
        half = self._folder / f"{secrets.token_hex(8)}.half"
        half.write_bytes(body)
        half.replace(target)
        return target

    def _clear(self) -> None:
        """Alone here: what is half written now was left by somebody who died."""
        files = []
        for path in self._folder.iterdir():
            if path.suffix == ".half":
                path.unlink()
            elif path.suffix in (".gz", ".ndjson"):
                files.append((path.stat(), path))
        size = sum(status.st_size for status, _ in files)
        for status, path in sorted(files, key=lambda entry: entry[0].st_mtime_ns):
            if size <= self._bytes_max:
                break
            path.unlink()
            size -= status.st_size

    @contextlib.contextmanager
    def _locked(self, kind: int) -> Iterator[None]:
        with (self._folder / "lock").open("rb") as handle:
            fcntl.flock(handle, kind)
            yield

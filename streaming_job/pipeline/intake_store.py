"""Where handed-over work lies: a folder of the lake, or a prefix of a bucket. Objects appear whole or not at all."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, Protocol, TypeVar
from urllib.parse import urlsplit

from config.errors import ConfigurationError, LakestreamError
from config.settings import Settings
from streaming_job.aws import client
from streaming_job.objects import Bucket, BucketUnreadableError, ObjectGoneError

_FOLDER: Final = "intake"
_HALF: Final = ".half"
_SCHEME: Final = "s3://"
_Found = TypeVar("_Found")


class IntakeUnreachableError(LakestreamError):
    """The place of handed-over work does not answer; whatever waits there waits on."""


class IntakeStore(Protocol):
    def names(self, prefix: str) -> list[str]:
        """Of the objects whose name begins so, sorted."""

    def get(self, address: str) -> bytes | None:
        """A name here, or `s3://bucket/key` anywhere. None where there is no such object."""

    def put(self, name: str, body: bytes) -> None: ...

    def delete(self, name: str) -> None:
        """Harmless where it is gone."""


class _S3:
    """Objects of any bucket: pieces may lie where they were made."""

    def __init__(self, settings: Settings) -> None:
        self._aws = settings.aws
        self._client: Any = None

    def bucket(self, name: str) -> Bucket:
        """The client is made when it is first needed: a lake in a folder may never need one."""
        if self._client is None:
            self._client = client(self._aws, "s3")
        return Bucket(self._client, name)

    def get(self, address: str) -> bytes | None:
        name, key = split(address)
        return _said(lambda: body_of(self.bucket(name), key))


class FolderStore:
    def __init__(self, root: Path, s3: _S3) -> None:
        self._root = root
        self._s3 = s3

    def names(self, prefix: str) -> list[str]:
        folder = self._root / prefix.rpartition("/")[0]
        found = (path.relative_to(self._root).as_posix() for path in folder.rglob("*") if path.is_file())
        return sorted(name for name in found if name.startswith(prefix) and not name.endswith(_HALF))

    def get(self, address: str) -> bytes | None:
        if address.startswith(_SCHEME):
            return self._s3.get(address)
        try:
            return (self._root / address).read_bytes()
        except FileNotFoundError:
            return None

    def put(self, name: str, body: bytes) -> None:
        path = self._root / name
        half = path.with_name(f"{path.name}.{os.getpid()}{_HALF}")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with half.open("wb") as file:
                file.write(body)
                file.flush()
                os.fsync(file.fileno())
            half.replace(path)
        except OSError as error:
            raise IntakeUnreachableError(
                f"{path}: {error.strerror}", hint="both the job and the command must write there"
            ) from error

    def delete(self, name: str) -> None:
        (self._root / name).unlink(missing_ok=True)


class BucketStore:
    def __init__(self, bucket: str, prefix: str, s3: _S3) -> None:
        self._name = bucket
        self._prefix = prefix
        self._s3 = s3

    @property
    def _bucket(self) -> Bucket:
        return self._s3.bucket(self._name)

    def names(self, prefix: str) -> list[str]:
        found = _said(lambda: [entry.name for entry in self._bucket.listed(self._prefix + prefix)])
        return sorted(name.removeprefix(self._prefix) for name in found)

    def get(self, address: str) -> bytes | None:
        if address.startswith(_SCHEME):
            return self._s3.get(address)
        return _said(lambda: body_of(self._bucket, self._prefix + address))

    def put(self, name: str, body: bytes) -> None:
        _said(lambda: self._bucket.put(self._prefix + name, body))

    def delete(self, name: str) -> None:
        _said(lambda: self._bucket.delete(self._prefix + name))


def store_of(settings: Settings) -> IntakeStore:
    """Beside the tables where they lie by path; in the bucket where a catalog holds them."""
    lake, s3 = settings.lake, _S3(settings)
    if lake.root is not None:
        address = urlsplit(lake.root)
        if address.scheme in ("s3", "s3a"):
            return BucketStore(address.netloc, f"{address.path.strip('/')}/{_FOLDER}/".lstrip("/"), s3)
        if address.scheme in ("", "file"):
            return FolderStore(Path(address.path) / _FOLDER, s3)
    if settings.bucket is None:
        raise ConfigurationError(
            "there is no place to hand work over to the job", hint="add `bucket: {name: …}` to the job's configuration"
        )
    name = f"{lake.catalog}.{lake.schema_}" if lake.root is None else lake.root.rstrip("/").rpartition("/")[2]
    return BucketStore(settings.bucket.name, f"{_FOLDER}/{name}/", s3)


def split(address: str) -> tuple[str, str]:
    """Bucket and key of `s3://bucket/key`."""
    bucket, _, key = address.removeprefix(_SCHEME).partition("/")
    return bucket, key


def body_of(bucket: Bucket, name: str) -> bytes | None:
    """None where there is no such object."""
    try:
        return bucket.body(name).content
    except ObjectGoneError:
        return None


def _said(ask: Callable[[], _Found]) -> _Found:
    try:
        return ask()
    except BucketUnreadableError as error:
        raise IntakeUnreachableError(error.what, hint=error.hint) from error

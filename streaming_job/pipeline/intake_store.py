"""Where handed-over work lies: a folder of the lake, or a prefix of a bucket. Objects appear whole or not at all."""

import os
from pathlib import Path
from typing import Any, Final, Protocol
from urllib.parse import urlsplit

from botocore.exceptions import BotoCoreError, ClientError

from config.errors import ConfigurationError, LakestreamError
from config.settings import Settings
from streaming_job.aws import client

_FOLDER: Final = "intake"
_HALF: Final = ".half"
_S3: Final = ("s3", "s3a")


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


class _ForeignObjects:
    """Objects of any bucket, for pieces that lie where they were made."""

    def __init__(self, settings: Settings) -> None:
        self._aws = settings.aws
        self._client: Any = None

    def client(self) -> Any:
        """Made when it is first needed: a lake in a folder may never need one."""
        if self._client is None:
            self._client = client(self._aws, "s3")
        return self._client

    def get(self, bucket: str, key: str) -> bytes | None:
        try:
            body: bytes = self.client().get_object(Bucket=bucket, Key=key)["Body"].read()
        except ClientError as error:
            if error.response["Error"]["Code"] in {"NoSuchKey", "404"}:
                return None
            raise _unreachable(f"s3://{bucket}/{key}", error) from error
        except BotoCoreError as error:
            raise _unreachable(f"s3://{bucket}/{key}", error) from error
        return body


class FolderStore:
    def __init__(self, root: Path, foreign: _ForeignObjects) -> None:
        self._root = root
        self._foreign = foreign

    def names(self, prefix: str) -> list[str]:
        folder = self._root / prefix.rpartition("/")[0]
        found = (path.relative_to(self._root).as_posix() for path in folder.rglob("*") if path.is_file())
        return sorted(name for name in found if name.startswith(prefix) and not name.endswith(_HALF))

    def get(self, address: str) -> bytes | None:
        if address.startswith("s3://"):
            return self._foreign.get(*split(address))
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
            raise _unreachable(str(path), error) from error

    def delete(self, name: str) -> None:
        (self._root / name).unlink(missing_ok=True)


class BucketStore:
    def __init__(self, bucket: str, prefix: str, foreign: _ForeignObjects) -> None:
        self._bucket = bucket
        self._prefix = prefix
        self._foreign = foreign

    def names(self, prefix: str) -> list[str]:
        pages = self._foreign.client().get_paginator("list_objects_v2")
        try:
            keys = [
                entry["Key"]
                for page in pages.paginate(Bucket=self._bucket, Prefix=self._prefix + prefix)
                for entry in page.get("Contents", ())
            ]
        except (ClientError, BotoCoreError) as error:
            raise _unreachable(f"s3://{self._bucket}/{self._prefix}", error) from error
        return sorted(key.removeprefix(self._prefix) for key in keys)

    def get(self, address: str) -> bytes | None:
        bucket, key = split(address) if address.startswith("s3://") else (self._bucket, self._prefix + address)
        return self._foreign.get(bucket, key)

    def put(self, name: str, body: bytes) -> None:
        try:
            self._foreign.client().put_object(Bucket=self._bucket, Key=self._prefix + name, Body=body)
        except (ClientError, BotoCoreError) as error:
            raise _unreachable(f"s3://{self._bucket}/{self._prefix}{name}", error) from error

    def delete(self, name: str) -> None:
        try:
            self._foreign.client().delete_object(Bucket=self._bucket, Key=self._prefix + name)
        except (ClientError, BotoCoreError) as error:
            raise _unreachable(f"s3://{self._bucket}/{self._prefix}{name}", error) from error


def store_of(settings: Settings) -> IntakeStore:
    """Beside the tables where they lie by path; in the bucket where a catalog holds them."""
    lake, foreign = settings.lake, _ForeignObjects(settings)
    if lake.root is not None:
        address = urlsplit(lake.root)
        if address.scheme in _S3:
            return BucketStore(address.netloc, f"{address.path.strip('/')}/{_FOLDER}/".lstrip("/"), foreign)
        if address.scheme in ("", "file"):
            return FolderStore(Path(address.path) / _FOLDER, foreign)
    if settings.bucket is None:
        raise ConfigurationError(
            "there is no place to hand work over to the job", hint="add `bucket: {name: …}` to the job's configuration"
        )
    name = f"{lake.catalog}.{lake.schema_}" if lake.root is None else lake.root.rstrip("/").rpartition("/")[2]
    return BucketStore(settings.bucket.name, f"{_FOLDER}/{name}/", foreign)


def split(address: str) -> tuple[str, str]:
    """Bucket and key of `s3://bucket/key`."""
    bucket, _, key = address.removeprefix("s3://").partition("/")
    return bucket, key


def _unreachable(place: str, error: Exception) -> IntakeUnreachableError:
    return IntakeUnreachableError(
        f"{place}: {' '.join(str(error).split())}", hint="both the job and the command must read and write there"
    )

"""A table's export to S3, as DynamoDB writes it: a summary, a list of data files, gzip JSON lines of one item each."""

import gzip
import hashlib
import io
import json
import zlib
from base64 import b64encode
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from botocore.exceptions import BotoCoreError, ClientError

from config.errors import ConfigurationError, LakestreamError
from streaming_job.objects import Bucket, BucketUnreadableError
from streaming_job.operations.snapshot import Part, Read
from streaming_job.operations.source_scan import Item

_ITEMS_AT_ONCE: Final = 1_000
_CHUNK: Final = 1024 * 1024
_MENU: Final = "name the folder that holds manifest-summary.json: s3://bucket/[prefix/]AWSDynamoDB/<export>/"


class ExportUnreadableError(LakestreamError):
    """A file of the export is missing, or is not what its manifest says; the snapshot does not count as whole."""


@dataclass(frozen=True)
class DataFile:
    name: str
    items: int
    md5: str
    """Of the file as it lies there, base64."""


@dataclass(frozen=True)
class Export:
    client: Any
    bucket: Bucket
    table: str
    taken_ms: int
    """The moment the export shows."""
    bytes: int
    items: int
    files: tuple[DataFile, ...]

    @classmethod
    def open(cls, client: Any, address: str, table: str) -> "Export":
        """ConfigurationError where the folder is no full export of this table in DynamoDB JSON."""
        name, _, prefix = address.removeprefix("s3://").partition("/")
        if not address.startswith("s3://") or not name:
            raise ConfigurationError(f"{address} is no address in S3", hint=_MENU)
        bucket = Bucket(client, name)
        folder = f"{prefix.rstrip('/')}/" if prefix.strip("/") else ""
        try:
            summary = json.loads(bucket.body(f"{folder}manifest-summary.json").content)
            _refuse(address, summary, table)
            files = bucket.body(summary["manifestFilesS3Key"]).content
            return cls(
                client=client,
                bucket=bucket,
                table=table,
                taken_ms=round(datetime.fromisoformat(summary["exportTime"]).timestamp() * 1000),
                bytes=int(summary["billedSizeBytes"]),
                items=int(summary["itemCount"]),
                files=tuple(_data_file(json.loads(line)) for line in files.splitlines() if line.strip()),
            )
        except BucketUnreadableError as error:
            raise ConfigurationError(f"{address} is no export that can be read: {error.what}", hint=_MENU) from error
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            raise ConfigurationError(f"{address} has a manifest that is none of DynamoDB's", hint=_MENU) from error

    def reads(self, parts: Mapping[int, Part]) -> Iterator[Read]:
        """What is left of each file, file by file."""
        for number, file in enumerate(self.files):
            part = parts[number]
            if not part.is_ended:
                yield from self._of_file(number, file, int(part.after or 0))

    def _of_file(self, number: int, file: DataFile, done: int) -> Iterator[Read]:
        count, portion = 0, []
        for item in self._items(file):
            count += 1
            if count <= done:
                continue
            portion.append(item)
            if len(portion) == _ITEMS_AT_ONCE:
                yield Read(number, portion, str(count), is_last=False)
                portion = []
        if count != file.items:
            raise self._broken(file, f"it has {count:,} items, its manifest says {file.items:,}")
        yield Read(number, portion, str(count), is_last=True)

    def _items(self, file: DataFile) -> Iterator[Item]:
        try:
            body = _Hashed(self.client.get_object(Bucket=self.bucket.name, Key=file.name)["Body"])
            with gzip.open(io.BufferedReader(body, _CHUNK)) as lines:
                for line in lines:
                    yield json.loads(line)["Item"]
        except ClientError as error:
            raise self._broken(file, error.response.get("Error", {}).get("Code", "unknown")) from error
        except (BotoCoreError, OSError, EOFError, zlib.error) as error:
            raise self._broken(file, str(error) or type(error).__name__) from error
        except (ValueError, LookupError, TypeError):
            raise self._broken(file, "a line is no item") from None
        if body.md5 != file.md5:
            raise self._broken(file, "its MD5 is not its manifest's")

    def _broken(self, file: DataFile, why: str) -> ExportUnreadableError:
        return ExportUnreadableError(
            f"s3://{self.bucket.name}/{file.name}: {why}", hint="take the export again; this needs s3:GetObject on it"
        )


def _refuse(address: str, summary: Mapping[str, Any], table: str) -> None:
    of_table = summary["tableArn"].rpartition("/")[2]
    if of_table != table:
        raise ConfigurationError(f"{address} is an export of {of_table}, not of {table}", hint="name the right one")
    if summary["outputFormat"] != "DYNAMODB_JSON":
        raise ConfigurationError(
            f"{address} is in {summary['outputFormat']}", hint="export the table in DYNAMODB_JSON: Ion has other types"
        )
    if summary.get("exportType", "FULL_EXPORT") != "FULL_EXPORT":
        raise ConfigurationError(
            f"{address} is no full export ({summary['exportType']})", hint="a first load needs every item"
        )


def _data_file(entry: Mapping[str, Any]) -> DataFile:
    return DataFile(entry["dataFileS3Key"], int(entry["itemCount"]), entry["md5Checksum"])


class _Hashed(io.RawIOBase):
    """A body as it streams in, and its MD5 so far."""

    def __init__(self, body: Any) -> None:
        self._body = body
        self._hash = hashlib.md5(usedforsecurity=False)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        chunk: bytes = self._body.read(len(buffer))
        self._hash.update(chunk)
        buffer[: len(chunk)] = chunk
        return len(chunk)

    @property
    def md5(self) -> str:
        return b64encode(self._hash.digest()).decode("ascii")

"""A bucket as whatever reads it sees it: listings in the order of names, whole bodies, errors with their mend."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from botocore.exceptions import BotoCoreError, ClientError

from config.errors import LakestreamError

_Found = TypeVar("_Found")


class BucketUnreadableError(LakestreamError):
    """S3 did not give or take an object: no such bucket, no permission, no answer."""


class ObjectGoneError(BucketUnreadableError):
    """An object that was listed is not there any more, or has another content."""


@dataclass(frozen=True, slots=True)
class Listed:
    name: str
    version: str
    """The ETag: another one is another content."""
    bytes: int
    modified_ms: int
    """When it was put there; S3 dates by the whole second, rounded down."""


@dataclass(frozen=True, slots=True)
class Body:
    content: bytes
    modified_ms: int


class Bucket:
    def __init__(self, client: Any, name: str) -> None:
        self._client = client
        self.name = name

    def listed(self, prefix: str, *, after: str = "") -> Iterator[Listed]:
        """Everything below the prefix whose name comes after another, a page at a time."""
        for page in self._pages(Prefix=prefix, **({"StartAfter": after} if after else {})):
            for entry in page.get("Contents", ()):
                yield Listed(entry["Key"], entry["ETag"], entry["Size"], _ms(entry.get("LastModified")))

    def level(self, prefix: str) -> Iterator[str]:
        """Names just below the prefix; those of folders end in a slash."""
        for page in self._pages(Prefix=prefix, Delimiter="/"):
            yield from (folder["Prefix"] for folder in page.get("CommonPrefixes", ()))
            yield from (entry["Key"] for entry in page.get("Contents", ()))

    def body(self, name: str, version: str | None = None) -> Body:
        """The whole object; ObjectGoneError where it is no longer there, or no longer of that version."""
        condition = {"IfMatch": version} if version else {}

        def get() -> Body:
            answer = self._client.get_object(Bucket=self.name, Key=name, **condition)
            return Body(answer["Body"].read(), _ms(answer.get("LastModified")))

        return self._said(name, get)

    def put(self, name: str, body: bytes) -> None:
        """Whole or not at all, in place of what had this name."""
        self._said(name, lambda: self._client.put_object(Bucket=self.name, Key=name, Body=body))

    def delete(self, name: str) -> None:
        """Harmless where it is gone."""
        self._said(name, lambda: self._client.delete_object(Bucket=self.name, Key=name))

    def _pages(self, **wanted: str) -> Iterator[dict[str, Any]]:
        pages = iter(self._client.get_paginator("list_objects_v2").paginate(Bucket=self.name, **wanted))
        while (page := self._said(wanted["Prefix"], lambda: next(pages, None))) is not None:
            yield page

    def _said(self, what: str, ask: Callable[[], _Found]) -> _Found:
        place = f"s3://{self.name}/{what}"
        try:
            return ask()
        except ClientError as error:
            code = error.response.get("Error", {}).get("Code", "unknown")
            kind = ObjectGoneError if code in _GONE else BucketUnreadableError
            raise kind(f"{place}: {code}", hint=_MENDS.get(code)) from error
        except BotoCoreError as error:
            raise BucketUnreadableError(
                f"{place}: {type(error).__name__}", hint="check endpoint, region, credentials"
            ) from error


def _ms(moment: Any) -> int:
    return round(moment.timestamp() * 1000) if moment is not None else 0


_GONE: Final = frozenset({"NoSuchKey", "PreconditionFailed", "404"})
_MENDS: Final = {
    "NoSuchBucket": "check `bucket` in the configuration, or name one with --bucket",
    "AccessDenied": "this needs s3:ListBucket on the bucket, s3:GetObject or PutObject on the objects, and their key",
    "InvalidObjectState": "it lies in an archive class: restore it, or begin later",
    "PreconditionFailed": "an object was replaced meanwhile; ask again",
}

"""Dead letters as they lie in S3: the bridge's, one record each, and the mapping's, a whole batch that was given up."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from botocore.exceptions import BotoCoreError, ClientError

from bridge_lambda.envelope import origin_of
from bridge_lambda.errors import PoisonRecordError
from config.errors import LakestreamError
from config.limits import SEQUENCE_DIGITS

RECEIPTS: Final = "redriven/"
_MENDS: Final = {
    "NoSuchBucket": "check `bucket` in the configuration",
    "AccessDenied": "take the stack's redrive role: with the bridge it is the only one that may read dead letters",
}


class LettersUnreachableError(LakestreamError):
    """S3 did not list, give, or take something; what was redriven before is marked."""


class NotALetterError(LakestreamError):
    """An object under the dead letters' prefix that neither the bridge nor a mapping wrote."""


@dataclass(frozen=True, slots=True)
class Place:
    bucket: str
    prefix: str


@dataclass(frozen=True, slots=True, order=True)
class Order:
    """When a change happened: sequence numbers order the changes of one key within one stream."""

    table: str
    generation: str
    sequence: str


@dataclass(frozen=True, slots=True)
class Letter:
    place: Place
    name: str
    version: str
    """The ETag: a letter that was written anew meanwhile is another."""
    reason: str
    records: Sequence[Any]
    is_batch: bool
    bytes: int

    @property
    def order(self) -> Order:
        return min((order_of(record) for record in self.records), default=Order("", "", ""))


def order_of(record: Any) -> Order:
    """Records too broken to tell come first; their place matters to nobody."""
    try:
        table, generation = origin_of(record["eventSourceARN"])
        return Order(table, generation, record["dynamodb"]["SequenceNumber"].zfill(SEQUENCE_DIGITS))
    except (PoisonRecordError, LookupError, TypeError, AttributeError):
        return Order("", "", "")


class Letters:
    def __init__(self, client: Any, places: Sequence[Place]) -> None:
        self._client = client
        self._places = places

    def names(self) -> Iterator[tuple[Place, str]]:
        """A place within another is listed once, with the other."""
        seen: set[tuple[str, str]] = set()
        for place in self._places:
            for name in self._listed(place):
                if (place.bucket, name) not in seen:
                    seen.add((place.bucket, name))
                    yield place, name

    def read(self, place: Place, name: str) -> Letter | None:
        """None where it is gone: somebody else redrove it."""
        try:
            answer = self._client.get_object(Bucket=place.bucket, Key=name)
            body: bytes = answer["Body"].read()
        except ClientError as error:
            if error.response.get("Error", {}).get("Code") == "NoSuchKey":
                return None
            raise _unreachable(place, error) from error
        except BotoCoreError as error:
            raise _unreachable(place, error) from error
        reason, records, is_batch = _opened(body, f"s3://{place.bucket}/{name}")
        return Letter(place, name, answer["ETag"], reason, records, is_batch, len(body))

    def finish(self, letter: Letter, receipt: Mapping[str, Any]) -> None:
        """First the receipt, then the letter goes: cut off between them, it is sent once more, which is harmless."""
        receipt_name = f"{RECEIPTS}{letter.name}"
        body = {"v": 1, "letter": letter.name, "version": letter.version, "reason": letter.reason, **receipt}
        try:
            self._client.put_object(
                Bucket=self._places[0].bucket,
                Key=receipt_name,
                Body=json.dumps(body).encode(),
                ContentType="application/json",
            )
            self._client.delete_object(Bucket=letter.place.bucket, Key=letter.name)
        except (ClientError, BotoCoreError) as error:
            raise _unreachable(letter.place, error) from error

    def _listed(self, place: Place) -> Iterator[str]:
        pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=place.bucket, Prefix=place.prefix)
        try:
            for page in pages:
                yield from (entry["Key"] for entry in page.get("Contents", ()))
        except (ClientError, BotoCoreError) as error:
            raise _unreachable(place, error) from error


def _opened(body: bytes, name: str) -> tuple[str, Sequence[Any], bool]:
    """Reason, records, and whether it is a batch. Numbers are strings in DynamoDB's JSON, so nothing is rounded."""
    try:
        document = json.loads(body)
        if "record" in document:
            return str(document["reason"]), [document["record"]], False
        context = document["requestContext"]
        records = json.loads(document["payload"])["Records"]
        if isinstance(records, list):
            return str(context["condition"]), records, True
    except (ValueError, LookupError, TypeError):
        pass
    raise NotALetterError(f"{name} is no dead letter", hint="neither bridge nor mapping wrote it; look at it, move it")


def _unreachable(place: Place, error: Exception) -> LettersUnreachableError:
    code = error.response.get("Error", {}).get("Code", "") if isinstance(error, ClientError) else type(error).__name__
    return LettersUnreachableError(f"s3://{place.bucket}/{place.prefix}: {code}", hint=_MENDS.get(code))

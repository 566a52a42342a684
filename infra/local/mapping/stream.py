"""The DynamoDB stream, read as Lambda reads it: shards, iterators, pages."""

from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Protocol

import orjson

from config.errors import LakestreamError
from infra.local import worker
from infra.local.lineage import Shard
from infra.local.mapping.event import Change, encode

PAGE_RECORDS_MAX = 1000
PAGE_BYTES_MAX = 1024 * 1024
"""Of one GetRecords call on a DynamoDB stream."""


class StreamGoneError(LakestreamError):
    exit_code = 4


class TrimmedError(Exception):
    """The position is older than anything the stream still holds."""


class ExpiredError(Exception):
    """The iterator is too old, or the stream no longer knows it: get another."""


@dataclass(frozen=True, slots=True)
class Page:
    changes: tuple[Change, ...]
    next_iterator: str | None
    """None: the shard is closed, and this was its end."""

    @property
    def is_full(self) -> bool:
        """A page half as large as a page can be is seldom the last: read on instead of waiting for the next poll."""
        size = sum(len(change.encoded) for change in self.changes)
        return len(self.changes) >= PAGE_RECORDS_MAX // 2 or size >= PAGE_BYTES_MAX // 2


class Stream(Protocol):
    def shards(self) -> list[Shard]: ...

    def iterator(self, shard: str, *, after: str | None, start: str) -> str:
        """Just after a sequence number, or at `start` (TRIM_HORIZON, LATEST)."""

    def page(self, iterator: str) -> Page: ...


class DynamoDbStream:
    """Errors that pass are raised as the client raises them; the reader retries what `worker.is_passing` says."""

    def __init__(
        self, client: Any, arn: str, *, identified: Callable[[dict[str, Any]], dict[str, Any]] = lambda record: record
    ) -> None:
        """`identified` says who made a change, where the stream itself does not."""
        self._client = client
        self._arn = arn
        self._identified = identified
        # botocore takes an item apart attribute by attribute, only for it to be put together again.
        client.meta.events.register("before-parse.dynamodb-streams.GetRecords", _keep_body)

    def shards(self) -> list[Shard]:
        shards: list[Shard] = []
        request: dict[str, str] = {"StreamArn": self._arn}
        while True:
            try:
                description = self._client.describe_stream(**request)["StreamDescription"]
            except worker.ServiceError as error:
                raise self._translated(error) from error
            shards += [_shard(shard) for shard in description["Shards"]]
            last = description.get("LastEvaluatedShardId")
            if not last:
                return shards
            request["ExclusiveStartShardId"] = last

    def iterator(self, shard: str, *, after: str | None, start: str) -> str:
        place = (
            {"ShardIteratorType": start}
            if after is None
            else {"ShardIteratorType": "AFTER_SEQUENCE_NUMBER", "SequenceNumber": after}
        )
        try:
            answer = self._client.get_shard_iterator(StreamArn=self._arn, ShardId=shard, **place)
        except worker.ServiceError as error:
            raise self._translated(error) from error
        return str(answer["ShardIterator"])

    def page(self, iterator: str) -> Page:
        try:
            answer = self._client.get_records(ShardIterator=iterator, Limit=PAGE_RECORDS_MAX)["Body"]
        except worker.ServiceError as error:
            raise self._translated(error) from error
        changes = tuple(encode(self._identified(record), stream_arn=self._arn) for record in answer["Records"])
        return Page(changes, answer.get("NextShardIterator"))

    def _translated(self, error: Exception) -> Exception:
        match worker.error_code(error):
            case "TrimmedDataAccessException":
                return TrimmedError(worker.one_line(error))
            case "ExpiredIteratorException":
                return ExpiredError(worker.one_line(error))
            case "ResourceNotFoundException":
                return StreamGoneError(
                    f"the stream {self._arn} does not exist",
                    hint="was the table's stream disabled or the table made anew? deploy the mapping again",
                )
            case _ if worker.is_passing(error):
                return error
            case _:
                return LakestreamError(f"the stream {self._arn} cannot be read: {worker.one_line(error)}")


def _keep_body(response_dict: dict[str, Any], customized_response_dict: dict[str, Any], **_: Any) -> None:
    if response_dict["status_code"] == HTTPStatus.OK:
        customized_response_dict["Body"] = orjson.loads(response_dict["body"])
        response_dict["body"] = b"{}"


def _shard(description: dict[str, Any]) -> Shard:
    parent = description.get("ParentShardId")
    return Shard(
        id=description["ShardId"],
        parents=(parent,) if parent else (),
        closed="EndingSequenceNumber" in description.get("SequenceNumberRange", {}),
    )

"""The Kinesis stream, read as Firehose reads it: once a second for each shard, parents before children."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from config.errors import LakestreamError
from config.limits import KINESIS_GET_RECORDS_MAX
from infra.local import worker
from infra.local.delivery.framing import Record
from infra.local.lineage import Shard


class SourceError(LakestreamError):
    exit_code = 4


@dataclass(frozen=True, slots=True)
class Page:
    records: Sequence[Record]
    next_iterator: str | None
    behind_ms: int


class KinesisStream:
    def __init__(self, client: Any, name: str) -> None:
        self._client = client
        self._name = name

    def created(self) -> str:
        """Tells a stream from an older one of the same name."""
        summary = self._call("describe_stream_summary", StreamName=self._name)["StreamDescriptionSummary"]
        return str(summary["StreamCreationTimestamp"].timestamp())

    def shards(self) -> list[Shard]:
        shards: list[Shard] = []
        request = {"StreamName": self._name}
        while True:
            answer = self._call("list_shards", **request)
            shards += [_shard(shard) for shard in answer["Shards"]]
            if not (token := answer.get("NextToken")):
                return shards
            request = {"NextToken": token}

    def iterator(self, shard: str, *, after: str | None, start: str) -> str:
        if after is None:
            return self._iterator(shard, ShardIteratorType=start)
        return self._iterator(shard, ShardIteratorType="AFTER_SEQUENCE_NUMBER", StartingSequenceNumber=after)

    def iterator_at(self, shard: str, sequence: str) -> str:
        return self._iterator(shard, ShardIteratorType="AT_SEQUENCE_NUMBER", StartingSequenceNumber=sequence)

    def _iterator(self, shard: str, **place: str) -> str:
        return str(self._call("get_shard_iterator", StreamName=self._name, ShardId=shard, **place)["ShardIterator"])

    def page(self, iterator: str) -> Page:
        answer = self._call("get_records", ShardIterator=iterator, Limit=KINESIS_GET_RECORDS_MAX)
        records = [
            Record(record["SequenceNumber"], record["ApproximateArrivalTimestamp"], record["Data"])
            for record in answer["Records"]
        ]
        return Page(records, answer.get("NextShardIterator"), answer.get("MillisBehindLatest", 0))

    def _call(self, operation: str, **request: Any) -> dict[str, Any]:
        try:
            answer: dict[str, Any] = getattr(self._client, operation)(**request)
        except worker.ServiceError as error:
            if worker.error_code(error) == "ResourceNotFoundException":
                raise SourceError(f"there is no stream {self._name!r}", hint="deploy it, or name another") from error
            if worker.is_passing(error) or worker.error_code(error) == "ExpiredIteratorException":
                raise
            raise SourceError(f"the stream {self._name!r} cannot be read: {worker.one_line(error)}") from error
        return answer


def _shard(description: dict[str, Any]) -> Shard:
    parents = (description.get("ParentShardId"), description.get("AdjacentParentShardId"))
    return Shard(
        id=description["ShardId"],
        parents=tuple(parent for parent in parents if parent),
        closed="EndingSequenceNumber" in description.get("SequenceNumberRange", {}),
    )

"""A table's own stream, read beside the bridge: DynamoDB admits two readers of a shard, and does not say where it ends.

An empty answer here and there is normal; a shard counts as read to its end after a row of them.
"""

from collections.abc import Sequence
from typing import Any, Final

EMPTY_ANSWERS: Final = 10
_RECORDS_AT_ONCE: Final = 1_000


class ShardReader:
    """From the oldest record there is."""

    def __init__(self, client: Any, arn: str, shard: str) -> None:
        self._client = client
        answer = client.get_shard_iterator(StreamArn=arn, ShardId=shard, ShardIteratorType="TRIM_HORIZON")
        self._iterator: str | None = answer["ShardIterator"]
        self._empty = 0

    @property
    def is_closed(self) -> bool:
        """Nothing will follow."""
        return self._iterator is None

    @property
    def is_at_end(self) -> bool:
        return self.is_closed or self._empty >= EMPTY_ANSWERS

    def begin_again(self) -> None:
        """At the end of a while ago something may have come since."""
        self._empty = 0

    def read(self) -> Sequence[dict[str, Any]]:
        if self._iterator is None:
            return ()
        answer = self._client.get_records(ShardIterator=self._iterator, Limit=_RECORDS_AT_ONCE)
        records: Sequence[dict[str, Any]] = answer["Records"]
        self._iterator = answer.get("NextShardIterator")
        self._empty = 0 if records else self._empty + 1
        return records


def shards_of(client: Any, arn: str) -> list[str]:
    found: list[str] = []
    more: dict[str, str] = {}
    while True:
        answer = client.describe_stream(StreamArn=arn, **more)["StreamDescription"]
        found += [shard["ShardId"] for shard in answer["Shards"]]
        if "LastEvaluatedShardId" not in answer:
            return found
        more = {"ExclusiveStartShardId": answer["LastEvaluatedShardId"]}

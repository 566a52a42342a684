"""Where botocore's own way with items is gone round, the emulator and the bridge's mapping see the same items."""

import json
from pathlib import Path
from typing import Any

import pytest

from infra.local.lean_puts import writing_items_as_they_are
from infra.local.mapping.stream import DynamoDbStream
from tests.support.local_workers import running_emulator

pytestmark = pytest.mark.stack

BINARY = {"B": "AP8="}
ITEM: dict[str, Any] = {
    "id": {"S": "ünï 🚗 \n"},
    "number": {"N": "12345678901234567890123456789012345678"},
    "list": {"L": [{"M": {"on": {"BOOL": True}}}, {"NULL": True}, {"SS": ["a", "b"]}]},
}


def test_a_lean_put_writes_the_item_and_the_mapping_reads_it_as_it_was_sent(tmp_path: Path) -> None:
    with running_emulator(tmp_path) as aws:
        client, arn = aws("dynamodb"), aws.table("things")
        lean = writing_items_as_they_are(aws("dynamodb"))
        lean.put_item(TableName="things", Item={**ITEM, "binary": BINARY})
        found = client.get_item(TableName="things", Key={"id": ITEM["id"]})["Item"]
        assert found == {**ITEM, "binary": {"B": b"\x00\xff"}}

        stream = DynamoDbStream(aws("dynamodbstreams"), arn)
        [shard] = stream.shards()
        [change] = stream.page(stream.iterator(shard.id, after=None, start="TRIM_HORIZON")).changes
        assert json.loads(change.encoded)["dynamodb"]["NewImage"] == {**ITEM, "binary": BINARY}

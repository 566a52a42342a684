"""The most an emulator gives: GetRecords' answers received and thrown away."""

import json
import time
from dataclasses import dataclass

import urllib3

from config.limits import KINESIS_GET_RECORDS_MAX
from tests.faults.kinesis_servers import REGION, client


@dataclass(frozen=True)
class Received:
    rows: int
    seconds: float

    @property
    def rows_per_s(self) -> int:
        return round(self.rows / self.seconds)


def read_to_the_tip(endpoint: str, stream: str) -> Received:
    """From trim_horizon; of an answer only the next iterator is looked for, behind the records."""
    kinesis = client(endpoint)
    pool = urllib3.PoolManager()
    headers = {"Content-Type": "application/x-amz-json-1.1", "X-Amz-Target": "Kinesis_20131202.GetRecords"}
    headers["Authorization"] = f"AWS4-HMAC-SHA256 Credential=test/20260101/{REGION}/kinesis/aws4_request"
    began, rows = time.monotonic(), 0
    for shard in kinesis.list_shards(StreamName=stream)["Shards"]:
        first = {"StreamName": stream, "ShardId": shard["ShardId"], "ShardIteratorType": "TRIM_HORIZON"}
        iterator: str | None = kinesis.get_shard_iterator(**first)["ShardIterator"]
        while iterator:
            asked = json.dumps({"ShardIterator": iterator, "Limit": KINESIS_GET_RECORDS_MAX})
            body = pool.request("POST", endpoint, body=asked, headers=headers).data
            found = body.count(b'"SequenceNumber"')
            rows += found
            iterator = json.loads(b"{" + body[body.rindex(b'"NextShardIterator"') :])["NextShardIterator"]
            if not found:
                break
    return Received(rows, time.monotonic() - began)

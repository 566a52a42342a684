"""A Kinesis for reading alone that costs next to nothing: what a reader takes of it is the reader's own limit.

`python -m tests.bench.quick_kinesis --records 500000 --bytes 1024 --shards 4` prints its port. Its records differ in
sequence number, arrival and partition key only, so that an answer is written by formatting, not by encoding.
"""

import argparse
import base64
import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from config.limits import KINESIS_GET_RECORDS_MAX

ARRIVALS_A_SECOND = 10_000
ANSWER_BYTES_MAX = 10 * 1024 * 1024


@dataclass(frozen=True)
class Shard:
    """So many records, evenly over time; record `n` has sequence number `FIRST_SEQUENCE + n`."""

    count: int
    began_s: float
    each_s: float

    def first_at(self, at_s: float) -> int:
        return min(self.count, max(0, -int(-(at_s - self.began_s) // self.each_s)))

    def arrival_s(self, number: int) -> float:
        return self.began_s + number * self.each_s


FIRST_SEQUENCE = 10**20


class Stream:
    def __init__(self, records: int, record_bytes: int, shards: int) -> None:
        began_s = time.time() - records / ARRIVALS_A_SECOND
        each_s = shards / ARRIVALS_A_SECOND
        self.shards = {f"shardId-{n:012d}": Shard(records // shards, began_s, each_s) for n in range(shards)}
        self.created_s = round(began_s) - 60
        data = base64.b64encode(b"x" * record_bytes)
        self._record = (
            b'{"SequenceNumber":"%d","ApproximateArrivalTimestamp":%.3f,"Data":"' + data + b'","PartitionKey":"key-%d"}'
        )
        self._page = min(KINESIS_GET_RECORDS_MAX, ANSWER_BYTES_MAX // record_bytes)

    def answer(self, operation: str, request: dict[str, Any]) -> bytes:
        if operation == "GetRecords":
            return self._records(request)
        return json.dumps(getattr(self, operation)(request)).encode()

    def DescribeStreamSummary(self, request: dict[str, Any]) -> dict[str, Any]:  # noqa: N802 - the service's names
        name = request["StreamName"]
        summary = {
            "StreamName": name,
            "StreamARN": f"arn:aws:kinesis:us-east-1:000000000000:stream/{name}",
            "StreamStatus": "ACTIVE",
            "StreamCreationTimestamp": self.created_s,
            "RetentionPeriodHours": 24,
            "OpenShardCount": len(self.shards),
            "EnhancedMonitoring": [],
        }
        return {"StreamDescriptionSummary": summary}

    def ListShards(self, _: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        hashes = {"StartingHashKey": "0", "EndingHashKey": "1"}
        sequences = {"StartingSequenceNumber": str(FIRST_SEQUENCE)}
        return {
            "Shards": [{"ShardId": s, "HashKeyRange": hashes, "SequenceNumberRange": sequences} for s in self.shards]
        }

    def GetShardIterator(self, request: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        shard = self.shards[request["ShardId"]]
        at = request.get("StartingSequenceNumber", FIRST_SEQUENCE)
        places: dict[str, Callable[[], int]] = {
            "TRIM_HORIZON": lambda: 0,
            "LATEST": lambda: shard.count,
            "AT_TIMESTAMP": lambda: shard.first_at(float(request["Timestamp"])),
            "AT_SEQUENCE_NUMBER": lambda: int(at) - FIRST_SEQUENCE,
            "AFTER_SEQUENCE_NUMBER": lambda: int(at) - FIRST_SEQUENCE + 1,
        }
        number = places[request["ShardIteratorType"]]()
        return {"ShardIterator": f"{request['ShardId']}/{number}"}

    def _records(self, request: dict[str, Any]) -> bytes:
        name, number = request["ShardIterator"].split("/")
        shard, first = self.shards[name], int(number)
        end = min(shard.count, first + min(self._page, request.get("Limit", self._page)))
        behind_ms = int((time.time() - shard.arrival_s(end)) * 1000) if end < shard.count else 0
        record = self._record
        return b'{"Records":[%b],"NextShardIterator":"%b","MillisBehindLatest":%d}' % (
            b",".join([record % (FIRST_SEQUENCE + n, shard.arrival_s(n), n % 997) for n in range(first, end)]),
            f"{name}/{end}".encode(),
            behind_ms,
        )


def handler(stream: Stream) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            body = stream.answer(self.headers["X-Amz-Target"].rpartition(".")[2], request)
            self.send_response(200)
            self.send_header("Content-Type", "application/x-amz-json-1.1")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Nobody reads it."""

    return Handler


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, required=True)
    parser.add_argument("--bytes", type=int, required=True, dest="record_bytes")
    parser.add_argument("--shards", type=int, required=True)
    given = parser.parse_args()
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler(Stream(given.records, given.record_bytes, given.shards)))
    server.daemon_threads = True
    sys.stdout.write(f"{server.server_port}\n")
    sys.stdout.flush()
    server.serve_forever()


if __name__ == "__main__":
    main()

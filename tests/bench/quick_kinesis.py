"""A Kinesis for reading alone that costs next to nothing: what a reader takes of it is the reader's own limit.

`python -m tests.bench.quick_kinesis --records 500000 --bytes 1024 --shards 4` prints its port. Its records hold the
same bytes, or with `--lines FILE` one line each; they are encoded before it answers, so that an answer is written by
formatting alone.
"""

import argparse
import base64
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from config.limits import KINESIS_GET_RECORDS_MAX
from tests.faults.kinesis_servers import ROOT

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
_RECORD = b'{"SequenceNumber":"%d","ApproximateArrivalTimestamp":%.3f,"Data":"%b","PartitionKey":"key-%d"}'


class Stream:
    def __init__(self, records: int, data: Sequence[bytes], shards: int) -> None:
        """Record `n` of a shard holds the shard's `n`-th of `data`, which begins anew where it ends."""
        began_s = time.time() - records / ARRIVALS_A_SECOND
        each_s = shards / ARRIVALS_A_SECOND
        self.shards = {f"shardId-{n:012d}": Shard(records // shards, began_s, each_s) for n in range(shards)}
        self.created_s = round(began_s) - 60
        encoded = list(map(base64.b64encode, data))
        self._data = {name: encoded[n::shards] or encoded for n, name in enumerate(self.shards)}
        self._page = min(KINESIS_GET_RECORDS_MAX, ANSWER_BYTES_MAX * len(data) // sum(map(len, data)))

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
        data = self._data[name]
        return b'{"Records":[%b],"NextShardIterator":"%b","MillisBehindLatest":%d}' % (
            b",".join(
                [
                    _RECORD % (FIRST_SEQUENCE + n, shard.arrival_s(n), data[n % len(data)], n % 997)
                    for n in range(first, end)
                ]
            ),
            f"{name}/{end}".encode(),
            behind_ms,
        )


@contextmanager
def serving(data: int | Path, records: int, shards: int) -> Iterator[str]:
    """Its endpoint, in a process of its own; `data` are the bytes of a record, or a file with one a line."""
    kind = "--lines" if isinstance(data, Path) else "--bytes"
    words = [str(word) for word in (kind, data, "--records", records, "--shards", shards)]
    command = [sys.executable, "-m", "tests.bench.quick_kinesis", *words]
    server = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        yield f"http://127.0.0.1:{int(server.stdout.readline())}" if server.stdout else ""
    finally:
        server.kill()
        server.wait(10)


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
    parser.add_argument("--shards", type=int, required=True)
    data = parser.add_mutually_exclusive_group(required=True)
    data.add_argument("--bytes", type=int, dest="record_bytes")
    data.add_argument("--lines", type=Path)
    given = parser.parse_args()
    lines = given.lines.read_bytes().splitlines(keepends=True) if given.lines else [b"x" * given.record_bytes]
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler(Stream(given.records, lines, given.shards)))
    server.daemon_threads = True
    sys.stdout.write(f"{server.server_port}\n")
    sys.stdout.flush()
    server.serve_forever()


if __name__ == "__main__":
    main()

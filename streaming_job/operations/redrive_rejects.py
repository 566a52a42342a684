"""Records that the job rejected, once more into Kinesis as they were: for a decoder that has learnt since, or a claim
check that was put back.

The table `rejects` keeps what it has. A receipt in S3 says what was sent, by the record's hash and our version: each
release gets each reject once, and one that is rejected again is not sent again.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from importlib.metadata import version
from typing import Any, Final, Protocol

import pyarrow as pa
from botocore.exceptions import BotoCoreError, ClientError
from deltalake import DeltaTable, QueryBuilder

from bridge_lambda.envelope import partition_key
from bridge_lambda.errors import BridgeError
from bridge_lambda.publisher import Clock, Entry, RecordPublisher, publish
from streaming_job.operations.archive_numbers import key_as_written
from streaming_job.operations.redrive import PATIENCE_MS, RedriveStoppedError, Report
from streaming_job.operations.redrive_letters import RECEIPTS, LettersUnreachableError

_COLUMNS: Final = ("_sha256", "_reason", "_table", "_data")
_AT_ONCE: Final = 500


@dataclass(frozen=True, slots=True)
class Reject:
    sha256: str
    reason: str
    table: str | None
    data: bytes


class RejectRows(Protocol):
    def rows(self) -> Iterator[Reject]:
        """All of them, without holding them together."""
        ...


class DeltaRejects:
    """By path, without Spark."""

    def __init__(self, path: str, storage: Mapping[str, str] | None = None) -> None:
        self._path = path
        self._storage = dict(storage or {})

    def rows(self) -> Iterator[Reject]:
        if not DeltaTable.is_deltatable(self._path, self._storage):
            return
        columns = ", ".join(_COLUMNS)
        found = QueryBuilder().register("rejects", DeltaTable(self._path, storage_options=self._storage))
        for batch in found.execute(f"SELECT {columns} FROM rejects ORDER BY _arrival_ms"):  # noqa: S608 - ours
            for row in pa.record_batch(batch).to_pylist():
                yield _reject(row)


class SparkRejects:
    """By name, in a catalog."""

    def __init__(self, spark: Any, name: str) -> None:
        self._spark = spark
        self._name = name

    def rows(self) -> Iterator[Reject]:
        if not self._spark.catalog.tableExists(self._name):
            return
        for row in self._spark.table(self._name).orderBy("_arrival_ms").select(*_COLUMNS).toLocalIterator():
            yield _reject(row.asDict())


def _reject(row: dict[str, Any]) -> Reject:
    data = bytes(row["_data"] or b"")
    return Reject(row["_sha256"] or sha256(data).hexdigest(), row["_reason"] or "unknown", row["_table"], data)


@dataclass(frozen=True, slots=True)
class _Line:
    """A record as it was, to be sent under the key it was sent under."""

    partition_key: str
    data: bytes

    @property
    def cost(self) -> int:
        return len(self.data) + len(self.partition_key.encode())

    def line(self, _bridge_out_ms: int) -> bytes:
        return self.data


def line_of(reject: Reject) -> _Line:
    """What is no envelope has no key whose order could matter."""
    try:
        key = key_as_written(reject.data.decode())
    except (ValueError, LookupError, TypeError, AttributeError):
        key = reject.sha256
    return _Line(partition_key(key), reject.data)


class Receipts:
    """What was sent by this release."""

    def __init__(self, client: Any, bucket: str) -> None:
        self._client = client
        self._bucket = bucket
        self._prefix = f"{RECEIPTS}rejects/{version('lakestream')}/"

    def known(self) -> set[str]:
        pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=self._bucket, Prefix=self._prefix)
        try:
            return {
                entry["Key"].removeprefix(self._prefix).removesuffix(".json")
                for page in pages
                for entry in page.get("Contents", ())
            }
        except (ClientError, BotoCoreError) as error:
            raise _unreachable(self._bucket, error) from error

    def add(self, reject: Reject, now_ms: int) -> None:
        body = {"v": 1, "sha256": reject.sha256, "reason": reject.reason, "table": reject.table, "redriven_ms": now_ms}
        name = f"{self._prefix}{reject.sha256}.json"
        try:
            self._client.put_object(
                Bucket=self._bucket, Key=name, Body=json.dumps(body).encode(), ContentType="application/json"
            )
        except (ClientError, BotoCoreError) as error:
            raise _unreachable(self._bucket, error) from error


def _unreachable(bucket: str, error: Exception) -> LettersUnreachableError:
    return LettersUnreachableError(
        f"receipts in s3://{bucket}/{RECEIPTS}: {' '.join(str(error).split())}",
        hint="this needs s3:ListBucket and s3:PutObject there",
    )


@dataclass
class RedriveRejects:
    rejects: RejectRows
    receipts: Receipts
    publisher: RecordPublisher
    clock: Clock
    show: Callable[[int, int | None], None] = lambda _done, _all: None
    dry_run: bool = False
    again: bool = False
    """Also what this release has sent before."""
    report: Report = field(default_factory=Report)

    def run(self) -> Report:
        seen = set() if self.again else self.receipts.known()
        portion: list[Reject] = []
        for reject in self.rejects.rows():
            if reject.sha256 in seen:
                continue
            seen.add(reject.sha256)
            portion.append(reject)
            if len(portion) == _AT_ONCE:
                self._send(portion)
                portion = []
        self._send(portion)
        return self.report

    def _send(self, rejects: Sequence[Reject]) -> None:
        self.report.letters += len(rejects)
        refused: dict[int, BridgeError] = {}
        sent = len(rejects)
        problem: BridgeError | None = None
        if rejects and not self.dry_run:
            deadline_ms = self.clock.elapsed_ms() + PATIENCE_MS
            published = publish(
                [Entry(index, line_of(reject)) for index, reject in enumerate(rejects)],
                self.publisher,
                clock=self.clock,
                remaining_ms=lambda: deadline_ms - self.clock.elapsed_ms(),
                condemn=lambda entry, error: refused.update({entry.index: error}),
            )
            sent = len(rejects) if published.unsent is None else published.unsent
            problem = published.problem
        for index, reject in enumerate(rejects[:sent]):
            if index in refused:
                self.report.keep("refused-by-kinesis", reject.sha256, str(refused[index]))
            else:
                self._done(reject)
        self.show(self.report.letters, None)
        if sent < len(rejects):
            raise RedriveStoppedError(
                f"after {self.report.redriven} rejects: {problem.what if problem else 'no time left'}",
                hint=problem.hint if problem else "run it again",
            )

    def _done(self, reject: Reject) -> None:
        self.report.redriven += 1
        self.report.sent += 1
        self.report.by_table[reject.table or "unknown"] += 1
        if not self.dry_run:
            self.receipts.add(reject, self.clock.now_ms())

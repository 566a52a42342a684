"""How far the readers are behind, against what their streams keep.

The job: by the checkpoint's position and the record behind it. The bridge: by what CloudWatch has of whoever
calls it.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

from config.limits import DYNAMODB_STREAM_RETENTION_H, RETENTION_GUARD
from config.settings import Settings
from streaming_job.checkpoint import NO_OFFSET, damaged
from streaming_job.checkpoint import check as check_files
from streaming_job.kinesis.offsets import Kind, Offset, Position, ShardRef
from streaming_job.latency.export import NAMESPACE
from streaming_job.operations.doctor_findings import Finding, note, ok, problem, warning
from streaming_job.places import local_folder

_CONCERN: Final = 0.25
_IN_THE_LAST: Final = timedelta(minutes=15)
_READS_MAX: Final = 20
"""Of empty answers before a record: normal on a quiet stretch."""


def job_lag(settings: Settings, kinesis: Any, now_s: Callable[[], float]) -> Iterator[Finding]:
    if settings.source.connector == "databricks":
        yield note("lag", "the platform's connector keeps its position in a form of its own", _ASK_THE_JOB)
    else:
        yield from Lag(kinesis, now_s).findings(settings.lake.checkpoint)


_ASK_THE_JOB: Final = "ask the job: its lag is at /metrics, and in CloudWatch"


@dataclass(frozen=True, slots=True)
class Lag:
    kinesis: Any
    now_s: Callable[[], float]

    def findings(self, checkpoint: str) -> Iterator[Finding]:
        check = "lag"
        folder = local_folder(checkpoint)
        if folder is None:
            yield note(check, f"{checkpoint} is not on this machine", _ASK_THE_JOB)
            return
        check_files(checkpoint)
        offset = committed(folder)
        if offset is None:
            yield note(check, "no batch was committed yet", "start the job before the stream's retention is over")
            return
        for ref, position in offset.positions().items():
            if not position.is_closed:
                yield from self._of_shard(ref, position, offset)

    def _of_shard(self, ref: ShardRef, position: Position, offset: Offset) -> Iterator[Finding]:
        check = f"lag of {ref}"
        summary = self.kinesis.describe_stream_summary(StreamName=ref.stream)["StreamDescriptionSummary"]
        created_ms = round(summary["StreamCreationTimestamp"].timestamp() * 1000)
        if created_ms != offset.streams[ref.stream].created_ms:
            mend = "verify, then rebuild; start with a new checkpoint"
            yield problem(check, "the stream was made anew since the job last read it: the job will stop", mend)
            return
        oldest_s = self._oldest_unread_s(ref, position)
        if oldest_s is None:
            yield ok(check, "the job has read it to its tip")
            return
        share = (self.now_s() - oldest_s) / (summary["RetentionPeriodHours"] * 3600)
        what = f"the oldest unread record is {(self.now_s() - oldest_s) / 3600:.1f} h old, {share:.0%} of what is kept"
        if share > RETENTION_GUARD:
            mend = (
                "raise the stream's retention now: it keeps what is still there, and brings nothing back; "
                "then see why the job is behind or stopped"
            )
            yield problem(check, what, mend)
        elif share > _CONCERN:
            yield warning(check, what, "is the job running? `/healthz` and its log say")
        else:
            yield ok(check, what)

    def _oldest_unread_s(self, ref: ShardRef, position: Position) -> float | None:
        """When the first record behind the position arrived; None at the tip."""
        iterator = self._iterator(ref, position)
        for _ in range(_READS_MAX):
            answer = self.kinesis.get_records(ShardIterator=iterator, Limit=1)
            if answer["Records"]:
                return float(answer["Records"][0]["ApproximateArrivalTimestamp"].timestamp())
            iterator = answer.get("NextShardIterator")
            if iterator is None or not answer.get("MillisBehindLatest"):
                return None
        return None

    def _iterator(self, ref: ShardRef, position: Position) -> str:
        where: dict[str, Any] = {"ShardIteratorType": "TRIM_HORIZON"}
        if position.kind is Kind.AFTER:
            where = {"ShardIteratorType": "AFTER_SEQUENCE_NUMBER", "StartingSequenceNumber": position.sequence}
        elif position.kind is Kind.AT_MS:
            where = {"ShardIteratorType": "AT_TIMESTAMP", "Timestamp": position.at_ms / 1000}
        answer = self.kinesis.get_shard_iterator(StreamName=ref.stream, ShardId=ref.shard, **where)
        return str(answer["ShardIterator"])


@dataclass(frozen=True, slots=True)
class BridgeLag:
    """The age of what was read last; past the guard the table's stream is about to forget.

    Lambda tells it of its own mappings; where a pipe calls the bridge, the bridge does.
    """

    cloudwatch: Any
    now_s: Callable[[], float]

    def findings(self, table: str, functions: Sequence[str], pipes: Sequence[str] = ()) -> Iterator[Finding]:
        check = f"bridge of {table}"
        for function in functions:
            yield from self._of(check, function, "AWS/Lambda", "IteratorAge", {"FunctionName": function})
        for pipe in pipes:
            yield from self._of(check, pipe, NAMESPACE, "iterator_age_ms", {"service": "bridge", "table": table})

    def _of(
        self, check: str, reader: str, namespace: str, metric: str, dimensions: Mapping[str, str]
    ) -> Iterator[Finding]:
        until = datetime.fromtimestamp(self.now_s(), UTC)
        answer = self.cloudwatch.get_metric_statistics(
            Namespace=namespace,
            MetricName=metric,
            Dimensions=[{"Name": name, "Value": value} for name, value in dimensions.items()],
            StartTime=until - _IN_THE_LAST,
            EndTime=until,
            Period=60,
            Statistics=["Maximum"],
        )
        points = sorted(answer["Datapoints"], key=lambda point: point["Timestamp"])
        if not points:
            yield note(check, f"{reader} read nothing in the last {_IN_THE_LAST.seconds // 60} minutes")
            return
        age_s = points[-1]["Maximum"] / 1000
        share = age_s / (DYNAMODB_STREAM_RETENTION_H * 3600)
        what = f"it reads changes of {age_s / 3600:.1f} h ago, {share:.0%} of what the table's stream keeps"
        if share > RETENTION_GUARD:
            yield problem(
                check, what, "see why the bridge fails or is slow, now: nothing can make that stream keep more"
            )
        elif share > _CONCERN:
            yield warning(
                check, what, "raise Parallelization, BatchSize or MemoryMegabytes; look at the function's errors"
            )
        else:
            yield ok(check, what)


def committed(checkpoint: Path) -> Offset | None:
    """Where Spark's last committed batch ended; None before the first."""
    done = [int(path.name) for path in checkpoint.glob("commits/*") if path.name.isdigit()]
    if not done:
        return None
    file = checkpoint / "offsets" / str(max(done))
    try:
        *_, text = file.read_text(encoding="utf-8").splitlines()
        return None if text == NO_OFFSET else Offset.from_json(json.loads(text))
    except (OSError, ValueError, AttributeError) as error:
        raise damaged(file, error) from error

"""Whether a snapshot would join the stream without a gap: the proof that the stream is read, and how long it may take.

A scanned row is right only together with every change made after it was read. So a snapshot begins when a change of the
stream as it is now has reached `history`: what came after it comes the same way. Where nothing changes, a stream
measured to be empty does, if its mapping reads from the beginning.
"""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final, Protocol

from botocore.exceptions import BotoCoreError, ClientError

from bridge_lambda.envelope import origin_of
from config.errors import ConfigurationError, LakestreamError
from config.tables import TableConfig
from streaming_job.operations.doctor_findings import Finding, Level
from streaming_job.operations.source_stream import ShardReader, shards_of

NOT_PROVEN: Final = 9
_EMPTY_PAUSE_S: Final = 0.2
_LOOK_EVERY_S: Final = 1.0
_PAGE_BYTES: Final = 1024 * 1024
_UNIT_BYTES: Final = 4096
"""What one strongly consistent read unit reads."""
_TAKEN_IN_PER_S: Final = 1_000
"""Rows a writer takes in at least, beside its stream; the progress shows the truth."""
_ITEM_BYTES: Final = 1_000
"""Of an item of a table that does not say its size yet."""


class NotProvenError(LakestreamError):
    """A snapshot now might miss changes for ever; nothing was read."""

    exit_code = NOT_PROVEN


class TooSlowError(LakestreamError):
    """It would take longer than the stream keeps what waits meanwhile."""

    exit_code = NOT_PROVEN


class Past(Protocol):
    """What `history` tells of a table's changes, snapshot rows left out."""

    def has_change(self, generation: str, *, until_ms: int | None = None) -> bool:
        """One of this generation; created by then, where a time is given."""

    def has_newer_than(self, generation: str) -> bool: ...


@dataclass(frozen=True)
class Source:
    """A table as DynamoDB describes it; its counts are some hours old."""

    table: str
    generation: str
    stream_arn: str
    items: int
    bytes: int


def describe(dynamodb: Any, config: TableConfig) -> Source:
    try:
        table = dynamodb.describe_table(TableName=config.table)["Table"]
    except ClientError as error:
        code = error.response.get("Error", {}).get("Code", "unknown")
        if code == "ResourceNotFoundException":
            raise ConfigurationError(
                f"there is no table {config.table}", hint="check its name and aws.region"
            ) from error
        raise ConfigurationError(
            f"cannot describe {config.table}: {code}", hint="this needs dynamodb:DescribeTable"
        ) from error
    except BotoCoreError as error:
        raise ConfigurationError(
            f"DynamoDB does not answer: {type(error).__name__}", hint="check aws.endpoint"
        ) from error
    if not table.get("StreamSpecification", {}).get("StreamEnabled") or "LatestStreamArn" not in table:
        raise ConfigurationError(
            f"{config.table} has no stream that a snapshot could join",
            hint="turn it on with NEW_AND_OLD_IMAGES and deploy the bridge; or read the table with `lakestream pull`",
        )
    arn = table["LatestStreamArn"]
    return Source(
        config.table,
        origin_of(arn).generation,
        arn,
        int(table.get("ItemCount", 0)),
        int(table.get("TableSizeBytes", 0)),
    )


@dataclass(frozen=True)
class Proof:
    source: Source
    past: Past
    streams: Any
    """A client of DynamoDB Streams."""
    mapping: Callable[[], Iterable[Finding]]
    wait_s: float
    say: Callable[[str], None]
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep

    def of_now(self) -> str:
        """How it is proven that every change from now on reaches the lake; NotProvenError where it is not."""
        self._refuse_older_stream()
        end = self.clock() + self.wait_s
        while True:
            if self.past.has_change(self.source.generation):
                return "a change of the stream has reached the lake"
            self.say(f"waiting for a change of {self.source.table} to reach the lake")
            if self._is_read_from_its_beginning() and self._is_empty():
                return "the stream is empty, and is read from its beginning"
            if self.clock() >= end:
                raise self._not_proven("no change of the stream as it is now has reached the lake")
            self.sleep(_LOOK_EVERY_S)

    def of_export(self, taken_ms: int) -> str:
        """The same of every change after the moment an export shows."""
        self._refuse_older_stream()
        if self.past.has_change(self.source.generation, until_ms=taken_ms):
            return "a change from before the export has reached the lake"
        raise self._not_proven(
            "no change from before the export has reached the lake: what came after it may be missing"
        )

    def _refuse_older_stream(self) -> None:
        if self.past.has_newer_than(self.source.generation):
            raise NotProvenError(
                f"the lake holds changes of a newer stream of {self.source.table} than the one it has now",
                hint="is this the right table and region? A table restored or replicated elsewhere gets its own lake",
            )

    def _is_read_from_its_beginning(self) -> bool:
        return all(finding.level in (Level.OK, Level.NOTE) for finding in self.mapping())

    def _not_proven(self, what: str) -> NotProvenError:
        problems = [f"; {finding.check} {finding.what}" for finding in self.mapping() if finding.mend]
        return NotProvenError(
            f"{what}{''.join(problems)}",
            hint="run the job (`lakestream run`), change one item, begin again; `lakestream doctor` says more",
        )

    # --- the stream, measured -----------------------------------------------------------------------------------------

    def _is_empty(self) -> bool:
        """No record in any shard: nothing changed for as long as the stream keeps, 24 hours."""
        try:
            return not any(self._has_records(shard) for shard in shards_of(self.streams, self.source.stream_arn))
        except (ClientError, BotoCoreError) as error:
            self.say(f"the stream cannot be read: {' '.join(str(error).split())}")
            return False

    def _has_records(self, shard: str) -> bool:
        reader = ShardReader(self.streams, self.source.stream_arn, shard)
        while not reader.is_at_end:
            if reader.read():
                return True
            self.sleep(_EMPTY_PAUSE_S)
        return False


# --- how long ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Estimate:
    """Seconds, from the table's own counts."""

    items: int
    reading_s: float
    taking_in_s: float
    retention_h: int

    @property
    def seconds(self) -> float:
        """Both go on at once."""
        return max(self.reading_s, self.taking_in_s)

    def check(self) -> None:
        if self.seconds > self.retention_h * 3600:
            raise TooSlowError(
                f"{self}: changes that wait for it in a stopped job's stream would be lost",
                hint="raise --read-capacity or the stream's retention, load from --export, or say --force",
            )

    def __str__(self) -> str:
        return (
            f"about {self.items:,} items: reading takes about {spoken(self.reading_s)}, taking them in "
            f"{spoken(self.taking_in_s)}; the stream keeps changes for {self.retention_h} h"
        )


def estimate_scan(
    source: Source, *, segments: int, units_per_s: float | None, page_s: float, retention_h: int
) -> Estimate:
    """`page_s`: how long a page of the table takes to read, measured."""
    size = max(source.bytes, source.items * _ITEM_BYTES if not source.bytes else 0)
    reading_s = size / _PAGE_BYTES * page_s / segments
    if units_per_s is not None:
        reading_s = max(reading_s, size / _UNIT_BYTES / units_per_s)
    return Estimate(source.items, reading_s, source.items / _TAKEN_IN_PER_S, retention_h)


def estimate_export(items: int, retention_h: int) -> Estimate:
    """Reading files is never what holds it up."""
    return Estimate(items, 0.0, items / _TAKEN_IN_PER_S, retention_h)


def spoken(seconds: float) -> str:
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    return f"{seconds / 60:.0f} min" if seconds < 5_400 else f"{seconds / 3600:.1f} h"

"""A first load from its request to a plan: what is read, where it goes on, why it is safe, how long it takes."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from bridge_lambda.rules import TableRules
from config.errors import ConfigurationError
from config.settings import BucketSettings, Settings
from config.tables import TableConfig
from streaming_job.aws import client
from streaming_job.objects import Bucket
from streaming_job.operations.doctor_source import Source as DoctorSource
from streaming_job.operations.handing_over import Delivery
from streaming_job.operations.snapshot import Part, Read, Snapshot, State, Written
from streaming_job.operations.snapshot_export import Export
from streaming_job.operations.snapshot_proof import (
    Estimate,
    Past,
    Proof,
    Source,
    describe,
    estimate_export,
    estimate_scan,
)
from streaming_job.operations.source_rules import source_rules
from streaming_job.operations.source_scan import CapacityBudget, key_read, key_written, scan_segments, unreadable
from streaming_job.pipeline.intake import HandOver, Piece

SCAN = "scan"


@dataclass(frozen=True, kw_only=True)
class Request:
    segments: int = 4
    read_capacity_units_per_s: float | None = None
    export: str | None = None
    """The folder of a table export, in place of a Scan."""
    is_resumed: bool = False
    wait_s: float = 60.0
    """For a change to prove that the stream is read."""
    state_file: Path


@dataclass(frozen=True)
class Plan:
    bucket: Bucket
    rules: TableRules
    state: State
    proof: str
    estimate: Estimate
    reads: Callable[[], Iterator[Read]]
    state_file: Path

    def snapshot(self, written: Written) -> Snapshot:
        return Snapshot(
            self.bucket, self.rules, self.state, lambda state: state.keep(self.state_file), written, _now_ms
        )


def hand_all_over(made: Plan, delivery: Delivery, handed: Callable[[], None] = lambda: None) -> None:
    """What earlier runs wrote and the lake has not, then the rest of the source; `handed` after each piece."""
    state = made.state

    def hand_over(piece: str, address: str) -> None:
        delivery.hand_over(
            HandOver(
                id=state.id,
                what="snapshot",
                tables=(state.table,),
                stream=f"snapshot/{state.id}",
                at_ms=state.began_ms,
                part=state.place(piece),
                pieces=(Piece(name=piece, address=address, form="lines"),),
            )
        )
        handed()

    snapshot = made.snapshot(hand_over)
    for piece in delivery.expect(state.pieces):
        hand_over(piece, snapshot.address(piece))
    snapshot.take(made.reads())


def plan(
    settings: Settings, table: TableConfig, request: Request, past: Past, say: Callable[[str], None] = lambda _: None
) -> Plan:
    """Nothing is read of the table before this says yes; every reason not to begin is an error here."""
    bucket = _bucket(settings)
    rules = source_rules(settings, table.table)
    dynamodb = client(settings.aws, "dynamodb", attempts=8, connections=request.segments + 1)
    source = describe(dynamodb, table)
    s3 = client(settings.aws, "s3")
    export = Export.open(s3, request.export, table.table) if request.export is not None else None
    state = _state(request, source, rules, export)
    proof = Proof(
        source,
        past,
        client(settings.aws, "dynamodbstreams"),
        lambda: DoctorSource(settings, lambda service: client(settings.aws, service)).mapping(table),
        request.wait_s,
        say,
    )
    proven = proof.of_export(export.taken_ms) if export is not None else proof.of_now()
    retention_h = _retention_h(settings)
    if export is not None:
        estimate, reads = estimate_export(export.items, retention_h), lambda: export.reads(state.parts)
    else:
        estimate = estimate_scan(
            source,
            segments=request.segments,
            units_per_s=request.read_capacity_units_per_s,
            page_s=_page_s(dynamodb, table.table),
            retention_h=retention_h,
        )
        reads = lambda: scanned(dynamodb, state, CapacityBudget(request.read_capacity_units_per_s))  # noqa: E731
    return Plan(Bucket(s3, bucket.name), rules, state, proven, estimate, reads, request.state_file)


def _bucket(settings: Settings) -> BucketSettings:
    if settings.bucket is None:
        raise ConfigurationError(
            "a snapshot's rows are archived, and there is no bucket for them",
            hint="add `bucket: {name: …}` to the job's configuration",
        )
    return settings.bucket


def _state(request: Request, source: Source, rules: TableRules, export: Export | None) -> State:
    if request.is_resumed:
        return _resumed(request, source, rules)
    if request.state_file.exists():
        raise ConfigurationError(
            f"a snapshot was begun and is not done: {request.state_file}",
            hint="--resume goes on with it; to begin anew, remove that file",
        )
    now = datetime.now(UTC)
    parts = len(export.files) if export is not None else request.segments
    return State(
        id=f"snapshot-{source.table}-{now:%Y%m%dT%H%M%S}Z",
        table=source.table,
        generation=source.generation,
        rules=rules.label,
        source=request.export or SCAN,
        began_ms=round(now.timestamp() * 1000),
        parts={number: Part() for number in range(parts)},
    )


def _resumed(request: Request, source: Source, rules: TableRules) -> State:
    state = State.load(request.state_file)
    wanted = {"table": source.table, "generation": source.generation, "rules": rules.label}
    wanted["source"] = request.export or SCAN
    for name, value in wanted.items():
        if getattr(state, name) != value:
            raise ConfigurationError(
                f"the snapshot of {request.state_file} has {name} {getattr(state, name)}, now it is {value}",
                hint=f"begin anew: remove {request.state_file}",
            )
    return state


def scanned(dynamodb: Any, state: State, budget: CapacityBudget) -> Iterator[Read]:
    """Strongly consistent: an item read late must not show what it was before the stream began."""
    left = {
        number: key_read(part.after) if part.after is not None else None
        for number, part in state.parts.items()
        if not part.is_ended
    }
    segments = len(state.parts)
    for page in scan_segments(dynamodb, state.table, left, segments=segments, budget=budget, is_consistent=True):
        after = key_written(page.after) if page.after is not None else None
        yield Read(page.segment, page.items, after, is_last=after is None)


def _page_s(dynamodb: Any, table: str) -> float:
    """How long a page takes, measured by the first of them."""
    began = time.monotonic()
    try:
        dynamodb.scan(TableName=table, ConsistentRead=True)
    except (ClientError, BotoCoreError) as error:
        raise unreadable(table, error) from error
    return time.monotonic() - began


def _retention_h(settings: Settings) -> int:
    stream = settings.source.stream
    try:
        summary = client(settings.aws, "kinesis").describe_stream_summary(StreamName=stream)
    except (ClientError, BotoCoreError) as error:
        raise ConfigurationError(
            f"stream {stream} cannot be described: {' '.join(str(error).split())}",
            hint="check source.stream; this needs kinesis:DescribeStreamSummary",
        ) from error
    return int(summary["StreamDescriptionSummary"]["RetentionPeriodHours"])


def _now_ms() -> int:
    return time.time_ns() // 1_000_000

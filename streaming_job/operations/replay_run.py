"""A replay from its request to its end: times checked, material chosen, read, refused or handed over."""

import os
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, Protocol

from config.errors import ConfigurationError
from config.settings import Settings
from config.tables import TableConfig
from streaming_job.aws import client
from streaming_job.objects import Bucket
from streaming_job.operations.archive_objects import Archive, Span
from streaming_job.operations.handing_over import Delivery, Standing, Total
from streaming_job.operations.lake_past import versions_of
from streaming_job.operations.replay import Material, Replay, Sieve
from streaming_job.operations.replay_archive import ArchiveMaterial
from streaming_job.operations.replay_stream import StreamMaterial, refuse_lost_times
from streaming_job.operations.unproven_marks import marks_of
from streaming_job.pipeline.intake import Intake
from streaming_job.spark import spark_session

ARCHIVE: Final = "archive"
TRIM_HORIZON: Final = "trim-horizon"
_NAME: Final = "lakestream replay"


@dataclass(frozen=True)
class From:
    """Where a replay begins, and, of the archive, where it ends."""

    is_archive: bool
    since: datetime | None
    until: datetime | None
    now: datetime
    whole_since_ms: int | None = None
    """What may have been lost before was loaded anew then."""

    @property
    def gaps_since_ms(self) -> int:
        """Marks of gaps stand across its way when they were made from then on."""
        if self.whole_since_ms is not None:
            return self.whole_since_ms
        return _ms(self.since) if self.since is not None else 0

    @property
    def now_ms(self) -> int:
        return _ms(self.now)


@dataclass(frozen=True)
class Request:
    settings: Settings
    tables: dict[str, TableConfig]
    """All of the job's: one writer has them together."""
    sieve: Sieve
    start: From


class Show(Protocol):
    def read(self, done: int, total: int | None) -> None: ...

    def taken(self, standing: Standing) -> None: ...


def span_of(start: str, since: str | None, until: str | None, now: datetime) -> From:
    """ConfigurationError for words and times that cannot be meant."""
    if (since or until) and start != ARCHIVE:
        raise ConfigurationError("--since and --until go with --from archive", hint="or give the time to --from")
    begins = _moment("--since", since)
    if start not in (ARCHIVE, TRIM_HORIZON):
        begins = _moment("--from", start)
    ends = _moment("--until", until)
    if begins is not None and begins > now:
        raise ConfigurationError(f"{begins.isoformat()} is in the future", hint=f"now it is {now:%Y-%m-%dT%H:%MZ}")
    if begins is not None and ends is not None and begins >= ends:
        raise ConfigurationError("--since is not before --until", hint="both are UTC")
    return From(start == ARCHIVE, begins, ends, now)


def replayed(request: Request, show: Show, cleanup: ExitStack) -> Total:
    settings, sieve, start = request.settings, request.sieve, request.start
    intake = Intake.of(settings)
    # A rebuild replays both at one time, and what waits of the one must not be taken for the other's.
    of_id = f"replay-{'archive' if start.is_archive else 'stream'}-{start.now:%Y%m%dT%H%M%S}Z-{os.getpid()}"
    if start.is_archive:
        material: Material = _of_archive(request, intake, of_id, show)
        spark = None
    else:
        _refuse_no_stream(settings, start)
        spark = cleanup.enter_context(spark_session(_NAME, settings.spark))
        position = start.since.isoformat() if start.since is not None else "trim_horizon"
        material = StreamMaterial(spark, settings, intake, of_id, position, show.read)
    replay = Replay(material, sieve, start.now_ms, start.gaps_since_ms)
    first = request.tables[next(iter(sieve.rules))]
    with Delivery(settings, request.tables, intake, of_id, name=_NAME, show=show.taken, spark=spark) as delivery:
        bucket = _bucket(settings) if settings.bucket is not None else None
        marks = {table: marks_of(bucket, table) for table in sieve.rules} if bucket is not None else {}
        pieces = replay.pieces(lambda keys: versions_of(settings, first, keys, cleanup), marks)
        return replay.hand_over(delivery, pieces) if pieces else Total()


def _of_archive(request: Request, intake: Intake, of_id: str, show: Show) -> ArchiveMaterial:
    settings, start = request.settings, request.start
    if settings.bucket is None:
        raise ConfigurationError("the configuration names no bucket", hint="add `bucket: {name: …}`")
    archive = Archive(client(settings.aws, "s3"), settings.bucket.name, settings.bucket.archive_prefix)
    span = Span(start.since, start.until)
    return ArchiveMaterial(archive, _bucket(settings), intake, of_id, span, show.read)


def _refuse_no_stream(settings: Settings, start: From) -> None:
    if settings.source.connector == "files":
        raise ConfigurationError("this job reads no stream, it reads landed files", hint="replay --from archive")
    if start.since is not None:
        refuse_lost_times(client(settings.aws, "kinesis"), settings.source.stream, start.since, start.now)


def _bucket(settings: Settings) -> Bucket:
    assert settings.bucket is not None
    return Bucket(client(settings.aws, "s3"), settings.bucket.name)


def _moment(option: str, text: str | None) -> datetime | None:
    if text is None:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise ConfigurationError(
            f"{option} {text!r} is no time", hint="trim-horizon, archive, or a time like 2026-01-31T08:30"
        ) from error
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


def _ms(moment: datetime) -> int:
    return round(moment.timestamp() * 1000)

"""What a rebuilt table is filled with: every item as it is now, or the archive from its first load on.

Both go the way of every change, through whoever writes the tables, and so into both of them: the old table's guard lets
nothing older replace what is there.
"""

import json
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta
from pathlib import Path
from typing import Any, Final, Protocol

from config.errors import ConfigurationError
from config.settings import BucketSettings, Settings
from config.tables import TableConfig
from streaming_job.aws import client
from streaming_job.objects import Bucket
from streaming_job.operations import snapshot_command
from streaming_job.operations.archive_objects import Archive
from streaming_job.operations.handing_over import Total
from streaming_job.operations.lake_past import past_of
from streaming_job.operations.rebuild import Rebuilding, RebuildRefusedError
from streaming_job.operations.replay import ReplayRefusedError, sieve_of
from streaming_job.operations.replay_run import From, Request, Show, replayed
from streaming_job.operations.replay_stream import horizon_of
from streaming_job.operations.snapshot import PREFIX
from streaming_job.operations.snapshot_load import Plan, plan
from streaming_job.operations.snapshot_load import Request as SnapshotRequest
from streaming_job.operations.source_rules import rules_of, source_rules
from streaming_job.operations.unproven_marks import marks_of
from streaming_job.pipeline.locations import Lake
from streaming_job.pipeline.order import UNPROVEN_PROPERTY
from streaming_job.pipeline.properties import read

_CLOCKS_APART_MS: Final = 300_000
"""Before a scan began by our clock, a change is older than it by DynamoDB's clock too."""
_KEPT_FOR: Final = timedelta(hours=23)
"""Any stream keeps its records for longer than this, and no delivery stream is so far behind."""
_DELIVERED_WITHIN: Final = timedelta(hours=1)
"""A delivery stream holds nothing back as long: what came so much before a day was there before the day's objects."""
_NAME: Final = "lakestream rebuild"


@dataclass(frozen=True)
class FirstLoad:
    """A whole snapshot in the archive."""

    id: str
    rules: str
    began_ms: int


class Filler(Protocol):
    """Asked before anything is begun, then once the new table gets every change."""

    @property
    def since_ms(self) -> int:
        """Changes made before are in what it fills with."""

    def fill(self, cleanup: ExitStack) -> Total: ...


@dataclass(frozen=True)
class BySnapshot:
    settings: Settings
    tables: dict[str, TableConfig]
    made: Plan

    @classmethod
    def planned(
        cls,
        settings: Settings,
        tables: dict[str, TableConfig],
        config: TableConfig,
        request: SnapshotRequest,
        *,
        is_forced: bool,
        cleanup: ExitStack,
        say: Callable[[str], None],
    ) -> "BySnapshot":
        made = plan(settings, config, request, past_of(settings, config, cleanup), say)
        if not is_forced:
            made.estimate.check()
        return cls(settings, tables, made)

    @property
    def since_ms(self) -> int:
        return self.made.state.began_ms - _CLOCKS_APART_MS

    def fill(self, cleanup: ExitStack) -> Total:  # noqa: ARG002 - Filler's
        table = self.made.state.table
        hint = f"`lakestream rebuild start {table}` goes on"
        total = snapshot_command.load(self.settings, self.tables, self.made, name=_NAME, hint=hint)
        self.made.state_file.unlink(missing_ok=True)
        return total


@dataclass(frozen=True)
class FromArchive:
    settings: Settings
    tables: dict[str, TableConfig]
    config: TableConfig
    first: FirstLoad
    show: Show
    archive: Archive
    kinesis: Any
    """Asked where the job reads a stream."""
    replay: Callable[[Request, Show, ExitStack], Total] = replayed
    now: Callable[[], datetime] = lambda: datetime.now(UTC)

    @classmethod
    def planned(
        cls,
        settings: Settings,
        tables: dict[str, TableConfig],
        config: TableConfig,
        rebuilding: Rebuilding,
        show: Show,
    ) -> "FromArchive":
        """RebuildRefusedError where the archive cannot be all there is."""
        bucket = _bucket(settings)
        loads = first_loads(bucket, config.table)
        if not loads:
            raise RebuildRefusedError(
                f"the archive has no whole first load of {config.table}: what was there before it is not in it",
                hint="rebuild --from snapshot",
            )
        refuse_other_rules(loads, source_rules(settings, config.table).label)
        refuse_gaps(bucket, config.table, loads[0], rebuilding)
        archive = Archive(client(settings.aws, "s3"), bucket.name, _settings_of(settings).archive_prefix)
        return cls(settings, tables, config, loads[0], show, archive, client(settings.aws, "kinesis"))

    @property
    def since_ms(self) -> int:
        return self.first.began_ms - _CLOCKS_APART_MS

    def fill(self, cleanup: ExitStack) -> Total:
        """The archive, then what it may not have yet from the stream: they overlap, which changes nothing."""
        now = self.now()
        # Before the archive is listed: what is delivered in between is in both, and not in neither.
        since = self._undelivered_since(now) if self.settings.source.connector != "files" else None
        whole = self._replayed(now, None, cleanup)
        if since is not None:
            self._replayed(now, since, cleanup)
        return whole

    def _replayed(self, now: datetime, of_stream_since: datetime | None, cleanup: ExitStack) -> Total:
        """Of the archive, unless it is said from when on the stream is meant."""
        start = From(
            is_archive=of_stream_since is None,
            since=of_stream_since,
            until=None,
            now=now,
            whole_since_ms=self.first.began_ms,
        )
        wanted = {self.config.table: self.config}
        request = Request(self.settings, self.tables, sieve_of(wanted, rules_of(self.settings, wanted)), start)
        return self.replay(request, self.show, cleanup)

    def _undelivered_since(self, now: datetime) -> datetime:
        """From when on the stream may hold what the archive has not; a stream made later holds nothing from before."""
        days = self.archive.days()
        newest = datetime.combine(max(days), time.min, UTC) - _DELIVERED_WITHIN if days else now - _KEPT_FOR
        since = min(max(newest, now - _KEPT_FOR), now)
        return max(since, horizon_of(self.kinesis, self.settings.source.stream, now))


def first_loads(bucket: Bucket, table: str) -> list[FirstLoad]:
    """The whole ones, oldest first."""
    found = []
    for folder in bucket.level(PREFIX):
        names = {entry.name for entry in bucket.listed(f"{folder}manifest.json")}
        for name in names:
            said = json.loads(bucket.body(name).content)
            if said["table"] == table:
                found.append(FirstLoad(said["id"], said["rules"], int(said["began_ms"])))
    return sorted(found, key=lambda load: load.began_ms)


def refused_as_begun(error: ReplayRefusedError, rebuilding: Rebuilding) -> None:
    """What it was to be filled with turned out not to fit only once it was read."""
    rebuilding.say(f"{error.what}; the rebuild is given up")
    rebuilding.abandon()


def state_file(config_file: Path, table: str) -> Path:
    """Of the snapshot that fills the new table."""
    return config_file.with_name(f"rebuild-{table}.json")


def refuse_other_rules(loads: list[FirstLoad], label: str) -> None:
    others = [load for load in loads if load.rules != label]
    if others:
        raise RebuildRefusedError(
            f"{others[0].id} was made by rules {others[0].rules}, now they are {label}: what those left in would "
            "come back",
            hint="rebuild --from snapshot: it applies the rules of now",
        )


def refuse_gaps(bucket: Bucket, table: str, first: FirstLoad, rebuilding: Rebuilding) -> None:
    said = [str(mark) for mark in marks_of(bucket, table) if mark.marked_ms >= first.began_ms or not mark.marked_ms]
    places = Lake(rebuilding.settings.lake).of(rebuilding.config)
    unproven = read(rebuilding.tables.properties(places.current).get(UNPROVEN_PROPERTY))
    said += [unproven["why"]] if unproven else []
    if said:
        raise RebuildRefusedError(
            f"changes of {table} may have been lost ({said[0]}): the archive has not got them either",
            hint="rebuild --from snapshot",
        )


def _bucket(settings: Settings) -> Bucket:
    return Bucket(client(settings.aws, "s3"), _settings_of(settings).name)


def _settings_of(settings: Settings) -> BucketSettings:
    if settings.bucket is None:
        raise ConfigurationError("the configuration names no bucket", hint="add `bucket: {name: …}`")
    return settings.bucket

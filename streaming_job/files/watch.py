"""Watches an archive grow, on the driver: when to look, how far back, and what the next batch takes."""

import json
import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Final

from streaming_job.files.errors import OffsetError
from streaming_job.files.folders import HOUR_MS, folder_at
from streaming_job.files.listing import Archive
from streaming_job.files.offsets import Folder, Offset, Place
from streaming_job.files.options import FilesOptions
from streaming_job.files.planning import Budget, Horizon, Plan, plan
from streaming_job.kinesis.fetch import Clock
from streaming_job.objects import Bucket

log = logging.getLogger("lakestream.files")

_IDLE_WAIT_MS: Final = 500
"""How long planning waits for the next look before it tells Spark that there is nothing."""
_RECENT_MS: Final = HOUR_MS
"""Each look lists the folders of so long ago and later; what lands in earlier ones is found by the rarer long look."""
_REST_AFTER_MS: Final = 2 * HOUR_MS
_NAMED_MAX: Final = 5


@dataclass
class Progress:
    """Of one prefix, since the query started."""

    behind_ms: int = 0
    """How long the oldest object that waits for a batch has lain there."""
    objects: int = 0
    bytes: int = 0
    """As stored."""
    strangers: int = 0
    """Names below the prefix that are none of an archive's: passed over."""


class Watch:
    def __init__(self, bucket: Bucket, options: FilesOptions, clock: Clock) -> None:
        self._bucket = bucket
        self._options = options
        self._clock = clock
        self._archives = {prefix: Archive(bucket, prefix) for prefix in options.prefixes}
        self._progress = {prefix: Progress() for prefix in options.prefixes}
        self._until_ms: int | None = None
        self._has_more = False
        self._look_at_ms = self._long_look_at_ms = 0

    def read_until_now(self) -> None:
        """Only what has landed by now, and then nothing more."""
        self._until_ms = self._clock.now_ms()

    def initial(self) -> Offset:
        """Where a query without a checkpoint begins. What had landed before a time counts as taken."""
        start = self._options.start()
        if start.kind == "trim_horizon":
            return Offset(self._bucket.name, {prefix: Place() for prefix in self._archives}, fresh=True)
        at_ms = self._clock.now_ms() if start.kind == "latest" else start.at_ms
        places = {prefix: self._since(archive, at_ms) for prefix, archive in self._archives.items()}
        return Offset(self._bucket.name, places, fresh=True)

    def _since(self, archive: Archive, at_ms: int) -> Place:
        begin = folder_at(max(0, at_ms - self._late_ms))
        folders: dict[str, Folder] = {}
        for name, found in archive.look(begin):
            if archive.is_dated and name > folder_at(at_ms):
                break
            if older := [entry for entry in found if entry.modified_ms < at_ms]:
                folders[name] = Folder().taking(older).at_rest()
        return Place(begin if archive.is_dated else "", folders)

    def plan(self, start: Offset) -> Offset:
        """Where the next batch ends; `start` itself where there is nothing for one."""
        accepted = self._accepted(start)
        if start.fresh:
            return replace(accepted, fresh=False)
        now_ms = self._clock.now_ms()
        if not self._has_more and now_ms < self._look_at_ms:
            self._clock.sleep_ms(min(_IDLE_WAIT_MS, self._look_at_ms - now_ms))
            if self._clock.now_ms() < self._look_at_ms:
                return start
        planned = self._look(accepted)
        return start if planned.places == start.places else planned

    def _look(self, start: Offset) -> Offset:
        now_ms = self._clock.now_ms()
        is_long = self._has_more or now_ms >= self._long_look_at_ms
        files = self._options.files
        budget = Budget(files.objects_max, self._options.stored_bytes_max)
        plans: dict[str, Plan] = {}
        for prefix, place in start.places.items():
            begin = place.begin if is_long else max(place.begin, folder_at(now_ms - _RECENT_MS))
            look = self._archives[prefix].look(begin, self._until_ms)
            plans[prefix] = plan(place, look, budget, self._horizon(self._archives[prefix], now_ms))
        self._has_more = any(each.waiting_since_ms is not None for each in plans.values())
        self._look_at_ms = now_ms + round(files.look_every_s * 1000)
        if is_long and not self._has_more:
            self._long_look_at_ms = now_ms + files.look_for_late_every_s * 1000
            self._look_beside()
        self._count(plans, now_ms)
        return replace(start, places={prefix: each.place for prefix, each in plans.items()})

    def _horizon(self, archive: Archive, now_ms: int) -> Horizon:
        late = folder_at(now_ms - self._late_ms) if archive.is_dated else ""
        return Horizon(late=late, rest_ms=now_ms - _REST_AFTER_MS)

    def _look_beside(self) -> None:
        for prefix, archive in self._archives.items():
            archive.look_beside()
            known, self._progress[prefix].strangers = self._progress[prefix].strangers, len(archive.strangers)
            if len(archive.strangers) > known:
                shown = sorted(archive.strangers)[:_NAMED_MAX]
                log.warning("objects that are none of an archive's are passed over", extra={"names": shown})

    def _count(self, plans: Mapping[str, Plan], now_ms: int) -> None:
        for prefix, each in plans.items():
            progress = self._progress[prefix]
            progress.objects += each.objects
            progress.bytes += each.bytes
            progress.behind_ms = max(0, now_ms - (each.waiting_since_ms or now_ms))

    def progress(self) -> dict[str, Any]:
        """As Spark's progress shows it; `progress_of` reads it again."""
        places = {f"{self._bucket.name}/{prefix}".rstrip("/"): each for prefix, each in self._progress.items()}
        return {"archives": {place: asdict(each) for place, each in sorted(places.items())}}

    @property
    def _late_ms(self) -> int:
        return self._options.files.late_h * HOUR_MS

    def _accepted(self, offset: Offset) -> Offset:
        """The offset, if it is of this bucket. A prefix it does not have yet is read from its beginning."""
        if offset.bucket != self._bucket.name:
            raise OffsetError(
                f"the checkpoint belongs to bucket {offset.bucket}, the configuration names {self._bucket.name}",
                hint="use the bucket the checkpoint was made with, or a new checkpoint",
            )
        return replace(offset, places={prefix: offset.places.get(prefix, Place()) for prefix in self._archives})


def progress_of(latest_offset: object) -> dict[str, Progress]:
    """What `sources[].latestOffset` of a progress says, by bucket and prefix; nothing where another source wrote it."""
    value = json.loads(latest_offset) if isinstance(latest_offset, str) else latest_offset
    archives = value.get("archives") if isinstance(value, dict) else None
    return {place: Progress(**counters) for place, counters in archives.items()} if isinstance(archives, dict) else {}

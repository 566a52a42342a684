"""A rebuild from the archive, from which moment on the stream is read after it: nothing falls between the two."""

import json
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from bucket_memory import BucketInMemory
from lake_rig import settings_for, table_config
from stream_summary import StreamSummary

from streaming_job.objects import Bucket
from streaming_job.operations.archive_objects import Archive
from streaming_job.operations.handing_over import Total
from streaming_job.operations.rebuild_fill import FirstLoad, FromArchive
from streaming_job.operations.replay import Replay, ReplayRefusedError, Sieve
from streaming_job.operations.replay_run import From, Request, Show
from streaming_job.operations.replay_stream import refuse_lost_times
from streaming_job.operations.unproven_marks import marks_of

NOW = datetime(2026, 11, 3, 12, tzinfo=UTC)
FIRST = FirstLoad("first", "1", 1_000_000)


@dataclass
class Replays:
    """Notes what is asked for, and refuses what a replay refuses before it reads anything."""

    store: BucketInMemory
    kinesis: StreamSummary
    asked: list[From] = field(default_factory=list)
    meanwhile: Callable[[], None] = lambda: None
    """While the archive is replayed."""

    def __call__(self, request: Request, _show: Show, _cleanup: ExitStack) -> Total:
        start = request.start
        self.asked.append(start)
        replay = Replay(Nothing(), request.sieve, start.now_ms, start.gaps_since_ms)
        replay.pieces(lambda _: {}, {"things": marks_of(Bucket(self.store, "bucket"), "things")})
        if start.is_archive:
            self.meanwhile()
        else:
            assert start.since is not None
            refuse_lost_times(self.kinesis, "changes", start.since, start.now)
        return Total(pieces=len(self.asked))


class Nothing:
    """Material of no changes."""

    stream = "archive"

    def pieces(self, _sieve: Sieve) -> list[object]:
        return []


class Unshown:
    def read(self, done: int, total: int | None) -> None: ...

    def taken(self, standing: object) -> None: ...


@dataclass
class Rebuild:
    folder: Path
    now: datetime = NOW
    kinesis: StreamSummary = field(default_factory=lambda: StreamSummary(NOW - timedelta(days=90)))
    connector: str = "lakestream"

    def __post_init__(self) -> None:
        self.store = BucketInMemory()
        self.replays = Replays(self.store, self.kinesis)

    def delivered(self, day: str) -> None:
        self.store.put(f"archive/date={day}/hour=00/a.gz", b"", 0)

    def marked(self, at_ms: int) -> None:
        mark = {"reason": "near-expiry", "marked_ms": at_ms}
        self.store.put(f"unproven/things/{at_ms}.json", json.dumps(mark).encode(), at_ms)

    def fill(self) -> datetime | None:
        """Since when the stream is read; None where it is not."""
        config = table_config()
        rules = self.folder / "tables"
        rules.mkdir(exist_ok=True)
        (rules / "things.yaml").write_text(json.dumps(config.model_dump(mode="json", by_alias=True)))
        source = {"stream": "changes", "connector": self.connector}
        filler = FromArchive(
            settings_for(self.folder, ["things"], tables_dir=str(rules), source=source, bucket={"name": "bucket"}),
            {"things": config},
            config,
            FIRST,
            Unshown(),
            Archive(self.store, "bucket", "archive/"),
            self.kinesis,
            self.replays,
            lambda: self.now,
        )
        with ExitStack() as cleanup:
            assert filler.fill(cleanup) == Total(pieces=1)
        assert self.replays.asked[0].is_archive
        assert all(start.since is None or start.since <= start.now for start in self.replays.asked)
        return self.replays.asked[1].since if self.replays.asked[1:] else None


@pytest.fixture
def rebuild(tmp_path: Path) -> Rebuild:
    return Rebuild(tmp_path)


def test_the_stream_is_read_from_an_hour_before_the_newest_day_that_was_delivered(rebuild: Rebuild) -> None:
    """What arrived about midnight may lie in the delivery stream still, under the day before."""
    rebuild.delivered("2026-11-01")
    rebuild.delivered("2026-11-03")
    assert rebuild.fill() == datetime(2026, 11, 2, 23, tzinfo=UTC)


@pytest.mark.parametrize("days", [(), ("2026-10-20",)])
def test_where_nothing_was_delivered_lately_the_stream_is_read_as_far_back_as_any_keeps(
    rebuild: Rebuild, days: tuple[str, ...]
) -> None:
    for day in days:
        rebuild.delivered(day)
    assert rebuild.fill() == NOW - timedelta(hours=23)


def test_a_stream_made_today_is_read_from_its_beginning(rebuild: Rebuild) -> None:
    """A time before there was a stream is refused, at the end of it all and again each time."""
    rebuild.kinesis.created = NOW - timedelta(hours=2)
    rebuild.delivered("2026-11-03")
    assert rebuild.fill() == NOW - timedelta(hours=2)


def test_a_rebuild_across_midnight_reads_from_the_stream_what_the_archive_had_not_when_it_began(
    rebuild: Rebuild,
) -> None:
    """The new day's first object is delivered before the archive is listed: what came last before it may be nowhere."""
    rebuild.now = datetime(2026, 11, 3, 23, 59, 30, tzinfo=UTC)
    rebuild.delivered("2026-11-03")
    rebuild.replays.meanwhile = lambda: rebuild.delivered("2026-11-04")
    assert rebuild.fill() == datetime(2026, 11, 3, 0, 59, 30, tzinfo=UTC)


def test_of_marks_only_those_made_since_the_first_load_stand_in_the_way(rebuild: Rebuild) -> None:
    """It loaded anew what may have been lost before."""
    rebuild.delivered("2026-11-03")
    rebuild.marked(FIRST.began_ms - 1)
    assert rebuild.fill() is not None
    rebuild.marked(FIRST.began_ms)
    with pytest.raises(ReplayRefusedError, match="may have been lost"):
        rebuild.fill()


def test_a_job_that_reads_landed_files_has_no_stream_to_read(rebuild: Rebuild) -> None:
    rebuild.connector = "files"
    assert rebuild.fill() is None

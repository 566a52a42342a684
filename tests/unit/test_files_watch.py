"""The archive's watch on a bucket in memory, its clock turned by hand: what is taken, when, and how often."""

import json
import random
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import pytest
from bucket_memory import BucketInMemory

from config.errors import ConfigurationError
from config.settings import AwsSettings, FilesSettings, Settings
from streaming_job.files.auto_loader import archive_paths, auto_loader_options
from streaming_job.files.errors import OffsetError
from streaming_job.files.folders import HOUR_MS, folder_at
from streaming_job.files.offsets import Offset
from streaming_job.files.options import FilesOptions
from streaming_job.files.reader import arrival_ms
from streaming_job.files.watch import Progress, Watch, progress_of
from streaming_job.objects import Bucket
from streaming_job.operations.doctor_files import archives
from streaming_job.operations.doctor_findings import Level

START_MS = int(datetime(2026, 1, 31, 22, 30, tzinfo=UTC).timestamp() * 1000)
MINUTE_MS = 60_000


class Clock:
    def __init__(self) -> None:
        self.ms = START_MS

    def now_ms(self) -> int:
        return self.ms

    def sleep_ms(self, ms: int) -> None:
        self.ms += ms


@dataclass
class World:
    """A query as Spark drives it: its offset goes through the checkpoint's JSON each time."""

    prefixes: tuple[str, ...] = ("archive/",)
    starting_position: str = "trim_horizon"
    objects_max: int = 1_000
    stored_bytes_max: int = 10_000
    s3: BucketInMemory = field(default_factory=BucketInMemory)
    clock: Clock = field(default_factory=Clock)
    taken: Counter[str] = field(default_factory=Counter)
    batches: list[list[str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.restart()
        self.offset = json.dumps(self.watch.initial().to_json())

    def restart(self) -> None:
        options = FilesOptions(
            aws=AwsSettings(region="us-east-1"),
            bucket="b",
            prefixes=self.prefixes,
            stream="s",
            starting_position=self.starting_position,
            fail_on_data_loss=True,
            stored_bytes_max=self.stored_bytes_max,
            files=FilesSettings(objects_max=self.objects_max),
        )
        self.watch = Watch(Bucket(self.s3, "b"), options, self.clock)

    def land(self, name: str, *, folder_ms: int | None = None, size: int = 100) -> str:
        folder = folder_at(self.clock.ms if folder_ms is None else folder_ms)
        self.s3.put(f"archive/{folder}{name}", b"x" * size, self.clock.ms)
        return f"archive/{folder}{name}"

    def batch(self) -> list[str]:
        """One turn of the query; what its batch reads."""
        start = Offset.from_json(json.loads(self.offset))
        planned = self.watch.plan(start)
        text = json.dumps(planned.to_json())
        if planned is start:
            assert text == self.offset
            return []
        assert text == json.dumps(planned.to_json(), sort_keys=True), "Spark compares offsets as text"
        names = list(Offset.from_json(json.loads(text)).taken_since(start))
        self.offset = text
        self.taken.update(names)
        self.batches.append(names)
        return names

    def drain(self) -> list[str]:
        """All that there is, whatever it takes."""
        found: list[str] = []
        quiet = 0
        while quiet < 3:
            names = self.batch()
            found += names
            quiet = 0 if names else quiet + 1
            self.clock.ms += 5_000
        return found


def test_every_object_is_taken_once_and_in_the_order_of_its_hour() -> None:
    world = World()
    names = [world.land(f"n{hour}{n}", folder_ms=START_MS - hour * HOUR_MS) for hour in (40, 3, 0) for n in range(4)]
    assert world.drain() == names
    assert set(world.taken.values()) == {1}


def test_what_lands_is_taken_at_the_next_look() -> None:
    world = World()
    world.drain()
    name = world.land("n")
    world.clock.ms += 5_000
    assert world.batch() == [name]


def test_between_looks_nothing_is_listed() -> None:
    world = World()
    world.drain()
    world.clock.ms += 5_000
    world.batch()
    listings = len(world.s3.listings)
    for _ in range(5):
        world.batch()
    assert len(world.s3.listings) == listings


def test_an_object_that_lands_late_in_an_hour_long_past_is_taken_and_only_it() -> None:
    world = World()
    for hour in range(24):
        world.land("early", folder_ms=START_MS - hour * HOUR_MS)
    world.drain()
    for hour in (23, 12, 1):
        for _ in range(3):
            world.clock.ms += 10 * MINUTE_MS
            world.land(f"steady{world.clock.ms}")
            world.drain()
        late = world.land("late", folder_ms=START_MS - hour * HOUR_MS)
        world.clock.ms += 5 * MINUTE_MS
        assert late in world.drain()
    assert set(world.taken.values()) == {1}


def test_an_object_that_appears_with_an_older_time_than_was_taken_is_found_by_the_sum() -> None:
    """S3 dates a large upload by its beginning: it may appear behind what was taken. Its hour is then read again."""
    world = World()
    hour_ms = START_MS - 3 * HOUR_MS
    world.land("a", folder_ms=hour_ms)
    world.drain()
    world.clock.ms += 3 * HOUR_MS
    world.land("now")
    world.drain()
    hidden = f"archive/{folder_at(hour_ms)}hidden"
    world.s3.put(hidden, b"x", START_MS - HOUR_MS)
    world.clock.ms += 5 * MINUTE_MS
    assert hidden in world.drain()


def test_objects_that_a_lifecycle_deletes_do_not_bring_the_others_back() -> None:
    world = World(prefixes=("snapshot/",))
    for number in range(6):
        world.s3.put(f"snapshot/cars/{number}.gz", b"x", world.clock.ms)
    world.drain()
    world.clock.ms += 3 * HOUR_MS
    world.s3.put("snapshot/bikes/0.gz", b"x", world.clock.ms)
    world.drain()
    for number in range(4):
        world.s3.remove(f"snapshot/cars/{number}.gz")
        world.clock.ms += 5 * MINUTE_MS
        assert world.drain() == []
    world.s3.put("snapshot/cars/9.gz", b"x", world.clock.ms)
    assert world.drain() == ["snapshot/cars/9.gz"]


def test_a_batch_keeps_to_its_limits_and_always_takes_one() -> None:
    world = World(objects_max=4, stored_bytes_max=1_000)
    for number in range(9):
        world.land(f"n{number}", size=100)
    huge = world.land("n9", size=5_000)
    world.drain()
    assert [len(names) for names in world.batches if names] == [4, 4, 1, 1]
    assert world.batches[-1] == [huge]


def test_a_backlog_is_listed_as_far_as_the_batch_goes() -> None:
    world = World(objects_max=2)
    for hour in range(200, 0, -1):
        world.land("n", folder_ms=START_MS - hour * HOUR_MS)
    world.batch()  # the first batch only writes down where the query begins
    listings = len(world.s3.listings)
    world.batch()
    assert len(world.s3.listings) - listings <= 3
    world.drain()
    assert len(world.taken) == 200


def test_a_batch_run_again_after_a_crash_reads_the_same_objects_whatever_has_landed_since() -> None:
    world = World(objects_max=3)
    for number in range(5):
        world.land(f"n{number}")
    world.batch()
    before = world.offset
    names = world.batch()
    world.land("a")
    again = Offset.from_json(json.loads(world.offset)).taken_since(Offset.from_json(json.loads(before)))
    assert list(again) == names
    world.restart()
    assert set(world.drain()) == {f"archive/{folder_at(START_MS)}{name}" for name in ("a", "n3", "n4")}


def test_the_offset_stays_small_however_long_the_query_runs() -> None:
    """A day and a quarter of an object a minute, with a restart each hour, and now and then one five hours late."""
    world = World()
    noise = random.Random(3)
    expected = set()
    longest = 0
    for minute in range(30 * 60):
        world.clock.ms += MINUTE_MS
        late_ms = 5 * HOUR_MS if noise.random() < 0.005 else 0
        expected.add(world.land(f"n{minute}", folder_ms=world.clock.ms - late_ms))
        if minute % 60 == 0:
            world.restart()
        world.batch()
        longest = max(longest, len(world.offset))
        if len(world.s3.objects) > 1_650:  # by lifecycle, long after they were read
            world.s3.remove(next(iter(world.s3.objects)))
    world.clock.ms += 6 * MINUTE_MS
    world.drain()
    assert set(world.taken) == expected
    assert longest < 12_000
    again = sum(world.taken.values()) - len(expected)
    assert again < len(expected) * 0.05, "an hour is read again only where its listing disagrees"


def test_available_now_ends_though_objects_keep_landing() -> None:
    world = World(objects_max=2)
    wanted = {world.land(f"n{number}") for number in range(5)}
    world.clock.ms += 1_000
    world.watch.read_until_now()
    for _ in range(20):
        world.clock.ms += 1_000
        world.land(f"later{world.clock.ms}")
        world.batch()
    assert set(world.taken) == wanted


@pytest.mark.parametrize(("position", "expected"), [("latest", {"new"}), ("2026-01-31T20:00:00Z", {"mid", "new"})])
def test_a_query_may_begin_at_a_time(position: str, expected: set[str]) -> None:
    """What had landed before is never read, not even where its hour is looked at again."""
    s3, clock = BucketInMemory(), Clock()
    for name, hours_ago in (("old", 5), ("mid", 2)):
        s3.put(f"archive/{folder_at(START_MS - hours_ago * HOUR_MS)}{name}", b"x", START_MS - hours_ago * HOUR_MS)
    world = World(starting_position=position, s3=s3, clock=clock)
    world.batch()
    world.clock.ms += 2_000
    world.land("new", folder_ms=START_MS - 2 * HOUR_MS)
    world.restart()
    found = world.drain()
    assert {name.rpartition("/")[2] for name in found} == expected


def test_objects_that_are_none_of_ours_are_passed_over_and_counted() -> None:
    world = World()
    ours = world.land("n.gz")
    for name in ("readme.txt", "notes/x.gz", "date=2026-01-31/oops.gz", f"{folder_at(START_MS)}_SUCCESS"):
        world.s3.put(f"archive/{name}", b"x", START_MS)
    world.s3.put(f"archive/{folder_at(START_MS)}empty.gz", b"", START_MS)
    assert world.drain() == [ours]
    assert progress_of(json.dumps(world.watch.progress())) == {
        "b/archive": Progress(behind_ms=0, objects=1, bytes=100, strangers=5)
    }


def test_a_snapshots_objects_are_read_by_the_same_from_folders_of_any_name() -> None:
    world = World(prefixes=("archive/", "snapshot/"))
    first = world.land("n.gz")
    world.drain()
    for name in ("cars-1/0000-000000.ndjson.gz", "cars-1/0000-000001.ndjson.gz", "cars-1/manifest.json"):
        world.s3.put(f"snapshot/{name}", b"x", world.clock.ms)
    world.clock.ms += 5_000
    assert world.drain() == ["snapshot/cars-1/0000-000000.ndjson.gz", "snapshot/cars-1/0000-000001.ndjson.gz"]
    world.s3.put("snapshot/cars-2/0000-000000.ndjson.gz", b"x", world.clock.ms)
    second = world.land("m.gz")
    assert set(world.drain()) == {second, "snapshot/cars-2/0000-000000.ndjson.gz"}
    assert set(world.taken.values()) == {1}
    assert first in world.taken


def test_a_prefix_added_later_is_read_whole() -> None:
    world = World()
    world.land("n.gz")
    world.drain()
    world.s3.put("snapshot/cars/0.gz", b"x", START_MS)
    world.prefixes = ("archive/", "snapshot/")
    world.restart()
    assert world.drain() == ["snapshot/cars/0.gz"]


def test_how_far_behind_it_is_is_the_age_of_the_oldest_object_left() -> None:
    world = World(objects_max=1)
    world.land("a")
    world.clock.ms += 90_000
    world.land("b")
    world.batch()
    world.clock.ms += 10_000
    world.batch()
    assert progress_of(world.watch.progress())["b/archive"].behind_ms == 10_000
    world.batch()
    assert progress_of(world.watch.progress())["b/archive"].behind_ms == 0


@pytest.mark.parametrize(
    "value",
    [
        {"streams": {}, "version": 1},
        {"bucket": "b", "places": {}, "version": 2},
        {"bucket": "b", "places": {"archive/": {"begin": ""}}, "version": 1},
        {"bucket": "other", "places": {}, "version": 1},
    ],
)
def test_a_checkpoint_of_another_source_is_refused_with_what_to_do(value: dict[str, Any]) -> None:
    with pytest.raises(OffsetError) as error:
        World().watch.plan(Offset.from_json(value))
    assert "checkpoint" in str(error.value)
    assert error.value.hint


@pytest.mark.parametrize(
    ("modified_ms", "planned_ms", "expected"), [(7_000, 9_000, 7_999), (7_000, 7_400, 7_400), (7_123, 9_000, 7_123)]
)
def test_no_hop_comes_out_below_zero_because_s3_rounds_its_clock_down(
    modified_ms: int, planned_ms: int, expected: int
) -> None:
    assert arrival_ms(modified_ms, planned_ms) == expected


def settings(**source: Any) -> Settings:
    return Settings.model_validate(
        {
            "aws": {"region": "us-east-1"},
            "source": {"connector": "files", "stream": "s", **source},
            "bucket": {"name": "the-bucket"},
            "lake": {"root": "lake", "checkpoint": "checkpoint"},
            "tables": ["t"],
        }
    )


def test_the_same_settings_say_the_same_to_auto_loader() -> None:
    prefixes = {"prefixes": ["archive/", "snapshot/"], "objects_max": 7}
    given = settings(files=prefixes, starting_position="2026-01-31T20:00:00Z", fail_on_data_loss=False)
    assert archive_paths(given) == "s3://the-bucket/{archive,snapshot}/"
    assert archive_paths(settings()) == "s3://the-bucket/archive/"
    assert auto_loader_options(given) == {
        "cloudFiles.format": "text",
        "cloudFiles.maxFilesPerTrigger": "7",
        "cloudFiles.maxBytesPerTrigger": "8388608b",
        "cloudFiles.partitionColumns": "",
        "ignoreMissingFiles": "true",
        "modifiedAfter": "2026-01-31 20:00:00.000000 UTC+0",
    }
    assert auto_loader_options(settings(starting_position="latest"))["cloudFiles.includeExistingFiles"] == "false"
    assert auto_loader_options(settings(options={"cloudFiles.maxFilesPerTrigger": "9"})) | {
        "cloudFiles.maxFilesPerTrigger": "9"
    } == auto_loader_options(settings(options={"cloudFiles.maxFilesPerTrigger": "9"}))


@pytest.mark.parametrize(
    ("source", "said"), [({"options": {"x": "1"}}, "source.files"), ({"starting_position": "someday"}, "someday")]
)
def test_what_our_own_source_cannot_be_told_is_refused_before_the_first_look(source: Any, said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        FilesOptions.of(settings(**source))


def test_doctor_says_whether_the_archive_can_be_read_and_what_else_lies_there() -> None:
    s3 = BucketInMemory()
    assert [finding.level for finding in archives(settings(), s3)] == [Level.NOTE]
    s3.put(f"archive/{folder_at(START_MS)}n.gz", b"x", START_MS)
    assert [finding.level for finding in archives(settings(), s3)] == [Level.OK]
    s3.put("archive/readme.txt", b"x", START_MS)
    assert ["readme.txt" in finding.what for finding in archives(settings(), s3)] == [False, True]

"""What a replay takes, and what it refuses, with everything it reads held in memory."""

import gzip
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from envelopes import Change, put, remove
from first_load import Store
from lake_rig import settings_for
from stream_summary import StreamSummary

from config.errors import ConfigurationError
from streaming_job.objects import Bucket
from streaming_job.operations.archive_objects import Archive, ArchiveUnreadableError, Span
from streaming_job.operations.replay import Replay, ReplayRefusedError, Sieve, canonical_key
from streaming_job.operations.replay_archive import ArchiveMaterial
from streaming_job.operations.replay_run import span_of
from streaming_job.operations.replay_stream import refuse_lost_times
from streaming_job.operations.unproven_marks import Mark, marks_of
from streaming_job.pipeline.intake import Intake, Piece

NOW = datetime(2026, 11, 3, 12, tzinfo=UTC)
LONG_AGO = NOW - timedelta(days=90)


@dataclass
class Lines:
    """Material that is one list of lines."""

    lines: list[bytes]
    stream: str = "archive"
    asked: int = 0

    def pieces(self, sieve: Sieve) -> Iterator[Piece]:
        self.asked += 1
        kept = [line for line in self.lines if sieve.keeps(line)]
        if kept:
            yield Piece(name="0", address="s3://bucket/x", form="lines")


def replay_of(*changes: Change | bytes, sieve: Sieve | None = None, since_ms: int = 0) -> Replay:
    lines = [change if isinstance(change, bytes) else change.line() for change in changes]
    return Replay(Lines(lines), sieve or Sieve({"things": "1"}), at_ms=5, gaps_since_ms=since_ms)


def pieces(replay: Replay, held: Mapping[str, str] | None = None, marks: Mapping[str, list[Mark]] | None = None) -> int:
    return len(replay.pieces(lambda keys: {key: held[key] for key in keys if key in (held or {})}, marks or {}))


# --- what is asked for ------------------------------------------------------------------------------------------------


def test_lines_of_other_tables_and_what_is_no_envelope_are_left_out_and_counted() -> None:
    sieve = Sieve({"things": "1"})
    lines = [put("a", 1).line(), Change({"id": "a"}, 1, table="others").line(), b"junk\n", b"[]\n", b'{"table":1}\n']
    assert [sieve.keeps(line) for line in lines] == [True, False, False, False, False]
    assert (sieve.kept, sieve.others, sieve.no_envelopes) == (1, 1, 3)


def test_of_a_repair_only_the_keys_changes_count_however_their_text_looks() -> None:
    """Numbers of 38 digits, escapes, and a key that stands inside of another item's text."""
    long = "1234567890123456789012345678.0123456789"
    key = canonical_key(f'{{ "id" : "a\\"b" , "n" : {long} }}')
    assert key == f'{{"id":"a\\"b","n":{long}}}'
    sieve = Sieve({"things": "1"}, frozenset({key}))
    line = put("x", 7).line().replace(b'"key":{"id":"x"}', f'"key":{key}'.encode())
    decoy = put("x", 8, text=f'"key":{key}').line()
    assert [sieve.keeps(one) for one in (line, decoy, put("y", 9).line())] == [True, False, False]
    assert sieve.newest == {key: put("x", 7).seq}


@pytest.mark.parametrize("text", ["a", "{}x", '{"id":', "7"])
def test_what_is_no_key_is_said_so_with_an_example(text: str) -> None:
    with pytest.raises(ConfigurationError, match="is no key"):
        canonical_key(text)


# --- what is refused --------------------------------------------------------------------------------------------------


def test_changes_made_under_other_rules_are_refused_and_nothing_is_handed_over() -> None:
    """A rule that drops an attribute now would let it back in."""
    with pytest.raises(ReplayRefusedError, match="1 changes of things were made by rules 1, now they are 2"):
        pieces(replay_of(put("a", 1), sieve=Sieve({"things": "2"})))


def test_a_replay_across_a_mark_of_lost_changes_is_refused_and_one_after_it_is_not() -> None:
    marks = {"things": [Mark("unproven/things/x.json", "near-expiry", 1_000)]}
    with pytest.raises(ReplayRefusedError, match="may have been lost"):
        pieces(replay_of(put("a", 1), since_ms=500), marks=marks)
    assert pieces(replay_of(put("a", 1), since_ms=1_001), marks=marks) == 1


def test_a_repair_is_not_held_up_by_a_gap_but_needs_a_change_as_new_as_the_row() -> None:
    marks = {"things": [Mark("unproven/things/x.json", "near-expiry", 1_000)]}
    keys = frozenset({'{"id":"a"}', '{"id":"b"}'})

    def replay() -> Replay:
        return replay_of(put("a", 3), put("a", 1), remove("b", 4), sieve=Sieve({"things": "1"}, keys))

    held = {'{"id":"a"}': put("a", 3).seq, '{"id":"b"}': remove("b", 4).seq}
    assert pieces(replay(), held, marks) == 1
    with pytest.raises(ReplayRefusedError, match=r'1 of 2 keys have no change here as new as their row: {"id":"b"}'):
        pieces(replay(), held | {'{"id":"b"}': put("b", 5).seq})
    with pytest.raises(ReplayRefusedError, match="2 of 2 keys"):
        pieces(replay_of(put("c", 1), sieve=Sieve({"things": "1"}, keys)), held)


def test_a_key_that_has_changes_and_no_row_is_repaired_too() -> None:
    assert pieces(replay_of(put("a", 3), sieve=Sieve({"things": "1"}, frozenset({'{"id":"a"}'}))), {}) == 1


def test_marks_are_read_oldest_first_and_one_that_cannot_be_understood_counts() -> None:
    store = Store()
    store.put("unproven/things/2.json", b'{"reason":"near-expiry","marked_ms":1793534400000}', 0)
    store.put("unproven/things/1.json", b"?", 0)
    store.put("unproven/things2/1.json", b"?", 0)
    found = marks_of(Bucket(store, "bucket"), "things")
    assert [str(mark) for mark in found] == ["unknown at 1970-01-01T00:00Z", "near-expiry at 2026-11-01T12:00Z"]
    with pytest.raises(ReplayRefusedError):
        pieces(replay_of(put("a", 1), since_ms=10**15), marks={"things": list(found)})


# --- times ------------------------------------------------------------------------------------------------------------


def accepted() -> AbstractContextManager[None]:
    return nullcontext()


@pytest.mark.parametrize(
    ("kinesis", "hours_ago", "expected"),
    [
        (StreamSummary(LONG_AGO), 23, accepted()),
        (StreamSummary(LONG_AGO), 25, pytest.raises(ConfigurationError, match="begins 2026-11-02T12:00Z")),
        (StreamSummary(LONG_AGO, retention_h=168), 25, accepted()),
        (
            StreamSummary(NOW - timedelta(hours=2)),
            3,
            pytest.raises(ConfigurationError, match="begins 2026-11-03T10:00Z"),
        ),
    ],
)
def test_a_time_before_the_horizon_is_refused_with_where_it_lies(
    kinesis: StreamSummary, hours_ago: int, expected: AbstractContextManager[Any]
) -> None:
    with expected:
        refuse_lost_times(kinesis, "changes", NOW - timedelta(hours=hours_ago), NOW)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (("2026-11-03T12:01", None, None), "in the future"),
        (("yesterday", None, None), "is no time"),
        (("trim-horizon", "2026-11-01", None), "go with --from archive"),
        (("archive", "2026-11-02", "2026-11-02"), "not before"),
        (("archive", "2027-01-01", None), "in the future"),
        (("archive", "x", None), "is no time"),
    ],
)
def test_times_that_cannot_be_meant_are_refused(given: tuple[str, str | None, str | None], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        span_of(*given, NOW)


def test_a_time_without_a_zone_is_utc() -> None:
    assert span_of("2026-11-03T10:00", None, None, NOW).since == datetime(2026, 11, 3, 10, tzinfo=UTC)
    assert span_of("2026-11-03T11:00+01:00", None, None, NOW).since == datetime(2026, 11, 3, 10, tzinfo=UTC)


# --- the archive ------------------------------------------------------------------------------------------------------


@dataclass
class Archived:
    """Objects of an archive, and a replay's material over them."""

    folder: Path
    store: Store = field(default_factory=Store)

    def put(self, name: str, *changes: Change | bytes) -> None:
        lines = [change if isinstance(change, bytes) else change.line() for change in changes]
        self.store.put(name, gzip.compress(b"".join(lines)), 0)

    def pieces(self, span: Span | None = None, sieve: Sieve | None = None) -> dict[str, bytes]:
        """Addresses, and what lies there."""
        bucket = Bucket(self.store, "bucket")
        intake = Intake.of(settings_for(self.folder, ["things"]))
        material = ArchiveMaterial(
            Archive(self.store, "bucket", "archive/"), bucket, intake, "replay-1", span or Span(), lambda *_: None
        )
        found = {}
        for piece in material.pieces(sieve or Sieve({"things": "1"})):
            name = piece.address.removeprefix("s3://bucket/")
            body = self.store.objects[name][0] if piece.address.startswith("s3://") else intake.read(piece)
            assert body is not None
            found[piece.address] = gzip.decompress(body)
        return found


@pytest.fixture
def archived(tmp_path: Path) -> Archived:
    return Archived(tmp_path)


def test_first_loads_come_first_and_whole_objects_are_handed_over_where_they_lie(archived: Archived) -> None:
    archived.put("archive/date=2026-11-02/hour=03/b.gz", put("b", 2))
    archived.put("archive/date=2026-11-01/hour=23/a.gz", put("a", 1))
    archived.put("snapshot/one/0000-000000.ndjson.gz", put("s", 0))
    archived.store.put("snapshot/one/manifest.json", b"{}", 0)
    assert archived.pieces() == {
        "s3://bucket/snapshot/one/0000-000000.ndjson.gz": put("s", 0).line(),
        "s3://bucket/archive/date=2026-11-01/hour=23/a.gz": put("a", 1).line(),
        "s3://bucket/archive/date=2026-11-02/hour=03/b.gz": put("b", 2).line(),
    }


def test_of_an_object_with_other_lines_a_copy_without_them_is_handed_over(archived: Archived) -> None:
    """Rejects of the stream are in `rejects` already, under their own position."""
    other = Change({"id": "o"}, 1, table="others", new={"id": "o"})
    archived.put("archive/date=2026-11-01/hour=23/a.gz", put("a", 1), b"junk\n", other, put("b", 2))
    archived.put("archive/date=2026-11-01/hour=23/b.gz", other)
    assert archived.pieces() == {"pieces/replay-1/00000001": put("a", 1).line() + put("b", 2).line()}


def test_a_span_of_time_leaves_out_other_hours_and_first_loads(archived: Archived) -> None:
    for hour in ("21", "22", "23"):
        archived.put(f"archive/date=2026-11-01/hour={hour}/a.gz", put(hour, 1))
    archived.put("snapshot/one/0000-000000.ndjson.gz", put("s", 0))
    span = Span(datetime(2026, 11, 1, 22, tzinfo=UTC), datetime(2026, 11, 1, 23, tzinfo=UTC))
    assert list(archived.pieces(span)) == ["s3://bucket/archive/date=2026-11-01/hour=22/a.gz"]


def test_an_object_of_the_archive_that_breaks_off_stops_the_replay_with_its_name(archived: Archived) -> None:
    archived.put("archive/date=2026-11-01/hour=23/a.gz", put("a", 1))
    name, (body, at_ms) = archived.store.objects.popitem()
    archived.store.objects[name] = (body[:-6], at_ms)
    with pytest.raises(ArchiveUnreadableError, match=r"hour=23/a\.gz is no gzip NDJSON"):
        archived.pieces()

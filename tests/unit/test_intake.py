import gzip
import json
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
import pytest
from lake_rig import KilledError, LatencyNotes, settings_for, table_config

from config.errors import ConfigurationError
from config.settings import IntakeSettings
from streaming_job.errors import LeaseLostError
from streaming_job.pipeline.batch import BatchReport
from streaming_job.pipeline.intake import HandOver, Intake, Piece
from streaming_job.pipeline.intake_drain import Drain, PausableLatency
from streaming_job.pipeline.intake_rows import SOURCE, encoded_rows
from streaming_job.pipeline.intake_store import BucketStore, FolderStore, store_of
from streaming_job.pipeline.lane import TableReport

TABLES = {"things": table_config()}


@dataclass
class Lake:
    """Takes rows in as the pipeline would, and remembers them."""

    batches: list[pa.Table] = field(default_factory=list)
    repaired: list[bool] = field(default_factory=list)
    trouble: Callable[[], None] = lambda: None
    is_parking: bool = False

    def __call__(self, rows: pa.Table, *, repair: bool) -> BatchReport:
        self.trouble()
        self.batches.append(rows)
        self.repaired.append(repair)
        written = TableReport(changes=rows.num_rows, history_inserted=rows.num_rows)
        written.commit_ms, written.failure = (None, "TableFailedError: no") if self.is_parking else (1, None)
        return BatchReport(-1, rows=rows.num_rows, tables={"things": written})

    @property
    def lines(self) -> list[bytes]:
        return [line for batch in self.batches for line in batch["data"].to_pylist()]


@dataclass
class Now:
    s: float = 0.0

    def __call__(self) -> float:
        return self.s


@pytest.fixture
def intake(tmp_path: Path) -> Intake:
    return Intake.of(settings_for(tmp_path, ["things"]))


def drain_of(intake: Intake, lake: Lake, now: Now | None = None, **settings: float) -> Drain:
    return Drain(intake, TABLES, lake, IntakeSettings.model_validate(settings), clock=now or Now())


def handed(intake: Intake, *bodies: bytes, of_id: str = "replay-1", part: int = 0, at_ms: int = 1_000) -> HandOver:
    pieces = tuple(
        Piece(name=f"{part}-{number}", address=intake.stage(of_id, f"{part}-{number}", body), form="lines")
        for number, body in enumerate(bodies)
    )
    work = HandOver(
        id=of_id, what="replay", tables=("things",), stream="archive", at_ms=at_ms, part=part, pieces=pieces
    )
    intake.hand_over(work)
    return work


def take_in_all(drain: Drain) -> None:
    for _ in range(100):
        drain.step(is_quiet=True)


def test_what_was_handed_over_is_taken_in_once_oldest_first_and_answered_by_receipts(intake: Intake) -> None:
    """Two hand-overs, the later one written first; a plain and a gzip piece; looked for again afterwards."""
    handed(intake, b"3\n", of_id="late", at_ms=2_000)
    handed(intake, b"1\n", gzip.compress(b"2a\n\n2b\n"), of_id="early")
    lake = Lake()
    drain = drain_of(intake, lake, look_every_s=0.001)
    take_in_all(drain)
    assert lake.lines == [b"1\n", b"2a\n", b"2b\n", b"3\n"]
    assert {name: receipt.rows for name, receipt in intake.receipts("early").items()} == {"0-0": 1, "0-1": 2}
    assert intake.waiting() == []
    assert list(intake._store.names("pieces/")) == []


def test_a_line_has_the_same_position_each_time_its_object_is_handed_over(intake: Intake) -> None:
    """Stream, object and number of the line; an empty line counts."""
    handed(intake, b"a\n\nb\n")
    lake = Lake()
    take_in_all(drain_of(intake, lake))
    (rows,) = lake.batches
    assert rows.schema == SOURCE
    assert rows.select(["stream", "shardId", "sequenceNumber"]).to_pylist() == [
        {"stream": "archive", "shardId": "pieces/replay-1/0-0", "sequenceNumber": "1"},
        {"stream": "archive", "shardId": "pieces/replay-1/0-0", "sequenceNumber": "3"},
    ]


def test_a_piece_of_rows_keeps_the_positions_it_came_with(intake: Intake) -> None:
    rows = pa.Table.from_pylist(
        [{"data": b"\xff\n", "stream": "s", "shardId": "shard-3", "sequenceNumber": "17"}], schema=SOURCE
    )
    piece = Piece(name="1", address=intake.stage("x", "1", encoded_rows(rows)), form="rows")
    intake.hand_over(
        HandOver(id="x", what="replay", tables=("things",), stream="", at_ms=1, repair=True, pieces=(piece,))
    )
    lake = Lake()
    take_in_all(drain_of(intake, lake))
    assert pa.concat_tables(lake.batches).equals(rows)
    assert lake.repaired == [True]


def test_a_piece_is_cut_into_slices_by_rows_and_by_bytes(intake: Intake) -> None:
    handed(
        intake, b"".join(b"%d\n" % number for number in range(5)), b"x" * 700_000 + b"\n" + b"y" * 700_000 + b"\nz\n"
    )
    lake = Lake()
    take_in_all(drain_of(intake, lake, slice_rows_max=2, slice_bytes_max=1024 * 1024))
    assert [batch.num_rows for batch in lake.batches] == [2, 2, 1, 2, 1]


def test_a_writer_killed_at_any_point_leaves_every_change_in_the_lake(intake: Intake) -> None:
    """Killed at each slice in turn; the next writer begins at the first piece without a receipt, from its beginning."""
    handed(intake, b"1\n2\n", b"3\n4\n")
    seen: list[bytes] = []
    for until in range(5):
        calls = 0

        def dies() -> None:
            nonlocal calls
            calls += 1
            if calls > until:  # noqa: B023 - called within this turn
                raise KilledError

        lake = Lake(trouble=dies)
        with suppress(KilledError):
            take_in_all(drain_of(intake, lake, slice_rows_max=1))
        seen += lake.lines
    assert set(seen) == {b"1\n", b"2\n", b"3\n", b"4\n"}
    assert intake.done("replay-1") == {"0-0", "0-1"}
    assert intake.waiting() == []


def test_while_the_stream_has_batches_a_slice_takes_no_more_than_its_share(intake: Intake) -> None:
    """Each slice takes 2 s of 25 %: the next one is due 6 s later, on a quiet stream at once."""
    handed(intake, b"1\n2\n3\n")
    now = Now()

    def takes_long() -> None:
        now.s += 2

    lake = Lake(trouble=takes_long)
    drain = drain_of(intake, lake, now, slice_rows_max=1, share_max=0.25)
    drain.step(is_quiet=False)
    now.s += 5.9
    assert drain.step(is_quiet=False) is None
    now.s += 0.2
    assert drain.step(is_quiet=False) is not None
    assert drain.step(is_quiet=True) is not None
    assert lake.lines == [b"1\n", b"2\n", b"3\n"]


def test_between_two_looks_at_an_empty_intake_its_place_is_left_alone(intake: Intake) -> None:
    now, lake = Now(), Lake()
    drain = drain_of(intake, lake, now, look_every_s=5)
    drain.step(is_quiet=True)
    handed(intake, b"1\n")
    now.s = 4.9
    assert not drain.is_due(is_quiet=True)
    now.s = 5.0
    assert drain.step(is_quiet=True) is not None


def test_a_piece_nobody_can_read_is_answered_and_the_next_one_taken_in(intake: Intake) -> None:
    """One gone, one gzip that breaks off, one good."""
    broken = gzip.compress(b"1\n" * 10_000)[:-20]
    work = handed(intake, b"gone\n", broken, b"good\n")
    intake._store.delete(work.pieces[0].address)
    lake = Lake()
    take_in_all(drain_of(intake, lake))
    receipts = intake.receipts("replay-1")
    assert receipts["0-0"].failure == "pieces/replay-1/0-0 is not there"
    assert str(receipts["0-1"].failure).startswith("pieces/replay-1/0-1 cannot be read to its end")
    assert receipts["0-2"].failure is None
    assert lake.lines[-1] == b"good\n"


def test_a_slice_that_fails_is_tried_again_then_given_up_and_the_stream_goes_on(intake: Intake) -> None:
    """Three times, with growing distance; the error that must end the job ends it."""
    handed(intake, b"1\n", b"2\n")
    now, tries = Now(), 0

    def fails_on_the_first() -> None:
        nonlocal tries
        tries += 1
        if tries <= 3:
            raise OSError("no space")

    lake = Lake(trouble=fails_on_the_first)
    drain = drain_of(intake, lake, now)
    drain.step(is_quiet=True)
    assert not drain.is_due(is_quiet=True)
    for _ in range(20):
        now.s += 30
        drain.step(is_quiet=True)
    assert intake.receipts("replay-1")["0-0"].failure == "OSError: no space"
    assert lake.lines == [b"2\n"]

    def lost() -> None:
        raise LeaseLostError("gone")

    handed(intake, b"3\n", of_id="next")
    with pytest.raises(LeaseLostError):
        take_in_all(drain_of(intake, Lake(trouble=lost)))
    assert intake.waiting() != []


def test_a_table_that_cannot_be_written_is_told_with_how_many_rows_are_parked(intake: Intake) -> None:
    handed(intake, b"1\n2\n")
    take_in_all(drain_of(intake, Lake(is_parking=True)))
    receipt = intake.receipts("replay-1")["0-0"]
    assert (receipt.parked, receipt.failure) == (2, "TableFailedError: no")


def test_what_is_withdrawn_is_not_taken_in(intake: Intake) -> None:
    """The piece in hand is finished, the next ones are gone, and nothing staged is left."""
    handed(intake, b"1\n2\n", b"3\n")
    lake = Lake()
    drain = drain_of(intake, lake, slice_rows_max=1)
    drain.step(is_quiet=True)
    intake.withdraw("replay-1")
    take_in_all(drain)
    assert lake.lines == [b"1\n", b"2\n"]
    assert intake.done("replay-1") == {"0-0"}
    intake.forget("replay-1")
    assert intake._store.names("") == []


def test_of_hundreds_of_thousands_of_parts_each_is_withdrawn_by_the_id(intake: Intake) -> None:
    for part in (0, 999_999, 1_000_000, 99_999_999):
        handed(intake, b"1\n", part=part)
    kept = handed(intake, b"2\n", of_id="replay-1-000001")
    intake.withdraw("replay-1")
    assert intake.waiting() == [kept.place]


def test_a_writer_leaves_other_writers_tables_and_puts_aside_what_is_no_hand_over(intake: Intake) -> None:
    work = handed(intake, b"1\n")
    other = work.model_copy(update={"id": "other", "tables": ("things", "others"), "at_ms": 1})
    intake.hand_over(other)
    intake._store.put("waiting/0000000000000-junk-000000.json", json.dumps({"v": 2}).encode())
    lake = Lake()
    take_in_all(drain_of(intake, lake))
    assert lake.lines == [b"1\n"]
    assert intake.waiting() == [other.place]
    assert intake._store.names("refused/") == ["refused/0000000000000-junk-000000.json"]


def test_latency_is_measured_of_the_stream_and_not_of_what_is_handed_over() -> None:
    notes = LatencyNotes()
    latency = PausableLatency(notes)
    given = {"table": "t", "batch": "b", "batch_start_ms": 1, "commit_ms": 2}
    with latency.paused():
        latency.record(pa.table({"a": [1]}), **given)
    latency.record(pa.table({"a": [1]}), **given)
    assert len(notes.notes) == 1


def test_the_intake_lies_beside_the_tables_or_in_the_bucket_of_a_catalogs_lake(tmp_path: Path) -> None:
    base = settings_for(tmp_path, ["things"])
    bucket = {"bucket": {"name": "bucket"}}
    catalog = {"lake": {"catalog": "c", "schema": "s", "checkpoint": "x"}}
    remote = {"lake": {"root": "s3://lake/deep/", "checkpoint": "x"}}
    assert isinstance(store_of(base), FolderStore)
    in_lake = store_of(settings_for(tmp_path, ["things"], **remote))
    assert isinstance(in_lake, BucketStore)
    assert (in_lake._name, in_lake._prefix) == ("lake", "deep/intake/")
    in_bucket = store_of(settings_for(tmp_path, ["things"], **catalog, **bucket))
    assert isinstance(in_bucket, BucketStore)
    assert (in_bucket._name, in_bucket._prefix) == ("bucket", "intake/c.s/")
    with pytest.raises(ConfigurationError, match="no place to hand work over"):
        store_of(settings_for(tmp_path, ["things"], **catalog))

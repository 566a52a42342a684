"""A table that cannot be opened is one table's trouble: parked, tried again, and written once it is mended."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from envelopes import Change, collected, put
from lake_rig import table_config
from lanes_rig import LanesRig, while_waiting

from streaming_job.pipeline import parking
from streaming_job.pipeline.lease import holder_of
from streaming_job.pipeline.locations import Lake


def damaged(table: Path) -> Callable[[], None]:
    """A table that nobody can open until the answer is called."""
    log = table / "_delta_log" / f"{0:020d}.json"
    sound = log.read_bytes()
    log.write_text("not a log")
    return lambda: log.write_bytes(sound) and None


def test_a_table_that_fails_to_open_once_its_lease_is_taken_parks_its_changes_until_it_is_mended(
    tmp_path: Path,
) -> None:
    rig = LanesRig(tmp_path)
    rig.run([put("a", 1, n=1)])
    mend = damaged(tmp_path / "refused")
    with rig.opened() as lanes:
        report = lanes.run(collected([put("a", 2, n=2)]))
        assert report.parked == 1
        properties = rig.tables.properties(rig.places.current)
        assert holder_of(properties, rig.clock.now_ms) is None, "what is not open is not held"
        mend()
        rig.clock.now_ms += 60_000
        report = lanes.run(collected([put("b", 1, n=3)]))
        assert (report.drained, report.parked, report.failure) == (1, 0, None)
    assert rig.rows("things/current", "_key", "n") == [
        {"_key": '{"id":"a"}', "n": 2.0},
        {"_key": '{"id":"b"}', "n": 3.0},
    ]


def test_what_another_writer_parks_while_the_lease_is_waited_for_is_drained_before_anything_newer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The one before has a rule that its table cannot serve."""
    rig = LanesRig(tmp_path)
    rig.run([put("a", 1, n=1)])
    before = LanesRig(tmp_path, table_config(columns={"n": {"type": "date"}}))
    old, _ = before.lanes()
    old.open()

    def parks_and_ends() -> None:
        assert old.run(collected([put("a", 2, n=2)])).parked == 1
        old.close()

    while_waiting(monkeypatch, parks_and_ends)
    (report,) = rig.run([put("b", 1, n=3)])
    assert (report.drained, report.parked, report.failure) == (1, 0, None)
    assert [row["n"] for row in rig.rows("things/current", "_key", "n")] == [2.0, 3.0]
    assert len(rig.rows("things/history", "_seq")) == 3


def test_a_table_that_opens_late_drains_what_another_writer_parked_before_it_is_written(tmp_path: Path) -> None:
    rig = LanesRig(tmp_path)
    rig.run([put("a", 1, n=1)])
    mend = damaged(tmp_path / "refused")
    with rig.opened() as lanes:
        mend()
        parked = rig.tables.open("rust", parking.spec(Lake(rig.settings.lake).shared("parked")))
        parking.Parking(parked, "things").add(collected([put("a", 2, n=2)]), "by another writer", rig.clock())
        report = lanes.run(collected([put("b", 1, n=3)]))
    assert (report.drained, report.parked, report.failure) == (1, 0, None)


def test_a_stream_that_another_writer_saw_while_the_lease_was_waited_for_counts_in_the_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After it, what an older one tells is refused."""
    rig = LanesRig(tmp_path)
    rig.run([put("a", 1, n=1)])
    old, _ = rig.lanes()
    old.open()

    def sees_a_newer_stream_and_ends() -> None:
        old.run(collected([_of("20261103120000000", "a", 2)]))
        old.close()

    while_waiting(monkeypatch, sees_a_newer_stream_and_ends)
    (report,) = rig.run([_of("20261102120000000", "a", 3)])
    assert report.refused == 1


def _of(stream: str, key: str, number: int) -> Change:
    return replace(put(key, number, n=number), generation=stream)

"""The pauses between two batches, and looks at a table: trouble of one table is met there too, and ends no job."""

from pathlib import Path

import pytest
from envelopes import collected, put
from lanes_rig import LanesRig
from pyspark.sql.types import StructType

from streaming_job.errors import LeaseLostError
from streaming_job.pipeline.lease import Lease
from streaming_job.pipeline.merge import TableSpec
from streaming_job.pipeline.merge_rust import RustTable
from streaming_job.pipeline.opening import Tables
from streaming_job.pipeline.order import UNPROVEN_PROPERTY


def test_a_lease_that_cannot_be_renewed_in_a_pause_is_its_tables_trouble_and_tried_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The table's folder goes away and comes back; looked for at growing distances, and written at once."""
    rig = LanesRig(tmp_path)
    folder, away = tmp_path / "things", tmp_path / "away"
    with rig.opened() as lanes:
        lanes.run(collected([put("a", 1, n=1)]))
        folder.rename(away)
        rig.clock.now_ms += 61_000
        for _ in range(20):
            lanes.between_batches()
        assert caplog.text.count("table cannot be written") == 2
        away.rename(folder)
        assert lanes.run(collected([put("a", 2, n=2)])).failure is None
    assert [row["n"] for row in rig.rows("things/current", "n")] == [2.0]


def test_a_lease_found_lost_in_a_pause_stops_the_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def lost(_lease: Lease) -> None:
        raise LeaseLostError("taken over")

    with LanesRig(tmp_path).opened() as lanes:
        monkeypatch.setattr(Lease, "renew_when_due", lost)
        with pytest.raises(LeaseLostError):
            lanes.between_batches()


def test_a_table_that_cannot_be_asked_whether_it_is_unproven_says_what_it_said_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_table: RustTable) -> dict[str, str]:
        raise OSError("no such folder")

    rig = LanesRig(tmp_path)
    with rig.opened() as lanes:
        rig.tables.open("rust", TableSpec(rig.places.current, StructType())).set_properties(
            {UNPROVEN_PROPERTY: "since then"}
        )
        rig.clock.now_ms += 11_000
        assert lanes.run(collected([put("a", 1, n=1)])).is_unproven
        rig.clock.now_ms += 11_000
        with monkeypatch.context() as patched:
            patched.setattr(RustTable, "properties", broken)
            report = lanes.run(collected([put("a", 2, n=2)]))
        assert (report.is_unproven, report.parked) == (True, 1)


def test_a_look_for_the_table_latency_that_fails_is_made_again_a_minute_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_where: object) -> bool:
        raise OSError("throttled")

    rig = LanesRig(tmp_path)
    _, assembly = rig.lanes()
    monkeypatch.setattr(Tables, "exists", broken)
    for _ in range(3):
        assembly.tend()
    assert len(caplog.records) == 1
    rig.clock.now_ms += 61_000
    assembly.tend()
    assert len(caplog.records) == 2

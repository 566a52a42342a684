"""A table that cannot be opened is one table's trouble: parked, tried again, and written once it is mended."""

from pathlib import Path

from envelopes import collected, put
from lanes_rig import LanesRig

from streaming_job.pipeline.lease import holder_of


def test_a_table_that_fails_to_open_once_its_lease_is_taken_parks_its_changes_until_it_is_mended(
    tmp_path: Path,
) -> None:
    rig = LanesRig(tmp_path)
    rig.run([put("a", 1, n=1)])
    log = tmp_path / "refused" / "_delta_log" / f"{0:020d}.json"
    sound = log.read_bytes()
    log.write_text("not a log")
    with rig.opened() as lanes:
        report = lanes.run(collected([put("a", 2, n=2)]))
        assert report.parked == 1
        properties = rig.tables.properties(rig.places.current)
        assert holder_of(properties, rig.clock.now_ms) is None, "what is not open is not held"
        log.write_bytes(sound)
        rig.clock.now_ms += 60_000
        report = lanes.run(collected([put("b", 1, n=3)]))
        assert (report.drained, report.parked, report.failure) == (1, 0, None)
    assert rig.rows("things/current", "_key", "n") == [
        {"_key": '{"id":"a"}', "n": 2.0},
        {"_key": '{"id":"b"}', "n": 3.0},
    ]

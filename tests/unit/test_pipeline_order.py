"""Streams that follow one another, and those whose labels do not say so: what is written, what is refused and kept."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from envelopes import DAY_MS, GENERATION, Change, collected, put, remove
from hypothesis import given
from hypothesis import strategies as st
from lake_rig import table_config
from lanes_rig import LanesRig
from pydantic import ValidationError
from pyspark.sql.types import StructType

from config.tables import LakeRules
from streaming_job.pipeline.merge import TableSpec
from streaming_job.pipeline.order import REFUSED, UNPROVEN_PROPERTY, Placing, digits_of, generation_at, made_ms
from streaming_job.pipeline.properties import read

HOUR_MS = 3_600_000
REPLICA = "20240501080000000"
REPLICAS_LABEL = "2024-05-01T08:00:00.000"
LABEL = "2026-11-01T12:00:00.000"
FAILOVER = "2026-11-02T00:00:00Z"
STATED = {"streams": [{"label": REPLICAS_LABEL, "since": FAILOVER}]}


def of_replica(change: Change, *, hours: float = 13) -> Change:
    return replace(change, generation=REPLICA, created_ms=DAY_MS + int(hours * HOUR_MS))


def unproven(rig: LanesRig) -> dict[str, Any] | None:
    return read(rig.tables.properties(rig.places.current).get(UNPROVEN_PROPERTY))


def seqs(rig: LanesRig, place: str = "things/current") -> list[str]:
    return [row["_seq"] for row in rig.rows(place, "_seq")]


def test_the_generation_is_the_label_it_is_made_from_and_a_moment_becomes_one() -> None:
    assert digits_of(LABEL) == GENERATION
    assert made_ms(GENERATION) == DAY_MS
    rules = LakeRules.model_validate({"name": "t", **STATED})
    (stream,) = rules.streams
    assert stream.since is not None
    assert generation_at(stream.since) == "20261102000000000"
    assert made_ms("0" * 17) > made_ms("99991231235959999")


def test_an_older_label_is_refused_and_kept_with_the_mend_and_holds_nothing_else(lake: Path) -> None:
    """A replica's changes after a failover nobody stated, among changes of the stream there was."""
    rig = LanesRig(lake)
    (_, report, again) = rig.run([put("a", 1, n=1)], [of_replica(put("a", 1, n=9)), put("b", 1, n=2)], [put("c", 1)])
    assert (report.refused, report.parked, report.failure, again.refused) == (1, 0, None, 1)
    assert seqs(rig) == seqs(rig, "things/history") == [put("a", 1).seq] * 3
    (kept,) = rig.rows("refused", "_table", "_why", "_change_seq", "_new")
    assert kept["_why"] == REFUSED
    assert kept["_change_seq"] == of_replica(put("a", 1)).seq
    assert "lake.streams" in REFUSED


def test_what_was_refused_is_taken_in_by_a_job_whose_rules_state_the_order_and_counts_as_later(lake: Path) -> None:
    """The replica numbers its changes anew and lower: they still stand after all that came before the failover."""
    LanesRig(lake).run([put("a", 50, n=1), put("gone", 50, n=1)], [of_replica(put("a", 3, n=2))])
    rig = LanesRig(lake, table_config(**STATED))
    (report,) = rig.run([of_replica(remove("gone", 4))])
    assert report.refused == 0
    assert rig.rows("refused", "_key") == []
    rows = rig.rows("things/current", "_key", "_seq", "_deleted", "n")
    assert [(row["_seq"][:17], row["_deleted"], row["n"]) for row in rows] == [
        ("20261102000000000", False, 2.0),
        ("20261102000000000", True, None),
    ]
    assert unproven(rig) is not None


def test_a_crash_before_what_was_taken_in_is_struck_off_takes_it_in_again_and_changes_nothing(lake: Path) -> None:
    """The table `refused` is put back as it was."""
    LanesRig(lake).run([put("a", 50)], [of_replica(put("a", 3))], [of_replica(put("b", 4))])
    shutil.copytree(lake / "refused", lake / "kept")
    rig = LanesRig(lake, table_config(**STATED))
    rig.run([])
    held = [seqs(rig), seqs(rig, "things/history")]
    shutil.rmtree(lake / "refused")
    (lake / "kept").rename(lake / "refused")
    rig.run([of_replica(put("a", 3))])
    assert [seqs(rig), seqs(rig, "things/history")] == held
    assert rig.rows("refused", "_key") == []


def test_the_way_back_is_stated_as_the_way_there_was(lake: Path) -> None:
    """Fail-back: the first stream's label is known; what it tells from after the failover is refused all the same."""
    back = {"streams": [*STATED["streams"], {"label": LABEL, "since": "2026-11-03T00:00:00Z"}]}
    late = replace(put("a", 60, n=3), created_ms=DAY_MS + 38 * HOUR_MS)
    rig = LanesRig(lake, table_config(**STATED))
    reports = rig.run([put("a", 50, n=1)], [of_replica(put("a", 3, n=2))], [late], [put("b", 51, n=1)])
    assert [report.refused for report in reports] == [0, 0, 1, 1]
    again = LanesRig(lake, table_config(**back))
    again.run([])
    rows = again.rows("things/current", "_key", "_seq", "n")
    assert [(row["_seq"][:17], row["n"]) for row in rows] == [("20261103000000000", 3.0), (GENERATION, 1.0)]


def test_an_old_stream_whose_changes_come_late_keeps_its_place_once_it_is_named(lake: Path) -> None:
    early = replace(put("a", 9, n=0), generation=REPLICA)
    LanesRig(lake).run([put("a", 1, n=1)], [early])
    rig = LanesRig(lake, table_config(streams=[{"label": REPLICAS_LABEL}]))
    rig.run([])
    assert rig.rows("refused", "_key") == []
    assert seqs(rig) == [put("a", 1).seq]
    assert seqs(rig, "things/history") == sorted([early.seq, put("a", 1).seq])


def test_a_stream_made_anew_goes_on_and_leaves_the_table_unproven(lake: Path) -> None:
    rig = LanesRig(lake)
    anew = replace(put("a", 1, n=2), generation="20261105000000000")
    first, second, late = rig.run([put("a", 7, n=1)], [anew], [put("b", 8, n=1)])
    assert (first.is_unproven, second.is_unproven, late.is_unproven) == (False, True, True)
    assert (second.refused, late.refused) == (0, 0)
    assert [row["n"] for row in rig.rows("things/current", "n")] == [1.0, 2.0]
    said = unproven(rig)
    assert said is not None
    assert "20261105000000000" in said["why"]


def test_what_a_table_has_seen_is_known_to_the_next_job_and_of_an_older_table_by_its_rows(lake: Path) -> None:
    LanesRig(lake).run([put("a", 7)])
    rig = LanesRig(lake)
    table = rig.tables.open("rust", TableSpec(rig.places.current, StructType()))
    table.set_properties({"lakestream.generations": ""})
    assert [report.refused for report in rig.run([of_replica(put("a", 1))])] == [1]


@pytest.mark.parametrize(
    ("streams", "says"),
    [
        ([{"label": "20240501080000000", "since": FAILOVER}], "pattern"),
        ([{"label": REPLICAS_LABEL, "since": "2026-11-02 00:00:00"}], "timezone"),
        ([{"label": LABEL, "since": FAILOVER}, {"label": REPLICAS_LABEL, "since": FAILOVER}], "same moment"),
    ],
)
def test_an_order_that_cannot_be_meant_is_refused(streams: list[dict[str, str]], says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        LakeRules.model_validate({"name": "t", "streams": streams})


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 96), st.integers(0, 99)), min_size=1, max_size=30))
def test_placed_changes_order_by_who_had_the_table_then_by_their_number(drawn: list[tuple[bool, int, int]]) -> None:
    """Against the plainest account: failover after half a day, back a day later, the number within each reign."""
    streams = [*STATED["streams"], {"label": LABEL, "since": "2026-11-03T00:00:00Z"}]
    placing = Placing(LakeRules.model_validate({"name": "t", "streams": streams}))
    changes = [
        replace(put("k", number), generation=REPLICA if is_replica else GENERATION, created_ms=DAY_MS + hour * HOUR_MS)
        for is_replica, hour, number in drawn
    ]
    seqs = placing(collected(changes))["change_seq"].to_pylist()
    reigns = [(0 if hour < 12 else 2) if is_replica else (3 if hour >= 36 else 1) for is_replica, hour, _ in drawn]
    expected = [(reign, number) for reign, (_, _, number) in zip(reigns, drawn, strict=True)]
    assert sorted(range(len(seqs)), key=lambda at: (seqs[at], at)) == sorted(
        range(len(expected)), key=lambda at: (expected[at], at)
    )

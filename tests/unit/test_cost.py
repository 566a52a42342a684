import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from config.errors import ConfigurationError
from streaming_job.cli import app
from streaming_job.operations.cost_forecast import Load, Way, forecast, shards_for
from streaming_job.operations.cost_prices import PRICES, load_prices
from streaming_job.operations.measured import JOB_CORE_MS

LOAD = Load(changes_s=10, item_bytes=2_000, old_images=True)
TABLE = load_prices()


def lines(load: Load = LOAD, **way: Any) -> dict[tuple[str, str], float]:
    return {(line.service, line.what): line.usd for line in forecast(load, Way(**way), TABLE)}


def total(load: Load = LOAD, **way: Any) -> float:
    return sum(lines(load, **way).values())


def test_each_line_is_what_the_service_meters_times_its_price() -> None:
    """Reckoned by hand: 26,280,000 changes a month, of 2 x 2,000 + 650 bytes, which Kinesis counts as 5 KiB."""
    found = lines()
    gb = 26_280_000 * 5 * 1024 / 1e9
    assert found["Kinesis", "stream"] == pytest.approx(730 * 0.04)
    assert found["Kinesis", "in"] == pytest.approx(gb * 0.08)
    assert found["Kinesis", "kept past 24 hours"] == pytest.approx(gb / 730 * 144 * 0.10)
    assert found["Firehose", "in"] == pytest.approx(gb * 0.029)
    assert found["Lambda", "invocations"] == pytest.approx(4 * 3600 * 730 / 1e6 * 0.20)
    assert found["S3", "merges' requests"] == pytest.approx(60 * 60 * 730 * (5 * 0.005 + 10 * 0.0004) / 1000)
    assert found["DynamoDB", "verify's scans"] == pytest.approx(1e6 * 30 * 0.5 * 0.125 / 1e6)


def invocations_s(load: Load) -> float:
    found = next(line for line in forecast(load, Way(), TABLE) if line.what == "invocations")
    return found.quantity / 3600 / 730


@pytest.mark.parametrize(
    ("load", "polls_s"),
    [
        (Load(changes_s=5_000, item_bytes=4_400), 100),
        (Load(changes_s=5_000, item_bytes=4_400, tables=10), 120),
        (Load(changes_s=10, item_bytes=2_000), 4),
        (Load(changes_s=1_000, item_bytes=100, table_shards=9), 36),
    ],
)
def test_each_of_a_tables_shards_is_polled_four_times_a_second(load: Load, polls_s: float) -> None:
    """25 shards for 25,000 write units; 3 for each tenth of them; one at least; as many as are said to be there."""
    assert invocations_s(load) == pytest.approx(polls_s)


def test_a_provisioned_stream_is_paid_by_shard_and_by_units_of_25_kb() -> None:
    found = lines(mode="PROVISIONED", shards=2)
    assert found["Kinesis", "shards"] == pytest.approx(2 * 730 * 0.015)
    assert found["Kinesis", "in"] == pytest.approx(26.28 * 0.014)
    assert found["Kinesis", "kept past 24 hours"] == pytest.approx(2 * 730 * 0.02)


@pytest.mark.parametrize(
    ("cheaper", "dearer"),
    [
        ({"commits_min": 1.0}, {"commits_min": 60.0}),
        ({"retention_h": 24}, {"retention_h": 168}),
        ({"retention_h": 168}, {"retention_h": 720}),
        ({"archive_days": 30}, {"archive_days": 400}),
        ({"fan_out": False}, {"fan_out": True}),
        ({"nodes": 0}, {"nodes": 1}),
        ({"databricks": False}, {"databricks": True}),
        ({"verifies_month": 0.0}, {"verifies_month": 30.0}),
        ({"hashes": False}, {"hashes": True}),
    ],
)
def test_more_of_anything_never_costs_less(cheaper: dict[str, Any], dearer: dict[str, Any]) -> None:
    assert total(**cheaper) < total(**dearer)


def test_a_greater_load_costs_more_and_less_a_change() -> None:
    busy = replace(LOAD, changes_s=1_000)
    assert total() < total(busy)
    assert total(busy) / 100 < total()


def test_merges_are_never_reckoned_more_often_than_there_are_changes() -> None:
    quiet = replace(LOAD, changes_s=0.001)
    assert lines(quiet, commits_min=60.0) == lines(quiet, commits_min=1.0)


@pytest.mark.parametrize(
    ("load", "shards"),
    [
        (Load(changes_s=0.1), 1),
        (Load(changes_s=1_001, item_bytes=10, old_images=False), 2),
        (Load(changes_s=1_000, item_bytes=10_000), 20),
    ],
)
def test_shards_are_enough_for_both_their_limits(load: Load, shards: int) -> None:
    assert shards_for(load) == shards
    with pytest.raises(ConfigurationError, match="cannot take"):
        Way(mode="PROVISIONED", shards=shards - 1).check(load)
    Way(mode="PROVISIONED", shards=shards).check(load)


@pytest.mark.parametrize("hours", [12, 8761])
def test_a_retention_that_cannot_be_is_refused(hours: int) -> None:
    with pytest.raises(ConfigurationError, match=str(hours)):
        lines(retention_h=hours)


@pytest.mark.parametrize(
    "change", [{"as_of": "someday"}, {"kinesis": {}}, {"colour": "red"}, {"s3": {"standard_gb_month": -1}}]
)
def test_a_price_table_with_a_word_or_number_that_cannot_be_is_refused(tmp_path: Path, change: dict[str, Any]) -> None:
    file = tmp_path / "prices.yaml"
    file.write_text(yaml.safe_dump(yaml.safe_load(PRICES.read_text()) | change))
    with pytest.raises(ConfigurationError, match=next(iter(change))):
        load_prices(file)


def test_the_command_prints_what_the_lines_add_up_to_and_the_prices_date() -> None:
    answer = json.loads(CliRunner().invoke(app, ["cost", "10", "--json"]).stdout)
    assert answer["usd_month"] == pytest.approx(sum(line["usd"] for line in answer["lines"]), abs=0.01)
    assert answer["prices_as_of"] == TABLE.as_of.isoformat()
    shown = CliRunner().invoke(app, ["cost", "10"]).stdout
    assert f"{answer['usd_month']:,.2f}" in shown
    assert TABLE.as_of.isoformat() in shown


def test_the_archive_as_a_source_saves_the_job_s_reading_and_its_idle_hours() -> None:
    found = lines(way="files", runs_h=4.0)
    assert ("Kinesis", "out to the job") not in found
    assert ("Kinesis", "out to the archive") in found
    run_min = 3 + 9_000 / (2 * 1000 / JOB_CORE_MS) / 60
    looks = 730 * 4 * run_min / 60 * 3600 / 5
    assert found["S3", "archive, looked at and read"] == pytest.approx(looks / 1000 * 0.005 + 43_800 / 1000 * 0.0004)
    assert found["Job", "m6gd.large, 1 of them"] == pytest.approx(730 * 0.0904 * 4 * run_min / 60)
    assert sum(found.values()) < total()


def test_a_pulled_table_pays_for_its_index_and_for_what_each_pass_reads_again() -> None:
    """By hand: 43,800 passes, each of 60 + 300 seconds' items of 2,000 bytes at half a unit for 4 KiB."""
    found = lines(way="pull")
    units = 43_800 * 10 * 360 * 2_000 / 4096 / 2
    assert found["DynamoDB", "the passes' queries"] == pytest.approx(units * 0.125 / 1e6)
    assert found["DynamoDB", "the index's writes"] == pytest.approx(26_280_000 * 2 * 1.5 * 0.625 / 1e6)
    assert {service for service, _ in found} == {"DynamoDB", "S3", "Job"}, "nothing is deployed for it"
    assert ("DynamoDB", "the index") not in lines(way="pull", own_index=False)
    idle = lines(replace(LOAD, changes_s=0.0001), way="pull")
    assert idle["DynamoDB", "the passes' queries"] == pytest.approx(43_800 * 100 / 2 * 0.125 / 1e6)


def test_a_pipe_costs_its_requests_on_top() -> None:
    with_pipe = lines(by_pipe=True)
    pipe = with_pipe.pop(("EventBridge", "pipe"))
    assert with_pipe == lines()
    assert pipe == pytest.approx((4 * 3600 * 730 + 26_280_000 * 4_650 / 65_536) / 1e6 * 0.40)


@pytest.mark.parametrize("way", ["files", "pull"])
def test_a_job_that_runs_for_most_of_the_hour_is_never_reckoned_for_more_than_it(way: str) -> None:
    busy = replace(LOAD, changes_s=10_000)
    assert lines(busy, way=way, runs_h=30.0)["Job", "m6gd.large, 1 of them"] == pytest.approx(730 * 0.0904)

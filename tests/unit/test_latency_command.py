"""`lakestream latency` over a real Delta table."""

import json
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import yaml
from typer.testing import CliRunner

from config.errors import ConfigurationError
from streaming_job.cli import app
from streaming_job.latency.book import LatencyBook
from streaming_job.latency.hops import CLOCKS, HOPS
from streaming_job.latency.table import RustLatencyTable, to_arrow

NOON_MS = 1_795_262_400_000


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A lake with two tables, each measured in two minutes: 100 ms in the first, 900 ms in the second."""
    book = LatencyBook()
    for table in ("cars", "users"):
        for minute, took_ms in ((0, 100), (1, 900)):
            commit_ms = NOON_MS + minute * 60_000 + 5_000
            clocks = {name: pa.array(np.full(10, commit_ms - took_ms, dtype=np.int64)) for name in CLOCKS}
            book.record(
                pa.table(clocks), table=table, batch=f"{minute}", batch_start_ms=commit_ms - 50, commit_ms=commit_ms
            )
    RustLatencyTable(str(tmp_path / "lake" / "latency")).append(to_arrow(book.take(), datetime.now(UTC)))
    settings = {
        "aws": {"region": "us-east-1"},
        "source": {"stream": "changes"},
        "lake": {"root": str(tmp_path / "lake"), "checkpoint": str(tmp_path / "checkpoint")},
        "tables": ["cars", "users"],
    }
    file = tmp_path / "job.yaml"
    file.write_text(yaml.safe_dump(settings), encoding="utf-8")
    return file


def asked(config: Path, *options: str) -> list[dict[str, object]]:
    done = CliRunner().invoke(app, ["latency", "--json", "--config", str(config), *options], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    found: list[dict[str, object]] = json.loads(done.stdout)
    return found


def test_minutes_merge_to_the_percentiles_of_their_changes_together(config: Path) -> None:
    found = asked(config, "cars")
    assert {row["hop"] for row in found} == {hop.name for hop in HOPS}
    whole = next(row for row in found if row["hop"] == "origin_to_commit")
    assert (whole["changes"], whole["min_ms"], whole["max_ms"], whole["mean_ms"]) == (20, 100, 900, 500)
    assert whole["p50_ms"] == pytest.approx(100, rel=0.01)
    assert whole["p95_ms"] == pytest.approx(900, rel=0.01)


def test_a_span_leaves_out_the_minutes_outside_it(config: Path) -> None:
    second = datetime.fromtimestamp(NOON_MS / 1000 + 60, UTC).strftime("%Y-%m-%dT%H:%M")
    for options, expected in ((("--from", second), 900), (("--to", second), 100)):
        whole = next(row for row in asked(config, "users", *options) if row["hop"] == "origin_to_commit")
        assert whole["max_ms"] == whole["min_ms"] == expected
    assert asked(config, "--from", "2099-01-01") == []


def test_hops_known_to_whole_seconds_are_marked(config: Path) -> None:
    coarse = {row["hop"] for row in asked(config, "cars") if row["resolution_ms"] == 1000}
    assert coarse == {"origin_to_stream", "stream_to_bridge", "stream_to_commit"}
    shown = CliRunner().invoke(app, ["latency", "cars", "--config", str(config)], env={"COLUMNS": "80"})
    assert "stream_to_commit (whole s)" in shown.stdout
    assert "…" not in shown.stdout


def test_a_lake_without_measurements_is_an_empty_answer(config: Path, tmp_path: Path) -> None:
    empty = config.read_text(encoding="utf-8").replace(str(tmp_path / "lake"), str(tmp_path / "other"))
    config.write_text(empty, encoding="utf-8")
    assert asked(config) == []


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["no-such-table"], "no table 'no-such-table'"),
        (["--from", "noon"], "--from 'noon' is not a time"),
        (["--from", "2026-01-02", "--to", "2026-01-01"], "--from is not before --to"),
        (["--from", "2026-01-02", "--last", "5"], "--from and --last are both given"),
    ],
)
def test_what_cannot_be_meant_is_refused(config: Path, options: list[str], says: str) -> None:
    with pytest.raises(ConfigurationError, match=says):
        CliRunner().invoke(app, ["latency", "--config", str(config), *options], catch_exceptions=False)

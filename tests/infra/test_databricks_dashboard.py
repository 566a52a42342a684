"""The Databricks dashboard: every query run against tables as the job writes them, every widget held to its query."""

import json
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake
from pyspark.sql import SparkSession

from streaming_job.latency.book import LatencyBook
from streaming_job.latency.hops import CHAIN, CLOCKS, HOPS, WHOLE
from streaming_job.latency.table import RustLatencyTable, of_arrow, to_arrow

FILE = Path(__file__).parents[2] / "infra" / "dashboards" / "lakestream.lvdash.json"
DASHBOARD: dict[str, Any] = json.loads(FILE.read_text(encoding="utf-8"))
QUERIES = {dataset["name"]: "".join(dataset["queryLines"]) for dataset in DASHBOARD["datasets"]}
WIDGETS = [placed["widget"] for page in DASHBOARD["pages"] for placed in page["layout"]]

Answers = dict[str, list[dict[str, Any]]]


@pytest.fixture(scope="module")
def latency_path(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Two minutes of two tables, the second minute written in two flushes."""
    path = str(tmp_path_factory.mktemp("lake") / "latency")
    table = RustLatencyTable(path)
    # Counted from a minute's start: whenever the test runs, the three stand in two minutes.
    minute_ms = int(time.time()) // 60 * 60_000
    rng = np.random.default_rng(8)
    for flush, commit_ms in enumerate((minute_ms - 90_000, minute_ms - 31_000, minute_ms - 30_500)):
        book = LatencyBook()
        for name in ("cars", "users"):
            base = commit_ms - 1_000 - rng.gamma(2.0, 300.0, 500).astype(np.int64)
            clocks = {clock: pa.array(base + 100 * place) for place, clock in enumerate(CLOCKS)}
            book.record(
                pa.table(clocks), table=name, batch=str(flush), batch_start_ms=commit_ms - 300, commit_ms=commit_ms
            )
        table.append(to_arrow(book.take(), datetime.now(UTC)))
    return path


@pytest.fixture(scope="module")
def answers(spark: SparkSession, latency_path: str, tmp_path_factory: pytest.TempPathFactory) -> Answers:
    rejects = str(tmp_path_factory.mktemp("lake") / "rejects")
    rows = {"_reason": ["not JSON", "not JSON", "unknown version"], "_ingest_ts": [datetime.now(UTC)] * 3}
    write_deltalake(rejects, pa.table(rows))
    spark.read.format("delta").load(latency_path).createOrReplaceTempView("latency")
    spark.read.format("delta").load(rejects).createOrReplaceTempView("rejects")
    return {name: [row.asDict() for row in spark.sql(query).collect()] for name, query in QUERIES.items()}


@pytest.mark.spark
def test_every_query_answers_and_every_widget_finds_its_fields(answers: Answers) -> None:
    assert {query["query"]["datasetName"] for widget in WIDGETS for query in widget["queries"]} == set(QUERIES)
    for widget in WIDGETS:
        for query in widget["queries"]:
            rows = answers[query["query"]["datasetName"]]
            assert rows, query["query"]["datasetName"]
            assert {field["name"] for field in query["query"]["fields"]} <= set(rows[0])


def test_every_encoding_names_a_field_of_its_widget() -> None:
    for widget in WIDGETS:
        fields = {field["name"] for query in widget["queries"] for field in query["query"]["fields"]}
        named = [
            part["fieldName"]
            for encoding in widget["spec"]["encodings"].values()
            for part in (encoding if isinstance(encoding, list) else [encoding])
        ]
        assert set(named) == fields, widget["name"]


def test_no_two_widgets_lie_on_the_same_place() -> None:
    taken = set()
    for page in DASHBOARD["pages"]:
        for placed in page["layout"]:
            at = placed["position"]
            assert at["x"] + at["width"] <= 6
            cells = {(at["x"] + x, at["y"] + y) for x in range(at["width"]) for y in range(at["height"])}
            assert not cells & taken, placed["widget"]["name"]
            taken |= cells


@pytest.mark.spark
def test_percentiles_in_sql_are_those_of_the_merged_sketches(answers: Answers, latency_path: str) -> None:
    merged = of_arrow(DeltaTable(latency_path).to_pyarrow_table())
    assert len(answers["percentiles"]) == 2 * len(HOPS)
    for row in answers["percentiles"]:
        sketch = merged[row["table"], row["hop"]]
        assert row["changes"] == sketch.count
        for name, quantile in (("p50_ms", 0.5), ("p95_ms", 0.95), ("p99_ms", 0.99)):
            # SQL takes a place between two bins where the sketch takes one of them.
            assert row[name] == pytest.approx(sketch.quantile_ms(quantile), rel=0.03, abs=1)


@pytest.mark.spark
def test_a_minute_written_in_two_flushes_is_one_point(answers: Answers) -> None:
    minutes = {row["minute"] for row in answers["freshness"]}
    assert len(answers["freshness"]) == 3 * len(minutes)
    assert sum(row["changes"] for row in answers["throughput"]) == 3_000


@pytest.mark.spark
def test_the_stacked_hops_add_up_to_the_whole_way(answers: Answers, latency_path: str) -> None:
    merged = of_arrow(DeltaTable(latency_path).to_pyarrow_table())
    wholes = [sketch for (_, hop), sketch in merged.items() if hop == WHOLE]
    assert len({row["hop"] for row in answers["hops"]}) == len(CHAIN)
    by_minute: dict[object, float] = {}
    for row in answers["hops"]:
        by_minute[row["minute"]] = by_minute.get(row["minute"], 0.0) + row["mean_ms"]
    low, high = min(by_minute.values()), max(by_minute.values())
    assert low <= sum(sketch.sum_ms for sketch in wholes) / sum(sketch.count for sketch in wholes) <= high


@pytest.mark.spark
def test_rejects_are_counted_by_reason(answers: Answers) -> None:
    assert {row["reason"]: row["records"] for row in answers["rejects"]} == {"not JSON": 2, "unknown version": 1}
    assert answers["reject_count"] == [{"records": 3}]

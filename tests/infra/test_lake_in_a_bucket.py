"""A lake in a bucket, on the emulator: commands that open its tables by delta-rs are told where that bucket is.

Nothing in this process's environment says so: only the configuration does.
"""

import json
import os
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import yaml
from deltalake import write_deltalake
from local_workers import REGION, Aws, running_emulator
from pyspark.sql.types import LongType, StringType, StructType, TimestampType
from typer.testing import CliRunner

from config.settings import Settings, load_settings
from config.tables import load_tables
from infra.local import emulator
from streaming_job.cli import app
from streaming_job.latency.book import LatencyBook
from streaming_job.latency.hops import CLOCKS
from streaming_job.latency.table import RustLatencyTable, to_arrow
from streaming_job.pipeline.arrow import moment
from streaming_job.pipeline.locations import Lake, Location
from streaming_job.pipeline.merge import Merge, TableSpec, Update
from streaming_job.pipeline.merge_rust import RustTable, arrow_schema
from streaming_job.pipeline.opening import storage_options

pytestmark = pytest.mark.stack

TABLE = "chargeminder-car-telemetry"
BUCKET = "the-lake"
ROOT = f"s3://{BUCKET}/lake"


@pytest.fixture(scope="module")
def aws(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Aws]:
    with running_emulator(tmp_path_factory.mktemp("emulator")) as running:
        running("s3").create_bucket(Bucket=BUCKET)
        running.stream("changes")
        yield running


@pytest.fixture
def config(aws: Aws, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in set(os.environ) - set(emulator.without_aws(os.environ)):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "local")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "local")
    file = tmp_path / "job.yaml"
    content = {
        "aws": {"region": REGION, "endpoint": aws.endpoint},
        "source": {"stream": "changes"},
        "lake": {"root": ROOT, "checkpoint": str(tmp_path / "checkpoint")},
        "tables": [TABLE],
        "bucket": {"name": BUCKET},
    }
    file.write_text(yaml.safe_dump(content))
    return file


def told(settings: Settings) -> dict[str, str]:
    return storage_options(settings, ROOT)


def answer(*arguments: str) -> Any:
    done = CliRunner().invoke(app, [*arguments, "--json"], catch_exceptions=False)
    return json.loads(done.stdout)


def test_latency_is_written_to_the_bucket_remembered_and_shown(config: Path) -> None:
    settings, book, commit_ms = load_settings(config), LatencyBook(), int(time.time() * 1000)
    clocks = {name: pa.array(np.full(10, commit_ms - 900, dtype=np.int64)) for name in CLOCKS}
    book.record(pa.table(clocks), table=TABLE, batch="7", batch_start_ms=commit_ms - 50, commit_ms=commit_ms)
    table = RustLatencyTable(f"{ROOT}/latency", told(settings))
    table.append(to_arrow(book.take(), datetime.now(UTC)))
    assert set(table.batches_since(datetime.fromtimestamp(0, UTC))) == {f"{TABLE}@7"}
    whole = next(row for row in answer("latency", "--config", str(config)) if row["hop"] == "origin_to_commit")
    assert (whole["changes"], whole["max_ms"]) == (10, 900)


def test_files_in_the_bucket_are_written_again_for_the_rows_that_were_replaced(config: Path) -> None:
    columns = StructType().add("_key", StringType()).add("_seq", LongType()).add("_ingest_ts", TimestampType())
    spec = TableSpec(Location(path=f"{ROOT}/things"), columns, found_by=("_key", "_ingest_ts"))
    merge = Merge(match=("_key",), insert=columns.names, updates=(Update("_seq", columns.names),))
    for seq, keys in ((1, ["a", "b"]), (2, ["a", "c"]), (3, ["b"])):
        # Opened anew, nothing is held of it: what is there is read from the bucket.
        table = RustTable(spec, told(load_settings(config)))
        held = {"_key": keys, "_seq": [seq] * len(keys), "_ingest_ts": moment(seq * 1000, len(keys))}
        table.merge(pa.table(held, arrow_schema(columns)), merge)
    rows = table.read(["_key", "_seq"]).to_pylist()
    assert sorted((row["_key"], row["_seq"]) for row in rows) == [("a", 2), ("b", 3), ("c", 2)]
    metrics = [each.get("operationMetrics") or {} for each in table._table.history(2)]
    assert [each.get("num_replaced_rows") for each in metrics] == [1, 2]


def test_doctor_looks_into_the_tables_in_the_bucket(config: Path) -> None:
    settings = load_settings(config)
    lake = Lake(settings.lake)
    current, refused = lake.of(load_tables(settings.tables_dir)[TABLE]).current, lake.shared("refused")
    write_deltalake(str(current), pa.table({"a": [1]}), storage_options=told(settings))
    write_deltalake(str(refused), pa.table({"_table": [TABLE] * 3}), storage_options=told(settings))
    found = {each["check"]: each["what"] for each in answer("doctor", "--offline", "--config", str(config))["findings"]}
    assert found[f"lake table {current}"].startswith("version 0")
    assert found[f"order of {TABLE}"].startswith("3 changes wait")


def test_rejects_are_read_from_the_bucket(config: Path) -> None:
    rows = {
        "_stream": ["s"],
        "_sha256": ["a" * 64],
        "_reason": ["unknown envelope version"],
        "_table": pa.array([None], pa.string()),
        "_arrival_ms": [1],
        "_data": [b"{}"],
    }
    write_deltalake(f"{ROOT}/rejects", pa.table(rows), storage_options=told(load_settings(config)))
    report = answer("redrive", "--rejects", "--dry-run", "--config", str(config))
    assert report["redriven"] == 1

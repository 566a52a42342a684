"""A long random history through the stack's job, one table by each engine: both hold exactly what the model holds.

LAKESTREAM_HISTORY_CHANGES=100000 is the size it is made for.
"""

import json
import os
import random
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from deltalake import DeltaTable, QueryBuilder
from envelopes import Change
from histories import Model, check, long_history, model
from lake_rig import table_config
from local_stack import clients_of

from streaming_job.operations.lake_rows import DeltaLakeRows
from streaming_job.pipeline.merge import Engine

pytestmark = [pytest.mark.stack, pytest.mark.spark, pytest.mark.timeout(1_800)]

LAKESTREAM = Path(sys.executable).parent / "lakestream"
CHANGES = int(os.environ.get("LAKESTREAM_HISTORY_CHANGES", "2000"))
SEED = int(os.environ.get("LAKESTREAM_SEED", "6"))
ENGINES: tuple[Engine, ...] = ("rust", "spark")
CALL_RECORDS = 500


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    """The stack without its job, and a job's configuration with a table for each engine."""
    up = [LAKESTREAM, "local", "up", "--no-job", "--dir", tmp_path, "--json"]
    facts = json.loads(subprocess.run(up, capture_output=True, text=True, check=True).stdout)
    try:
        rules = tmp_path / "tables"
        rules.mkdir()
        for engine in ENGINES:
            said = table_config(engine, engine=engine).model_dump(mode="json", exclude_defaults=True)
            (rules / f"{engine}.yaml").write_text(yaml.safe_dump(said))
        content = {
            "aws": {"region": facts["region"], "endpoint": facts["aws_endpoint"]},
            "source": {"stream": facts["stream"], "batch_rows_max": 10_000},
            "lake": {"root": str(tmp_path / "lake"), "checkpoint": str(tmp_path / "checkpoint")},
            "tables": list(ENGINES),
            "tables_dir": str(rules),
        }
        (tmp_path / "job.yaml").write_text(yaml.safe_dump(content))
        put(facts, long_history(random.Random(SEED), CHANGES))
        yield tmp_path
    finally:
        subprocess.run([LAKESTREAM, "local", "down", "--dir", tmp_path], check=True)


def put(facts: dict[str, Any], delivered: list[Change]) -> None:
    """As the bridge writes them, each change for both tables."""
    kinesis = clients_of(facts)("kinesis")
    lines = [(change.key_text, replace(change, table=engine).line()) for change in delivered for engine in ENGINES]
    for start in range(0, len(lines), CALL_RECORDS):
        records = [{"Data": line, "PartitionKey": key} for key, line in lines[start : start + CALL_RECORDS]]
        answer = kinesis.put_records(StreamName=facts["stream"], Records=records)
        assert not answer["FailedRecordCount"]


def test_a_long_random_history_ends_as_the_model_says_by_either_engine(home: Path) -> None:
    """Out of order, repeated and replayed; keys, versions, digests, columns, and every change in history once."""
    job = [LAKESTREAM, "run", "--available-now", "--config", home / "job.yaml"]
    done = subprocess.run(job, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    expected = model([long_history(random.Random(SEED), CHANGES)])
    assert len(expected.history) == CHANGES
    for engine in ENGINES:
        table = home / "lake" / engine
        check(expected, selected(table / "current", "_key, _seq, _deleted, _digest, _row_digest, _rescued, n, s"))
        assert proven(table / "current", home / f"{engine}-rows") == live(expected)
        seen = selected(table / "history", "_key, _seq")
        assert Counter((row["_key"], row["_seq"]) for row in seen) == Counter(
            (key, seq) for _, key, seq in expected.history
        )


def selected(table: Path, columns: str) -> list[dict[str, Any]]:
    rows = QueryBuilder().register("t", DeltaTable(str(table))).execute(f"SELECT {columns} FROM t")  # noqa: S608 - a test's
    found: list[dict[str, Any]] = pa.table(rows.read_all()).to_pylist()
    return found


def proven(current: Path, folder: Path) -> dict[str, tuple[str, bool]]:
    """As `verify` reads it: keys and digests of live rows, and whether their columns are what was written."""
    DeltaLakeRows(str(current), {}).write_all(folder)
    return {row["key"]: (row["digest"], row["intact"]) for row in pq.read_table(folder).to_pylist()}


def live(expected: Model) -> dict[str, tuple[str | None, bool]]:
    return {key: (digest, True) for key, (_, deleted, digest) in expected.current.items() if not deleted}

"""The job on compute that speaks Spark Connect alone, as serverless does: archive objects into tables, and the end."""

import gzip
import json
import os
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO

import pytest
import yaml
from deltalake import DeltaTable

from infra.local import emulator
from infra.local.checks import ROOT
from streaming_job.latency.table import of_arrow
from streaming_job.pipeline import lease
from tests.support.envelopes import Change, put, remove
from tests.support.local_workers import REGION, Aws, running_emulator

pytestmark = [pytest.mark.spark, pytest.mark.stack]

RULES = {"table": "things", "version": 1, "key": [{"name": "id", "type": "S"}], "lake": {"name": "things"}}


@pytest.fixture
def aws(tmp_path: Path) -> Iterator[Aws]:
    (tmp_path / "emulator").mkdir()
    with running_emulator(tmp_path / "emulator") as running:
        running("s3").create_bucket(Bucket="archived")
        yield running


@pytest.fixture
def config(aws: Aws, tmp_path: Path) -> Path:
    (tmp_path / "tables").mkdir()
    (tmp_path / "tables" / "things.yaml").write_text(yaml.safe_dump(RULES))
    file = tmp_path / "job.yaml"
    file.write_text(
        yaml.safe_dump(
            {
                "aws": {"region": REGION, "endpoint": aws.endpoint},
                "source": {"connector": "files", "stream": "changes"},
                "bucket": {"name": "archived"},
                "lake": {"root": str(tmp_path / "lake"), "checkpoint": str(tmp_path / "checkpoint")},
                "tables": ["things"],
                "tables_dir": str(tmp_path / "tables"),
            }
        )
    )
    return file


def land(aws: Aws, name: str, changes: Iterable[Change]) -> None:
    body = gzip.compress(b"".join(change.line() for change in changes))
    aws("s3").put_object(Bucket="archived", Key=f"archive/date=2026-11-01/hour=00/{name}.gz", Body=body)


def said(output: IO[str], word: str) -> str:
    """The first line with the word; what is said besides is Spark's."""
    for line in output:
        if word in line:
            return line
    raise AssertionError(f"it ended without {word!r}")


def test_each_run_takes_what_has_landed_and_ends_and_the_next_goes_on_from_there(
    aws: Aws, config: Path, tmp_path: Path
) -> None:
    """Two runs, the second with nothing it has seen; each change once, the lease given back, latency measured."""
    environment = emulator.process_environment(aws.endpoint, REGION) | {
        "PYTHONPATH": os.pathsep.join((str(ROOT), str(ROOT / "tests" / "support"))),
        "SPARK_LOCAL_IP": "127.0.0.1",
    }
    errors = (tmp_path / "stderr").open("w")
    job = subprocess.Popen(
        [sys.executable, str(ROOT / "tests" / "support" / "connect_job.py"), str(config)],
        cwd=tmp_path,
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=errors,
        text=True,
    )
    assert job.stdin is not None
    assert job.stdout is not None
    try:
        assert "ends (add --available-now" in said(job.stdout, "this compute")
        for number, changes in enumerate(
            ([put(f"k{n}", n, v=n) for n in range(1, 101)], [put("k1", 101, v=-1), remove("k2", 102)]), start=1
        ):
            land(aws, str(number), changes)
            job.stdin.write(f"{number}\n")
            job.stdin.flush()
            said(job.stdout, f"done {number}")
        job.stdin.close()
        assert job.wait(timeout=60) == 0
    except BaseException:
        sys.stderr.write((tmp_path / "stderr").read_text()[-3000:])
        raise
    finally:
        job.kill()
        job.wait()
        job.stdout.close()
        errors.close()

    history = DeltaTable(str(tmp_path / "lake" / "things" / "history"))
    current = DeltaTable(str(tmp_path / "lake" / "things" / "current"))
    rows = {row["_key"]: row for row in current.to_pyarrow_table().to_pylist()}
    assert history.count() == 102
    assert len(rows) == 100
    assert rows[json.dumps({"id": "k1"}, separators=(",", ":"))]["v"] == -1
    assert sum(row["_deleted"] for row in rows.values()) == 1
    holding = lease._read(current.metadata().configuration)
    assert holding is not None
    assert holding.until_ms == 0, "given back, not left to run out"
    measured = of_arrow(DeltaTable(str(tmp_path / "lake" / "latency")).to_pyarrow_table())
    assert max(sketch.count for sketch in measured.values()) == 102

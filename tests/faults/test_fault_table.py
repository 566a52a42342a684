"""The fault table on the real parts: break it, see it said, heal it, and every change is there, once, and newest."""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.fault_table import ROWS, Row
from tests.support.broken_stack import BrokenStack, broken_stack
from tests.support.whole_proof import prove

pytestmark = [pytest.mark.stack, pytest.mark.spark, pytest.mark.timeout(600)]

DRILLED = [row for row in ROWS if row.drill is not None]


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BrokenStack]:
    """One for all rows: each begins where the one before it has healed."""
    with broken_stack(tmp_path_factory.mktemp("broken")) as running:
        yield running


@pytest.mark.parametrize("row", DRILLED, ids=lambda row: re.sub(r"\W+", "-", row.fault).strip("-"))
def test_what_is_broken_is_said_and_healed_and_every_change_arrives_once(stack: BrokenStack, row: Row) -> None:
    """Against the table's own stream: nothing lost from history, nothing twice, no row of current stale."""
    drill = row.drill
    assert drill is not None
    if drill.needs_small_disk and not stack.disk.is_small:
        pytest.skip("a file system that can be filled takes the right to mount one")
    stack.job.note()
    drill.break_(stack)
    try:
        drill.report(stack)
    finally:
        drill.heal(stack)
    stack.recover()


def test_after_all_of_it_source_lake_and_archive_are_equal(stack: BrokenStack) -> None:
    """By digest too, as `lakestream verify` has it."""
    proof = prove(stack)
    assert proof.holds, proof


EXHAUSTED = """
from config.errors import LakestreamError
from streaming_job.spark import spark_session
try:
    with spark_session("memory", {"spark.driver.memory": "512m"}) as spark:
        spark.sparkContext._gateway.new_array(spark._jvm.byte, 1_500_000_000)
except LakestreamError as error:
    print(error.line, error.exit_code)
"""


def test_a_jvm_that_runs_out_of_memory_ends_and_is_said_to_have() -> None:
    """A session of its own with half a gigabyte, asked for more."""
    done = subprocess.run(
        [sys.executable, "-c", EXHAUSTED],
        capture_output=True,
        text=True,
        check=False,
        timeout=200,
        cwd=Path(__file__).parents[2],
    )
    said = done.stdout.strip().splitlines()[-1]
    assert said.startswith("error: Spark's JVM (process "), done.stderr[-2000:]
    assert "ran out of memory" in said
    assert "spark.driver.memory" in said
    assert said.endswith(" 1"), "the job's exit code"

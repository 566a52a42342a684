"""Flattening by several processes: how long it takes may differ, what comes of it may not."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pyarrow as pa
import pytest
from pyspark.sql.types import LongType, StructField, StructType, TimestampType

from config.tables import TimeZoneRule, load_table
from streaming_job.pipeline.columns import ColumnTypeError
from streaming_job.pipeline.flatten import Flattener
from streaming_job.pipeline.flatten_workers import SharedFlattener, Workers
from tests.support.flattening import changes, flat_rows

CONFIG = load_table(Path(__file__).parents[2] / "config" / "tables" / "chargeminder-car-telemetry.yaml")
ROWS = 90


@pytest.fixture
def workers() -> Iterator[Workers]:
    held = Workers(2, part_rows_min=10)
    yield held
    held.end()


def image(number: int, **attributes: object) -> str:
    bodies = ({"value": number / 4}, {"value": True}, {"value": f"v{number}", "unit": "km"}, {"value": 10**30 + number})
    signals = [
        {"group": "Tire", "name": f"P{number % 7}", "body": json.dumps(bodies[number % 4])},
        {"group": "Odd", "name": "Body", "body": "{oops" if number % 5 == 0 else '{"value":1.5}'},
    ]
    item = {"recorded_at": "2026-07-01 12:00:00", "car_timezone": "Europe/London", "signals": signals, **attributes}
    return json.dumps(item)


def batch(rows: int = ROWS) -> pa.Table:
    """New columns come in every part, some of them in the last one alone; some changes are deletes."""
    images = [None if n % 11 == 0 else image(n, **({f"late{n}": n} if n > rows - 3 else {})) for n in range(rows)]
    return changes(images, attribute="event_id")


def until_ready(workers: Workers) -> list[int]:
    """Their processes' ids."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        with workers.borrow(1_000) as ready:
            if len(ready) == 2:
                return [worker.pid for worker in ready]
        time.sleep(0.05)
    raise TimeoutError("the processes are not ready")


def test_a_batch_divided_between_processes_comes_out_as_if_one_had_done_it(workers: Workers) -> None:
    alone, shared = Flattener(CONFIG), SharedFlattener(CONFIG, workers)
    until_ready(workers)
    known = None
    for rows in (batch(), batch(47), batch(31)):
        expected, found = alone.rows(rows, known), shared.rows(rows, known)
        assert found.schema == expected.schema
        assert flat_rows(found) == flat_rows(expected)
        known = expected.schema


def test_a_small_batch_starts_no_process(workers: Workers) -> None:
    before = psutil.Process().children()
    SharedFlattener(CONFIG, workers).rows(batch(19), None)
    assert psutil.Process().children() == before


def test_what_a_killed_process_was_to_do_is_done_all_the_same(
    workers: Workers, caplog: pytest.LogCaptureFixture
) -> None:
    """It is killed before a batch, and is not asked again after it."""
    pid, _ = until_ready(workers)
    os.kill(pid, signal.SIGKILL)
    shared = SharedFlattener(CONFIG, workers)
    assert flat_rows(shared.rows(batch(), None)) == flat_rows(Flattener(CONFIG).rows(batch(), None))
    assert "goes on without it" in caplog.text
    assert flat_rows(shared.rows(batch(), None)) == flat_rows(Flattener(CONFIG).rows(batch(), None))
    with workers.borrow(1_000) as left:
        assert len(left) == 1


def test_a_table_whose_rules_conflict_with_its_columns_takes_the_processes_from_no_other(workers: Workers) -> None:
    until_ready(workers)
    known = StructType([StructField("recorded_at", LongType())])
    with pytest.raises(ColumnTypeError):
        SharedFlattener(CONFIG, workers).rows(batch(), known)
    with workers.borrow(1_000) as left:
        assert len(left) == 2


def test_times_without_a_zone_are_placed_in_every_part_where_the_table_forgot_whose_its_column_is(
    workers: Workers,
) -> None:
    """Its comment was written over, and no rule declares it: each batch finds the path again."""
    config = CONFIG.model_copy(
        update={"lake": CONFIG.lake.model_copy(update={"columns": {}, "time_zone": TimeZoneRule(zone="Europe/London")})}
    )
    known = StructType([StructField("at", TimestampType(), metadata={"comment": "when it was"})])
    alone, shared = Flattener(config), SharedFlattener(config, workers)
    until_ready(workers)
    rows = changes(['{"at":"2026-07-01 12:00:00"}'] * ROWS, attribute="event_id")
    for _ in range(2):
        expected, found = alone.rows(rows, known), shared.rows(rows, known)
        assert flat_rows(found) == flat_rows(expected)
        assert not found.rescued.drop_null()
        assert len(found.columns[-1].drop_null()) == ROWS


def test_an_answer_that_nobody_fetched_is_never_taken_for_another_ones(workers: Workers) -> None:
    until_ready(workers)
    with workers.borrow(1_000) as asked:
        asked[0].ask(CONFIG, None, batch())
    with workers.borrow(1_000) as left:
        assert left == [asked[1]]


def test_a_process_killed_with_a_part_in_hand_says_that_it_has_none(workers: Workers) -> None:
    until_ready(workers)
    with workers.borrow(1_000) as asked:
        os.kill(asked[0].pid, signal.SIGSTOP)
        asked[0].ask(CONFIG, None, batch())
        os.kill(asked[0].pid, signal.SIGKILL)
        assert asked[0].part() is None
    with workers.borrow(1_000) as left:
        assert left == [asked[1]]


def test_a_process_that_ended_before_it_was_ready_is_told_of(
    workers: Workers, caplog: pytest.LogCaptureFixture
) -> None:
    before = psutil.Process().children()
    with workers.borrow(1_000):
        started = next(each for each in psutil.Process().children() if each not in before)
    started.kill()
    psutil.wait_procs([started], timeout=20)
    with workers.borrow(1_000):
        pass
    assert "goes on without it" in caplog.text


ABANDONED = """
import os, signal, sys
from tests.unit.test_flatten_workers import until_ready
from streaming_job.pipeline.flatten_workers import Workers
print(*until_ready(Workers(2, part_rows_min=10)), flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_the_processes_of_a_killed_job_end_with_it() -> None:
    told = subprocess.run([sys.executable, "-c", ABANDONED], capture_output=True, text=True, check=False, timeout=90)
    pids = [int(pid) for pid in told.stdout.split()]
    assert len(pids) == 2, told.stderr
    gone, alive = psutil.wait_procs([psutil.Process(pid) for pid in pids if psutil.pid_exists(pid)], timeout=20)
    assert not alive, gone

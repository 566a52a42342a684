"""How long a small commit takes after 100 of them and after 5,000, with upkeep in the pauses as in the job.

`python -m tests.bench.bench_commits [--commits 5000] [--rows 50] [--keys 5000] [--no-upkeep]`. Engine rust, no Spark:
what is timed is history and current as the pipeline writes them, one batch a second by the clock upkeep sees. Processor
time stands beside the clock's: other work on the machine stretches it less. At the end the table of many commits and a
new one take turns.
"""

import argparse
import json
import random
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import pyarrow as pa
from pyspark.sql.types import DoubleType, StringType, StructField, StructType

sys.path.insert(0, str(Path(__file__).parent.parent / "support"))

from envelopes import DAY_MS, Change, collected

from config.settings import UpkeepSettings
from streaming_job.pipeline import current, history
from streaming_job.pipeline.arrow import moment, repeated
from streaming_job.pipeline.locations import Location
from streaming_job.pipeline.merge import no_guard
from streaming_job.pipeline.merge_rust import RustTable, arrow_schema
from streaming_job.pipeline.upkeep import Upkeep, compaction

ITEM = StructType([StructField(f"c{n}", DoubleType() if n % 2 else StringType()) for n in range(20)])
COLUMNS = StructType([*current.SYSTEM.fields, *ITEM.fields])
LOG = {"delta.checkpointInterval": "100", "delta.logRetentionDuration": "interval 1 days"}
WINDOW = 100


@dataclass(frozen=True)
class Spent:
    """By the clock, and of the processor."""

    ms: list[float]
    cpu_ms: list[float]


class SecondsClock:
    """One batch, one second."""

    def __init__(self) -> None:
        self.now_ms = DAY_MS

    def __call__(self) -> int:
        return self.now_ms


def rows_of(changes: pa.Table, now_ms: int) -> pa.Table:
    count = changes.num_rows
    item = {name: repeated(1.5 if n % 2 else "value", None, count) for n, name in enumerate(ITEM.names)}
    ours = {
        "_key": changes["key"], "_seq": changes["change_seq"], "_op": changes["op"], "_digest": changes["digest"],
        "_deleted": repeated(False, pa.bool_(), count), "_ingest_ts": moment(now_ms, count),
    }  # fmt: skip
    given = ours | item
    schema = arrow_schema(COLUMNS)
    return pa.table([given.get(field.name, pa.nulls(count, field.type)) for field in schema], schema=schema)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--commits", type=int, default=5_000)
    parser.add_argument("--rows", type=int, default=50)
    parser.add_argument("--keys", type=int, default=5_000)
    parser.add_argument("--no-upkeep", action="store_true")
    options = parser.parse_args()
    with TemporaryDirectory() as folder:
        run(Path(folder), options)


def run(folder: Path, options: argparse.Namespace) -> None:
    lake = BenchLake(folder / "long", options)
    for number in range(1, options.commits + 1):
        lake.commit(number)
        if number % WINDOW == 0 and (number in (WINDOW, options.commits) or number % 1_000 == 0):
            lake.report(number)
    # Beside each other: what else the machine does is then the same for both.
    fresh = BenchLake(folder / "fresh", options)
    for number in range(1, WINDOW // 2 + 1):
        fresh.commit(number)
    for number in range(WINDOW // 2 + 1, WINDOW * 3 // 2 + 1):
        fresh.commit(number)
        lake.commit(options.commits + number)
    print("by turns:")
    fresh.report(WINDOW)
    lake.report(options.commits)


class BenchLake:
    """Every key is there from the start: what grows is the number of commits, not the table."""

    def __init__(self, folder: Path, options: argparse.Namespace) -> None:
        self._rng, self._clock, self._options = random.Random(7), SecondsClock(), options
        self._now = RustTable(current.spec(Location(path=f"{folder}/current"), ITEM, LOG))
        self._past = RustTable(history.spec(Location(path=f"{folder}/history"), LOG))
        settings = UpkeepSettings()
        self._upkeep = Upkeep(settings, self._clock)
        if not options.no_upkeep:
            self._upkeep.take_on(
                [compaction(table, settings, self._clock, no_guard) for table in (self._now, self._past)]
            )
        self._spent = {name: Spent([], []) for name in ("history", "current", "upkeep")}
        everything = collected(change_of(key, 0, self._clock.now_ms) for key in range(options.keys))
        self._history(everything)
        self._current(rows_of(everything, self._clock.now_ms))

    def commit(self, number: int) -> None:
        self._clock.now_ms += 1_000
        keys = self._rng.sample(range(self._options.keys), self._options.rows)
        changes = collected(change_of(key, number, self._clock.now_ms) for key in keys)
        rows = rows_of(changes, self._clock.now_ms)
        self._timed("history", lambda: self._history(changes))
        self._timed("current", lambda: self._current(rows))
        self._timed("upkeep", self._upkeep.run_one)

    def report(self, commits: int) -> None:
        said: dict[str, float] = {"commits": commits}
        for name in ("history", "current"):
            last = Spent(self._spent[name].ms[-WINDOW:], self._spent[name].cpu_ms[-WINDOW:])
            said |= {
                f"{name}_ms_median": round(statistics.median(last.ms), 1),
                f"{name}_ms_p95": round(statistics.quantiles(last.ms, n=20)[-1], 1),
                f"{name}_cpu_ms_median": round(statistics.median(last.cpu_ms), 1),
            }
        upkeep = self._spent["upkeep"].ms
        said |= {"upkeep_ms_sum": round(sum(upkeep)), "upkeep_ms_longest": round(max(upkeep))}
        print(json.dumps(said), flush=True)

    def _history(self, changes: pa.Table) -> None:
        history.write(self._past, changes, self._clock.now_ms, no_guard)

    def _current(self, rows: pa.Table) -> None:
        current.write(self._now, rows, no_guard)

    def _timed(self, name: str, work: Callable[[], object]) -> None:
        started, cpu = time.perf_counter(), time.process_time()
        work()
        self._spent[name].ms.append((time.perf_counter() - started) * 1000)
        self._spent[name].cpu_ms.append((time.process_time() - cpu) * 1000)


def change_of(key: int, number: int, created_ms: int) -> Change:
    return Change({"id": key}, number, new={"text": "x" * 500}, created_ms=created_ms)


if __name__ == "__main__":
    main()

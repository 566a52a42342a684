"""How long a small commit takes after 100 of them and after 5,000, with upkeep in the pauses as in the job.

`python -m tests.bench.bench_commits [--commits 5000] [--rows 50] [--keys 5000] [--no-upkeep]`. Engine rust, no Spark:
what is timed is history and current as the pipeline writes them, one batch a second by the clock upkeep sees. Processor
time stands beside the clock's: other work on the machine stretches it less.
"""

import argparse
import json
import random
import statistics
import sys
import time
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
from streaming_job.pipeline.merge import TableSpec, no_guard
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
        run(folder, options)


def run(folder: str, options: argparse.Namespace) -> None:
    rng, clock = random.Random(7), SecondsClock()
    now = RustTable(TableSpec(Location(path=f"{folder}/current"), COLUMNS, properties=LOG))
    past = RustTable(history.spec(Location(path=f"{folder}/history"), LOG))
    settings = UpkeepSettings()
    upkeep = Upkeep(settings, clock)
    if not options.no_upkeep:
        upkeep.take_on([compaction(table, settings, clock, no_guard) for table in (now, past)])
    spent = {name: Spent([], []) for name in ("history", "current", "upkeep")}
    # Every key is there from the start: what grows is the number of commits, not the table.
    everything = collected(change_of(key, 0, clock.now_ms) for key in range(options.keys))
    history.write(past, everything, clock.now_ms, no_guard)
    current.write(now, rows_of(everything, clock.now_ms), no_guard)
    for number in range(1, options.commits + 1):
        clock.now_ms += 1_000
        keys = rng.sample(range(options.keys), options.rows)
        changes = collected(change_of(key, number, clock.now_ms) for key in keys)
        rows = rows_of(changes, clock.now_ms)
        for name, work in (
            ("history", lambda changes=changes: history.write(past, changes, clock.now_ms, no_guard)),
            ("current", lambda rows=rows: current.write(now, rows, no_guard)),
            ("upkeep", upkeep.run_one),
        ):
            started, cpu = time.perf_counter(), time.process_time()
            work()
            spent[name].ms.append((time.perf_counter() - started) * 1000)
            spent[name].cpu_ms.append((time.process_time() - cpu) * 1000)
        if number % WINDOW == 0 and (number in (WINDOW, options.commits) or number % 1_000 == 0):
            report(number, spent)


def change_of(key: int, number: int, created_ms: int) -> Change:
    return Change({"id": key}, number, new={"text": "x" * 500}, created_ms=created_ms)


def report(number: int, spent: dict[str, Spent]) -> None:
    said: dict[str, float] = {"commits": number}
    for name in ("history", "current"):
        last = Spent(spent[name].ms[-WINDOW:], spent[name].cpu_ms[-WINDOW:])
        said |= {
            f"{name}_ms_median": round(statistics.median(last.ms), 1),
            f"{name}_ms_p95": round(statistics.quantiles(last.ms, n=20)[-1], 1),
            f"{name}_cpu_ms_median": round(statistics.median(last.cpu_ms), 1),
        }
    upkeep = spent["upkeep"].ms
    print(json.dumps(said | {"upkeep_ms_sum": round(sum(upkeep)), "upkeep_ms_longest": round(max(upkeep))}), flush=True)


if __name__ == "__main__":
    main()

"""How long a merge takes as `current` grows: `python -m tests.bench.bench_growth --rows 10000,1000000`.

The table is filled with telemetry's columns and compacted as upkeep would. Then batches are merged, by the engine as
the job calls it. Insert-mostly: 85 % new keys, the others those of the last minutes, as devices report again.
Update-heavy: four fifths of the keys are anywhere in the table.
"""

import argparse
import itertools
import os
import random
import shutil
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow as pa
from deltalake import DeltaTable, write_deltalake
from pyspark.sql.types import StructType

from config.tables import load_tables
from streaming_job.pipeline import current, dedupe
from streaming_job.pipeline.arrow import moment, replaced
from streaming_job.pipeline.decode import Decoder
from streaming_job.pipeline.flatten import Flattener
from streaming_job.pipeline.locations import Location
from streaming_job.pipeline.merge import LakeTable, no_guard
from streaming_job.pipeline.merge_rust import RustTable, arrow_schema
from streaming_job.pipeline.merge_spark import SparkTable
from streaming_job.spark import build_session
from tests.bench.bench_batch import changes, frame_rows
from tests.bench.rig import ROOT, TABLE

_POOL = 5_000
_PIECES = 200
KINDS = ("insert-mostly", "update-heavy")
_STEP_MS = 300
_SPENT_MS_MAX = 60_000
_BATCHES_MIN = 3
"""A table that is written anew by each batch needs no thirty of them to say so."""
_COMPACTED_BYTES = 128 * 2**20
_SPARK_MEMORY = "6g"
"""In the job's 2 GB Delta's merge of keys anywhere in ten million rows ends the JVM."""


class Rows:
    """Rows of `current` under keys and times of our choosing; what the columns hold comes from a pool."""

    def __init__(self) -> None:
        tables = load_tables(ROOT / "config" / "tables")
        decoded = Decoder(tables).changes(frame_rows(changes(random.Random(1)), _POOL, 1))
        newest = dedupe.newest(dedupe.once(decoded))
        newest = newest.append_column("keeps_row", pa.array([False] * newest.num_rows))
        flattened = Flattener(tables[TABLE]).rows(newest, None)
        self.columns = StructType([*current.SYSTEM.fields, *flattened.schema.fields])
        self._pool = current.rows(newest, flattened, 1).cast(arrow_schema(self.columns))

    def of(self, keys: list[str], at_ms: int) -> pa.Table:
        places = pa.array([number % self._pool.num_rows for number in range(len(keys))])
        rows = replaced(self._pool.take(places), "_key", pa.array(keys))
        rows = replaced(rows, "_seq", pa.array([f"{at_ms:058d}"] * len(keys)))
        return replaced(rows, "_ingest_ts", moment(at_ms, len(keys)))


def filled(folder: Path, rows: Rows, count: int) -> None:
    plain = [field.remove_metadata() for field in arrow_schema(rows.columns)]
    piece_rows = max(_POOL, count // _PIECES)
    for start in range(0, count, piece_rows):
        keys = [f"k{number:09d}" for number in range(start, min(count, start + piece_rows))]
        piece = rows.of(keys, 1_000_000 + start).cast(pa.schema(plain))
        write_deltalake(str(folder), piece, mode="append", configuration={"delta.checkpointInterval": "100"})
    DeltaTable(str(folder)).optimize.compact(target_size=_COMPACTED_BYTES)


def timed(table: LakeTable, rows: Rows, held: int, *, batch: int, batches: int, mostly_inserts: bool) -> list[float]:
    rng, now_ms = random.Random(3), 2_000_000_000
    recent, spent = list[str](), list[float]()
    for number in range(batches):
        now_ms += _STEP_MS
        share = 0.15 if mostly_inserts else 0.8
        old = round(batch * share) if recent or not mostly_inserts else 0
        source = recent if mostly_inserts else [f"k{rng.randrange(held):09d}" for _ in range(old)]
        again = list(dict.fromkeys(rng.sample(source, min(old, len(source)))))
        new = [f"n{now_ms}-{place}" for place in range(batch - len(again))]
        merged = rows.of([*again, *new], now_ms)
        began = time.perf_counter()
        for part in current.split(table, merged):
            if part.num_rows:
                current.write(table, part, no_guard)
        spent.append((time.perf_counter() - began) * 1000)
        recent = (recent + new)[-2_000:]
        if number == 0:
            spent.clear()
        if len(spent) >= _BATCHES_MIN and sum(spent) > _SPENT_MS_MAX:
            break
    return spent


def run(sizes: list[int], batches_of: list[int], batches: int, engines: list[str]) -> dict[str, Any]:
    rows, found = Rows(), dict[str, Any]()
    with ExitStack() as cleanup:
        opened_by = _engines(engines, cleanup)
        print(f"{'rows':>10} {'engine':<15} {'load':<14} {'batch':>6} {'p50':>8} {'p99':>8} ms {'opened':>6} s")
        for size in sizes:
            folder = Path(cleanup.enter_context(TemporaryDirectory(prefix="lakestream-bench-")))
            filled(folder / "filled", rows, size)
            for engine, kind, batch in itertools.product(opened_by, KINDS, batches_of):
                with _copied(folder / "filled") as copy:
                    began = time.perf_counter()
                    table = opened_by[engine](copy, rows)
                    opened_s = time.perf_counter() - began
                    spent = timed(table, rows, size, batch=batch, batches=batches, mostly_inserts=kind == KINDS[0])
                p50, p99 = statistics.median(spent), sorted(spent)[int(len(spent) * 0.99)]
                figures = {
                    "p50_ms": round(p50, 1),
                    "p99_ms": round(p99, 1),
                    "batches": len(spent),
                    "opened_s": round(opened_s, 1),
                }
                found[named(size, engine, kind, batch)] = figures
                print(
                    f"{size:>10,} {engine:<15} {kind:<14} {batch:>6} {p50:>8.0f} {p99:>8.0f} {opened_s:>9.1f}",
                    flush=True,
                )
    return found


def named(size: int, engine: str, kind: str, batch: int) -> str:
    return f"{size} {engine} {kind} {batch}"


@contextmanager
def _copied(table: Path) -> Iterator[Path]:
    """By links: Delta's files are never written to again."""
    copy = table.with_name("copy")
    shutil.copytree(table, copy, copy_function=os.link)
    try:
        yield copy
    finally:
        shutil.rmtree(copy)


def _engines(names: list[str], cleanup: ExitStack) -> dict[str, Callable[[Path, Rows], LakeTable]]:
    def spec(path: Path, rows: Rows) -> Any:
        return replace(current.spec(Location(path=str(path)), StructType(), {}), columns=rows.columns)

    engines: dict[str, Callable[[Path, Rows], LakeTable]] = {
        "rust": lambda path, rows: RustTable(spec(path, rows)),
        "rust, no index": lambda path, rows: RustTable(replace(spec(path, rows), found_by=None)),
    }
    if any(name.startswith("spark") for name in names):
        session = build_session("bench-growth", {"spark.driver.memory": _SPARK_MEMORY})
        cleanup.callback(session.stop)
        session.sparkContext.setLogLevel("ERROR")
        engines["spark"] = lambda path, rows: _marking(SparkTable(session, spec(path, rows)))
        engines["spark, files anew"] = lambda path, rows: SparkTable(session, spec(path, rows))
    return {name: engines[name] for name in names}


def _marking(table: SparkTable) -> SparkTable:
    """As the job makes it."""
    table.set_properties({"delta.enableDeletionVectors": "true"})
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", default="10000,1000000")
    parser.add_argument("--batch", default="100", help="rows a batch: 100,5000")
    parser.add_argument("--batches", type=int, default=30)
    parser.add_argument(
        "--engines", default="rust;rust, no index", help="apart by semicolons; also: spark; spark, files anew"
    )
    options = parser.parse_args()
    run(
        [int(size) for size in options.rows.split(",")],
        [int(batch) for batch in options.batch.split(",")],
        options.batches,
        options.engines.split(";"),
    )


if __name__ == "__main__":
    main()

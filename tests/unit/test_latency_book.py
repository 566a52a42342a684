from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pytest
from deltalake import DeltaTable

from streaming_job.latency.book import LatencyBook
from streaming_job.latency.hops import CLOCKS, WHOLE
from streaming_job.latency.table import LatencyFlusher, RustLatencyTable, of_arrow, to_arrow
from streaming_job.latency.window import WINDOW_MS

T0 = 1_760_000_040_000


def clocks(*origins: int | None) -> pa.Table:
    columns = {name: pa.array([T0 + 100 for _ in origins], pa.int64()) for name in CLOCKS}
    return pa.table(columns | {"origin_ms": pa.array(origins, pa.int64())})


def record(book: LatencyBook, batch: str, *, commit_ms: int = T0 + 500) -> None:
    book.record(clocks(T0, T0 + 50, None), table="cars", batch=batch, batch_start_ms=T0 + 200, commit_ms=commit_ms)


def test_a_batch_recorded_twice_counts_once_also_after_a_restart(tmp_path: Path) -> None:
    table = RustLatencyTable(str(tmp_path / "latency"))
    book = LatencyBook()
    record(book, "shard-0:7")
    record(book, "shard-0:7")
    table.append(to_arrow(book.take(), datetime.now(UTC)))

    restarted = LatencyBook(table.batches_since(datetime.now(UTC) - timedelta(minutes=1)))
    record(restarted, "shard-0:7")
    assert restarted.take() == []
    record(restarted, "shard-0:8")
    table.append(to_arrow(restarted.take(), datetime.now(UTC)))

    whole = of_arrow(DeltaTable(tmp_path / "latency").to_pyarrow_table())["cars", WHOLE]
    assert whole.count == 4  # two batches of two changes that carry an origin
    assert whole.quantile_ms(0.99) == pytest.approx(500, rel=0.01)


def test_live_figures_forget_what_is_older_than_their_window() -> None:
    book = LatencyBook()
    record(book, "a", commit_ms=T0 + 500)
    record(book, "b", commit_ms=T0 + 500 + 2 * WINDOW_MS)
    live = book.live(now_ms=T0 + 500 + 2 * WINDOW_MS)
    assert live["cars", WHOLE].count == 2
    assert book.live(now_ms=T0 + 10 * WINDOW_MS) == {}


def test_a_flush_that_fails_keeps_its_figures_for_the_next_one(tmp_path: Path) -> None:
    class FullDisk(RustLatencyTable):
        full = True

        def append(self, rows: pa.Table) -> None:
            if self.full:
                raise OSError(28, "No space left on device")
            super().append(rows)

    table, failures = FullDisk(str(tmp_path / "latency")), []
    book = LatencyBook()
    flusher = LatencyFlusher(book, table, failures.append)
    record(book, "a")
    flusher.flush()
    record(book, "b")
    table.full = False
    flusher.flush()
    assert [str(failure) for failure in failures] == ["[Errno 28] No space left on device"]
    whole = of_arrow(DeltaTable(tmp_path / "latency").to_pyarrow_table())["cars", WHOLE]
    assert whole.count == 4

"""Stand-ins for the pipeline's processes: their own metrics and web server, fed by the test instead of by changes."""

import time
from collections.abc import Mapping
from urllib.parse import urlsplit

import numpy as np
import pyarrow as pa

from config.settings import HttpSettings
from infra.local.mapping.metrics import Metrics as MappingMetrics
from streaming_job.health import Health
from streaming_job.http import HttpServer, application
from streaming_job.kinesis.progress import ShardProgress
from streaming_job.latency.book import LatencyBook
from streaming_job.metrics import JobMetrics

TABLE = "chargeminder-car-telemetry"
HOPS_MS = {"origin": 180, "bridge": 12, "publish": 35, "wait": 210, "commit": 260}


class FedProcess:
    """Serves a registry over HTTP; can end and come back at the same address."""

    def __init__(self, registry: object, health: Health) -> None:
        self._app = application(registry, health)  # type: ignore[arg-type]
        self._server = HttpServer(self._app, HttpSettings())
        self._server.start()
        self.url = f"{self._server.url}/metrics"

    def stop(self) -> None:
        self._server.stop()

    def come_back(self) -> None:
        self._server = HttpServer(self._app, HttpSettings(port=int(urlsplit(self.url).port or 0)))
        self._server.start()


class FedJob(FedProcess):
    def __init__(self) -> None:
        self.book = LatencyBook()
        health = Health(unhealthy_after_s=3_600)
        health.progressed()
        self.metrics = JobMetrics(self.book, health)
        self._batches = 0
        super().__init__(self.metrics.registry, health)

    def is_behind(self, ms: int, *, shard: str = "shardId-000000000000") -> None:
        counters = dict.fromkeys(ShardProgress.__dataclass_fields__, 0) | {"behind_ms": ms}
        self.metrics.source.update([ShardProgress(**(counters | {"stream": "changes", "shard": shard}))])  # type: ignore[arg-type]

    def commit(self, changes: int = 10, *, hops_ms: Mapping[str, float] = HOPS_MS, table: str = TABLE) -> None:
        """One batch whose changes took these times, committed now."""
        self._batches += 1
        commit_ms = time.time() * 1000
        start_ms = commit_ms - hops_ms["commit"]
        arrival_ms = start_ms - hops_ms["wait"]
        out_ms = arrival_ms - hops_ms["publish"]
        in_ms = out_ms - hops_ms["bridge"]
        origin_ms = in_ms - hops_ms["origin"]
        spread = np.linspace(0.8, 1.3, changes)
        clocks = {
            "origin_ms": origin_ms - (spread - 1) * hops_ms["origin"],
            "created_ms": np.full(changes, origin_ms // 1000 * 1000),
            "bridge_in_ms": np.full(changes, in_ms),
            "bridge_out_ms": np.full(changes, out_ms),
            "arrival_ms": np.full(changes, arrival_ms),
        }
        self.book.record(
            pa.table({name: values.astype(np.int64) for name, values in clocks.items()}),
            table=table,
            batch=str(self._batches),
            batch_start_ms=int(start_ms),
            commit_ms=int(commit_ms),
        )
        self.metrics.changes.labels(table).inc(changes)
        self.metrics.batches.inc()
        self.metrics.batch_rows.set(changes)
        self.metrics.last_commit.set(time.time())
        for step, share in {"decode": 0.2, "history": 0.3, "flatten": 0.15, "current": 0.35}.items():
            self.metrics.step_seconds.labels(step).observe(hops_ms["commit"] * share / 1000)


class FedMapping(FedProcess):
    def __init__(self) -> None:
        self.metrics = MappingMetrics()
        super().__init__(self.metrics.registry, Health(60))
        self.metrics.backlog.labels("shardId-00000001").set(0)

    def sent(self, changes: int) -> None:
        self.metrics.records_done.labels("shardId-00000001").inc(changes)

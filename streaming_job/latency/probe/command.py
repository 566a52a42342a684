"""`lakestream probe`: workers, hub, figures, and the bridge's count beside them, until it is told to stop."""

import contextlib
import http.client
import logging
import signal
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from botocore.exceptions import BotoCoreError, ClientError
from prometheus_client import CollectorRegistry

from config.settings import HttpSettings, Settings
from streaming_job.aws import client
from streaming_job.http import HttpServer, metrics_application
from streaming_job.kinesis.clock import SystemClock
from streaming_job.latency.dashboard.readings import Increments
from streaming_job.latency.dashboard.scrape import TIMEOUT_S, fetch, parse
from streaming_job.latency.probe.findings import Findings
from streaming_job.latency.probe.hub import Hub
from streaming_job.latency.probe.workers import Plan, Worker

SHARDS_EVERY_S: Final = 5.0
_SETTLE_EVERY_S: Final = 1.0
_SENT: Final = "lakestream_bridge_records_sent_total"

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    application: str
    start: str = "latest"
    leases_endpoint: str | None = None
    workers: int = 1
    bridge: str | None = None
    """The /metrics that tells how many changes the bridge has sent."""
    metrics_port: int = 0
    seconds: float | None = None


class BridgeCount:
    """What the bridge has sent since it was first asked; a bridge begun anew counts on from there."""

    def __init__(self, url: str | None) -> None:
        self._url = url
        self._grown = Increments()
        self._total: int | None = None

    def ask(self) -> int | None:
        """None where nobody answers."""
        if self._url is None:
            return None
        try:
            said = parse(fetch(self._url, TIMEOUT_S)).total(_SENT)
        except (OSError, http.client.HTTPException, ValueError):
            return None
        if said is None:
            return None
        since = self._grown.since_last("sent", said)
        self._total = int(said) if self._total is None or since is None else self._total + int(since)
        return self._total


class OpenShards:
    """Those that still take records, asked for now and then; the last known while nobody answers."""

    def __init__(self, settings: Settings) -> None:
        self._client: Any = client(settings.aws, "kinesis", attempts=1)
        self._stream = settings.source.stream
        self._known: tuple[str, ...] = ()
        self._asked_s = float("-inf")

    def now(self) -> tuple[str, ...]:
        if time.monotonic() - self._asked_s >= SHARDS_EVERY_S:
            self._asked_s = time.monotonic()
            with contextlib.suppress(BotoCoreError, ClientError):
                pages = self._client.get_paginator("list_shards").paginate(StreamName=self._stream)
                listed = [shard for page in pages for shard in page["Shards"]]
                self._known = tuple(
                    shard["ShardId"] for shard in listed if "EndingSequenceNumber" not in shard["SequenceNumberRange"]
                )
        return self._known


def probe(settings: Settings, options: Options, library: Path) -> dict[str, Any]:
    """What was found, when it is told to stop or its time is over."""
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    findings = Findings(SystemClock())
    _serve(findings, options.metrics_port)
    with tempfile.TemporaryDirectory(prefix="lakestream-probe-") as name:
        folder = Path(name)
        hub = Hub(folder / "hub", findings)
        hub.start()
        plan = Plan(
            settings=settings,
            application=options.application,
            start=options.start,
            leases_endpoint=options.leases_endpoint,
            library=library,
            folder=folder,
            socket=folder / "hub",
        )
        workers = [Worker(plan, f"worker-{n}", findings.worker_started) for n in range(options.workers)]
        for worker in workers:
            worker.start()
        try:
            _watch(findings, BridgeCount(options.bridge), OpenShards(settings), stop, options.seconds)
        finally:
            _stop(workers)
            hub.stop()
    return findings.summary()


def _watch(
    findings: Findings, bridge: BridgeCount, shards: OpenShards, stop: threading.Event, seconds: float | None
) -> None:
    until_s = time.monotonic() + seconds if seconds is not None else float("inf")
    while not stop.wait(min(_SETTLE_EVERY_S, max(0.0, until_s - time.monotonic()))):
        if time.monotonic() >= until_s:
            return
        findings.settle(bridge.ask(), shards.now())


def _stop(workers: Sequence[Worker]) -> None:
    threads = [threading.Thread(target=worker.stop) for worker in workers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def _serve(findings: Findings, port: int) -> None:
    registry = CollectorRegistry()
    registry.register(findings)
    server = HttpServer(metrics_application(registry), HttpSettings(port=port))
    server.start()
    log.info("the probe runs", extra={"metrics": f"{server.url}/metrics"})

"""`make demo`: start everything, write telemetry for a minute, watch it arrive, and prove that all of it did."""

import argparse
import gzip
import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import orjson
from deltalake import DeltaTable
from rich.console import Console

from config.errors import LakestreamError
from infra.local.checks import ROOT
from infra.local.demo_view import ProgressView, summary_table
from infra.local.emulator import Clients
from infra.local.home import Home, write_json
from infra.local.job_figures import JobFigures, read_figures
from infra.local.launching import end_as_by_ctrl_c, uninterrupted
from infra.local.lean_puts import writing_items_as_they_are
from infra.local.load import Load, LoadPlan, Summary
from infra.local.plan import Mix
from infra.local.settings import load_local_settings
from infra.local.stack import UpOptions, down, up
from streaming_job.latency.hops import HOPS
from streaming_job.latency.sketches import QUANTILES, HopSketch
from streaming_job.latency.table import merged_hops

SETTLE_WITHOUT_PROGRESS_S: Final = 60
"""How long nothing may arrive before the demo stops waiting and lets the proof say what is missing."""
_LOOK_EVERY_S: Final = 0.25

_console = Console(stderr=True)


class DemoFailedError(LakestreamError):
    """The demo could not come to a verdict."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What `build/demo.json` says."""

    sent: int
    current_rows: int
    expected_rows: int
    missing: int
    extra: int
    stale: int
    different: int
    unproven: int
    history_rows: int
    archived: int
    hops: dict[str, dict[str, float]]
    seconds_to_ready: float
    load_errors: int

    @property
    def proven(self) -> bool:
        """Every write answered, every change in history and archive once, every row equal to its item."""
        wrong = self.missing + self.extra + self.stale + self.different + self.unproven + self.load_errors
        return (
            wrong == 0 and self.current_rows == self.expected_rows and self.sent == self.history_rows == self.archived
        )


def demo(home: Home, *, seconds: float, rate: float, keep: bool) -> Outcome:
    settings = load_local_settings(ROOT / "config" / "local.yaml")
    home.path.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    with _console.status("starting …") as shown:
        stack = up(home, settings, UpOptions(), lambda step: shown.update(f"starting: {step} …"))
    try:
        ready_s = time.monotonic() - began
        _console.print(f"ready after {ready_s:.1f} s; the page: {stack['dashboard_url']}", highlight=False)
        outcome = _load_and_prove(home, stack, seconds=seconds, rate=rate, ready_s=ready_s)
    finally:
        if keep:
            _console.print("left running (KEEP=1); `lakestream local down` ends it", highlight=False)
        else:
            with _console.status("ending …"), uninterrupted():
                down(home, settings, lambda _: None)
    write_json(home.path / "demo.json", asdict(outcome))
    return outcome


def _load_and_prove(home: Home, stack: dict[str, Any], *, seconds: float, rate: float, ready_s: float) -> Outcome:
    table, paths = next(iter(stack["tables"].items()))
    clients = Clients(stack["aws_endpoint"], stack["region"])
    plan = LoadPlan(table=table, rate=rate, seconds=seconds, seed=1, run=f"{time.time_ns():x}", mix=Mix())
    load = Load(plan, writing_items_as_they_are(clients("dynamodb")))

    def figures() -> JobFigures:
        return read_figures(stack["metrics_url"], table)

    with ProgressView(plan.count, _console) as view:
        summary = _run_beside(load, lambda: view.show(load.progress, figures()))
        _wait_until(lambda: figures().changes, summary.sent_total, lambda: view.show(load.progress, figures()))
    with _console.status("proving: every item of the source against its row …"):
        report = _verified(home)[table]
    with _console.status("waiting for the archive's last object …"):
        archived = _wait_until(
            lambda: _archived(clients("s3"), stack["bucket"], stack["archive_prefix"]), summary.sent_total
        )
        hops = _hops(paths["latency"], table, summary.sent_total)
    return Outcome(
        sent=summary.sent_total,
        current_rows=report["lake_rows"],
        expected_rows=summary.live_expected,
        missing=report["missing"],
        extra=report["extra"],
        stale=report["stale"],
        different=report["different"],
        unproven=report["unproven"],
        history_rows=DeltaTable(paths["history"]).count(),
        archived=archived,
        hops=hops,
        seconds_to_ready=round(ready_s, 1),
        load_errors=summary.errors,
    )


def _verified(home: Home) -> dict[str, Any]:
    """What `lakestream verify` says, asked as a user would ask it."""
    command: list[str | Path] = [
        Path(sys.executable).parent / "lakestream",
        "verify",
        "--json",
        "--config",
        home.file("job.yaml"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if not done.stdout:
        raise DemoFailedError(f"verify did not answer: {done.stderr.strip().splitlines()[-1:]}")
    report: dict[str, Any] = json.loads(done.stdout)
    return report


def _run_beside(load: Load, show: Callable[[], None]) -> Summary:
    """The load in a thread of its own, the display in this one, so that Ctrl-C ends both."""
    summaries: list[Summary] = []
    writer = threading.Thread(target=lambda: summaries.append(load.run()), name="demo-load")
    writer.start()
    try:
        while writer.is_alive():
            show()
            writer.join(_LOOK_EVERY_S)
    except BaseException:
        load.stop()
        raise
    finally:
        writer.join()
    return summaries[0]


def _wait_until(count: Callable[[], int], enough: int, show: Callable[[], None] = lambda: None) -> int:
    """The count once it is enough, or when it has stopped growing."""
    reached, grew_at = count(), time.monotonic()
    while reached < enough and time.monotonic() - grew_at < SETTLE_WITHOUT_PROGRESS_S:
        show()
        time.sleep(_LOOK_EVERY_S)
        now = count()
        if now > reached:
            reached, grew_at = now, time.monotonic()
    return reached


def _hops(path: str, table: str, changes: int) -> dict[str, dict[str, float]]:
    """Percentiles of each hop over the whole run, from the table the job wrote; it is flushed every few seconds."""
    every = HOPS[-1].name
    _wait_until(lambda: _count_of(merged_hops(path), table, every), changes)
    found = merged_hops(path)
    return {
        hop.name: {f"p{q * 100:.0f}": round(found[table, hop.name].quantile_ms(q) or 0.0, 1) for q in QUANTILES}
        for hop in HOPS
        if (table, hop.name) in found
    }


def _count_of(found: Mapping[tuple[str, str], HopSketch], table: str, hop: str) -> int:
    sketch = found.get((table, hop))
    return sketch.count if sketch else 0


def _archived(s3: Any, bucket: str, prefix: str) -> int:
    """Different changes in the archive: a redelivery is there twice and counts once."""
    changes = set()
    for page in s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix):
        for entry in page.get("Contents", ()):
            body = s3.get_object(Bucket=bucket, Key=entry["Key"])["Body"].read()
            for line in gzip.decompress(body).splitlines():
                envelope = orjson.loads(line)
                changes.add((orjson.dumps(envelope["key"]), envelope["gen"], envelope["seq"]))
    return len(changes)


def main() -> int:
    parser = argparse.ArgumentParser(prog="make demo", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--rate", type=float, default=50)
    parser.add_argument("--keep", action="store_true")
    parser.add_argument("--dir", type=Path, default=ROOT / "build", help="the stack's folder")
    options = parser.parse_args()
    end_as_by_ctrl_c()
    try:
        outcome = demo(Home(options.dir.absolute()), seconds=options.seconds, rate=options.rate, keep=options.keep)
    except LakestreamError as error:
        _console.print(error.line, highlight=False, markup=False, soft_wrap=True)
        return error.exit_code
    except KeyboardInterrupt:
        _console.print("interrupted; what was started has been ended")
        return 130
    proof = {name: value for name, value in asdict(outcome).items() if name != "hops"}
    _console.print(summary_table(proof, outcome.hops, proven=outcome.proven))
    return 0 if outcome.proven else 1


if __name__ == "__main__":
    sys.exit(main())

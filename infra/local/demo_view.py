"""What the demo shows: a line that lives while changes arrive, and the proof as a table when they have."""

import time
from collections.abc import Mapping
from typing import Any, Final, Self

from rich.console import Console
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from infra.local.job_figures import JobFigures
from infra.local.load import Progress
from streaming_job.latency.hops import CHAIN, HOPS, WHOLE

_PLAIN_EVERY_S: Final = 5.0
"""Where the output is no terminal, a line this often says what a terminal shows all the time."""

_HOP_WORDS: Final = {
    "origin_to_bridge": "producer → bridge",
    "bridge": "in the bridge",
    "bridge_to_kinesis": "bridge → Kinesis",
    "kinesis_to_batch": "Kinesis → batch",
    "batch_to_commit": "batch → queryable",
    "origin_to_commit": "producer → queryable",
    "origin_to_stream": "producer → stream (whole seconds)",
    "stream_to_bridge": "stream → bridge (whole seconds)",
    "stream_to_commit": "stream → queryable (whole seconds)",
}
assert _HOP_WORDS.keys() == {hop.name for hop in HOPS}


class ProgressView:
    def __init__(self, planned: int, console: Console) -> None:
        self._planned = planned
        self._console = console
        self._live = Live(console=console, transient=True, auto_refresh=False) if console.is_terminal else None
        self._began = time.monotonic()
        self._said_at = self._began

    def __enter__(self) -> Self:
        if self._live:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live:
            self._live.stop()

    def show(self, load: Progress, job: JobFigures) -> None:
        if self._live:
            self._live.update(self._table(load, job), refresh=True)
        elif time.monotonic() - self._said_at >= _PLAIN_EVERY_S:
            self._said_at = time.monotonic()
            self._console.print(
                " · ".join(f"{name} {value}" for name, value in self._facts(load, job)), highlight=False
            )

    def _table(self, load: Progress, job: JobFigures) -> Table:
        table = Table.grid(padding=(0, 2))
        table.add_row("written", ProgressBar(total=self._planned, completed=load.done, width=40))
        table.add_row("arrived", ProgressBar(total=self._planned, completed=job.changes, width=40))
        for name, value in self._facts(load, job):
            table.add_row(name, value)
        return table

    def _facts(self, load: Progress, job: JobFigures) -> list[tuple[str, str]]:
        elapsed_s = time.monotonic() - self._began
        if not job.answered:
            return [("job", "does not answer")]
        freshness = " ".join(f"p{float(quantile) * 100:.0f} {_ms(value)}" for quantile, value in job.freshness_ms)
        return [
            ("changes", f"{load.done} written, {job.changes} queryable"),
            ("rate", f"{min(load.done, self._planned) / elapsed_s:.0f}/s since the start"),
            ("backlog", str(load.done - job.changes)),
            ("freshness", freshness or "nothing committed in the last minute"),
        ]


def summary_table(proof: Mapping[str, Any], hops: Mapping[str, Mapping[str, float]], *, proven: bool) -> Table:
    """The proof first, then how long each hop took."""
    table = Table.grid(padding=(0, 3))
    for name, value in proof.items():
        table.add_row(name.replace("_", " "), f"{value:,}" if isinstance(value, int) else str(value))
    verdict = (
        Text("source and lake agree", "bold green") if proven else Text("source and lake do NOT agree", "bold red")
    )
    table.add_row("verdict", verdict)
    table.add_section()
    latency = Table("hop", "p50", "p95", "p99", box=None, header_style="dim", padding=(0, 2, 0, 0))
    for name, style in [*((name, "") for name in CHAIN), (WHOLE, "bold")]:
        if name in hops:
            latency.add_row(_HOP_WORDS[name], *(_ms(value) for value in hops[name].values()), style=style)
    table.add_row("latency", latency)
    return table


def _ms(value: float) -> str:
    return f"{value / 1000:.2f} s" if value >= 1000 else f"{value:.0f} ms"

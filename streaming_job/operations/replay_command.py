"""`lakestream replay`: its options, the parts it is made of, and what it prints."""

import json
import time
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from config.errors import ConfigurationError

if TYPE_CHECKING:
    from streaming_job.operations.handing_over import Standing, Total
    from streaming_job.operations.replay import Sieve

EXIT_CODES: Final = """Exit codes: 0 all of it was replayed; 1 it failed, run it again; 2 wrong usage or configuration;
9 refused, since it could not end right: other rules, a gap, a key it has no change of; 130 interrupted."""

_err = Console(stderr=True)


def replay(
    *,
    start: Annotated[
        str, typer.Option("--from", help="trim-horizon, a time (UTC unless it says its zone), or archive.")
    ],
    config: Annotated[Path, typer.Option("--config", help="The job's configuration.")] = Path("build/job.yaml"),
    table: Annotated[list[str] | None, typer.Option(help="Only this source table's changes; repeated.")] = None,
    repair: Annotated[
        list[str] | None,
        typer.Option(help="Only this key's changes, which also replace a row of their own version; repeated."),
    ] = None,
    since: Annotated[str | None, typer.Option(help="With --from archive: hours from this time on.")] = None,
    until: Annotated[str | None, typer.Option(help="With --from archive: hours before this time.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> None:
    """Put changes that were there before once more into the tables, in place, beside a running job or without one.

    A replay of everything changes nothing: no row is replaced but by a newer version of itself. What is missing comes
    back. With --repair a row that was altered by hand is written again; the key is what `lakestream verify` prints.

    Example: lakestream replay --from archive --repair '{"event_id":"7d9f"}'
    """
    from config.settings import load_settings  # noqa: PLC0415 - --help need not load the rest
    from streaming_job.main import configured_tables  # noqa: PLC0415
    from streaming_job.operations.replay import canonical_key, sieve_of  # noqa: PLC0415
    from streaming_job.operations.replay_run import Request, replayed, span_of  # noqa: PLC0415
    from streaming_job.operations.source_rules import rules_of  # noqa: PLC0415
    from streaming_job.operations.verify_command import chosen  # noqa: PLC0415

    settings = load_settings(config)
    tables = configured_tables(settings)
    wanted = chosen(tables, table or [])
    keys = frozenset(canonical_key(key) for key in repair or ())
    if keys and len(wanted) > 1:
        raise ConfigurationError("--repair needs one --table where there are more", hint=f"{', '.join(wanted)}")
    request = Request(
        settings,
        tables,
        sieve_of(wanted, rules_of(settings, wanted), keys),
        span_of(start, since, until, datetime.now(UTC)),
    )
    began = time.monotonic()
    with ExitStack() as cleanup, _bars() as bars:
        total = replayed(request, _Shown(bars), cleanup)
    _tell(request.sieve, total, time.monotonic() - began, as_json=as_json)


class _Shown:
    """What is read, and what is in the lake, as bars."""

    def __init__(self, bars: Progress) -> None:
        self._bars = bars
        self._read = bars.add_task("read", total=None)
        self._taken = bars.add_task("in the lake", total=None)

    def read(self, done: int, total: int | None) -> None:
        self._bars.update(self._read, completed=done, total=total)

    def taken(self, standing: "Standing") -> None:
        self._bars.update(self._taken, total=standing.handed_over, completed=standing.taken_in)


def _bars() -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        console=_err,
        transient=True,
        disable=not _err.is_terminal,
    )


def _tell(sieve: "Sieve", total: "Total", seconds: float, *, as_json: bool) -> None:
    facts = {
        "read": sieve.kept + sieve.others + sieve.no_envelopes,
        "replayed": sieve.kept,
        "of_other_tables_or_keys": sieve.others,
        "no_envelopes": sieve.no_envelopes,
        "new_in_history": total.history_inserted,
        "new_in_current": total.current_inserted,
        "replaced_in_current": total.current_updated,
        "rejects": total.rejects,
        "seconds": round(seconds, 1),
    }
    if as_json:
        typer.echo(json.dumps(facts, indent=2))
        return
    out = Console(soft_wrap=True, highlight=False)
    out.print(f"{sieve.kept:,} changes replayed: {total.history_inserted:,} were missing from history")
    out.print(f"{total.current_inserted:,} rows of current are new, {total.current_updated:,} replaced")
    if sieve.no_envelopes:
        out.print(
            f"[dim]{sieve.no_envelopes:,} records are no envelopes; `lakestream redrive --rejects` is for those[/]"
        )
    if total.rejects:
        out.print(f"[yellow]{total.rejects:,} rejects[/]")

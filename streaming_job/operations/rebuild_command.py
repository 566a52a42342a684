"""`lakestream rebuild start | status | abandon` and `lakestream promote`: their options, and what they print."""

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

import typer
from rich.console import Console
from typer.core import TyperGroup

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from config.settings import Settings
    from config.tables import TableConfig
    from streaming_job.operations.handing_over import Standing
    from streaming_job.operations.rebuild import Rebuilding
    from streaming_job.operations.rebuild_fill import Filler
    from streaming_job.operations.verify import Options, Report
    from streaming_job.pipeline.rebuild import Rebuild

EXIT_CODES: Final = """Exit codes: 0 done; 1 it failed, run it again; 2 wrong usage or configuration; 5 the new table
differs from the source; 6 it could not be proven equal; 9 refused, since it could not end right; 10 the job that has
the tables has not done its part yet; 130 interrupted."""

_err = Console(stderr=True)


class _StartsByDefault(TyperGroup):
    """`rebuild TABLE` is `rebuild start TABLE`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if args and args[0] not in self.commands and args[0] != "--help":
            args = ["start", *args]
        return super().parse_args(ctx, args)


app = typer.Typer(
    cls=_StartsByDefault,
    help="A table anew beside the old one: for gaps, corruption, changed rules, types or keys.",
    no_args_is_help=True,
)

TableArgument = Annotated[str | None, typer.Argument(help="Source table; not needed where there is one.")]
ConfigOption = Annotated[Path, typer.Option("--config", help="The job's configuration.")]
SegmentsOption = Annotated[int, typer.Option(min=1, max=64, help="Parallel segments of each Scan.")]
CapacityOption = Annotated[
    float | None, typer.Option(min=1, help="Read capacity units a second to spend at most; no limit by default.")
]
SettleOption = Annotated[float, typer.Option(min=0, help="Seconds a difference has to turn out to be one.")]
WaitOption = Annotated[float, typer.Option(min=0, help="Seconds to wait for the job that has the tables.")]
JsonOption = Annotated[bool, typer.Option("--json", help="One JSON object.")]
_CONFIG: Final = Path("build/job.yaml")


@app.command(epilog=EXIT_CODES)
def start(
    table: TableArgument = None,
    *,
    source: Annotated[
        Literal["snapshot", "archive"],
        typer.Option("--from", help="snapshot: every item as it is now; archive: its first load, and all changes."),
    ] = "snapshot",
    config: ConfigOption = _CONFIG,
    segments: SegmentsOption = 4,
    read_capacity: CapacityOption = None,
    force: Annotated[
        bool, typer.Option("--force", help="Even if the snapshot takes longer than the stream keeps.")
    ] = False,
    settle: SettleOption = 30,
    wait: WaitOption = 120,
    as_json: JsonOption = False,
) -> None:
    """Build a table anew beside the old one, under the rules file of now; go on with one that was cut off.

    The job writes both from then on. Filled from the source chosen, the new table is compared with the items; equal,
    it waits for `lakestream promote`. Nothing changes for whoever reads the old one. Refused from an archive with a gap
    or of other rules: a snapshot has neither.

    Example: lakestream rebuild start chargeminder-car-telemetry --from snapshot
    """
    from streaming_job.pipeline.rebuild import State  # noqa: PLC0415 - --help need not load the rest

    with _opened(config, table, wait) as work:
        rebuilding = work.rebuilding
        rebuild = rebuilding.standing()
        if rebuild is not None and not rebuild.is_over:
            rebuilding.same(rebuild, source)
        filled: dict[str, Any] | None = None
        if rebuild is None or rebuild.is_over or rebuild.state is State.FILLING:
            options = _Filling(source, segments, read_capacity, is_forced=force)
            filled = _fill(work, rebuild, options)
        report = work.verified(_verify_options(segments, read_capacity, settle))
        _tell({"filled": filled, "verify": report.as_dict(), **_standing(rebuilding)}, as_json=as_json)
    _exit_by(report)


@app.command(epilog=EXIT_CODES)
def status(table: TableArgument = None, *, config: ConfigOption = _CONFIG, as_json: JsonOption = False) -> None:
    """Say how far a rebuild is.

    Example: lakestream rebuild status
    """
    with _opened(config, table, 0) as work:
        _tell(_standing(work.rebuilding), as_json=as_json)


@app.command(epilog=EXIT_CODES)
def abandon(
    table: TableArgument = None, *, config: ConfigOption = _CONFIG, wait: WaitOption = 120, as_json: JsonOption = False
) -> None:
    """Give a rebuild up: the new table goes, the old one stays as it is.

    Example: lakestream rebuild abandon chargeminder-car-telemetry
    """
    from streaming_job.operations.rebuild_fill import state_file  # noqa: PLC0415 - see start

    with _opened(config, table, wait) as work:
        was = _standing(work.rebuilding)
        work.rebuilding.abandon()
        state_file(config, work.config.table).unlink(missing_ok=True)
        _tell({"abandoned": was["state"] is not None, **_standing(work.rebuilding)}, as_json=as_json)


def promote(
    table: TableArgument = None,
    *,
    config: ConfigOption = _CONFIG,
    segments: SegmentsOption = 4,
    read_capacity: CapacityOption = None,
    settle: SettleOption = 30,
    wait: WaitOption = 600,
    as_json: JsonOption = False,
) -> None:
    """Put a rebuilt table in the old one's place, once it is proven equal to the source.

    It is one commit in the old table, whose readers see the old rows or the new ones, never some of each; who had begun
    reads on, and `VERSION AS OF` leads back. The job does it between two batches and goes on with the new rows and
    rules. Safe to run again after it was cut off.

    Example: lakestream promote chargeminder-car-telemetry
    """
    from streaming_job.operations.rebuild import RebuildRefusedError  # noqa: PLC0415 - see start
    from streaming_job.pipeline.rebuild import State  # noqa: PLC0415

    with _opened(config, table, wait) as work:
        rebuilding = work.rebuilding
        rebuild = rebuilding.standing()
        is_decided = rebuild is not None and rebuild.state in (State.PROMOTING, State.PROMOTED)
        report = None
        if not is_decided:
            if rebuilding.in_hand().state is State.FILLING:
                raise RebuildRefusedError(
                    "the new table is not filled yet", hint=f"`lakestream rebuild start {work.config.table}` goes on"
                )
            report = _compared(work, _verify_options(segments, read_capacity, settle))
        if report is None or report.equal:
            rebuilding.wait_until_promoted(work.promote_here)
            rebuilding.clear_away()
        verified = report.as_dict() if report is not None else None
        _tell({"promoted": report is None or report.equal, "verify": verified}, as_json=as_json)
    if report is not None:
        _exit_by(report)


def _compared(work: "_Work", options: "Options") -> "Report":
    """Equal, it is to be promoted, and what was doubtful about the table is settled."""
    from streaming_job.pipeline.batch import now_ms  # noqa: PLC0415 - see start
    from streaming_job.pipeline.rebuild import State  # noqa: PLC0415

    began_ms = now_ms()
    report = work.verified(options)
    if report.equal:
        work.rebuilding.is_now(State.PROMOTING)
        work.settle(began_ms)
    return report


# --- the parts --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Work:
    """One table, and what its commands need."""

    settings: "Settings"
    configs: "dict[str, TableConfig]"
    config: "TableConfig"
    config_file: Path
    rebuilding: "Rebuilding"
    spark: "Callable[[], SparkSession]"
    cleanup: ExitStack
    say: Callable[[str], None]

    def verified(self, options: "Options") -> "Report":
        """The new table against the source."""
        from streaming_job.operations.verify_command import verifier  # noqa: PLC0415 - see start
        from streaming_job.pipeline.locations import Lake  # noqa: PLC0415

        places = Lake(self.settings.lake).of(self.config)
        verified = verifier(self.settings, (self.config.table,), self.spark, options, self.say)
        return verified(self.config, replace(places, current=places.rebuilt))

    def promote_here(self) -> None:
        """Where no job has the tables: opening them does what a job's start would do."""
        from streaming_job.errors import LeaseHeldError  # noqa: PLC0415 - see start
        from streaming_job.pipeline.batch import Pipeline  # noqa: PLC0415
        from streaming_job.pipeline.intake_drain import PausableLatency  # noqa: PLC0415
        from streaming_job.pipeline.lease import Owner  # noqa: PLC0415

        self.say("promoting")
        pipeline = Pipeline(
            self.spark(), self.settings, self.configs, PausableLatency(), owner=Owner.here("lakestream promote")
        )
        try:
            with pipeline:
                pipeline.between_batches()
        except LeaseHeldError:
            self.say("a job took the tables")

    def settle(self, began_ms: int) -> None:
        from streaming_job.operations.settled import settle  # noqa: PLC0415 - see start
        from streaming_job.pipeline.opening import Tables  # noqa: PLC0415

        settle(self.settings, Tables(self.settings, self.spark), self.config, began_ms)


@contextmanager
def _opened(config_file: Path, table: str | None, wait_s: float) -> Iterator[_Work]:
    from config.settings import load_settings  # noqa: PLC0415 - see start
    from streaming_job.main import configured_tables  # noqa: PLC0415
    from streaming_job.operations.rebuild import Rebuilding  # noqa: PLC0415
    from streaming_job.operations.snapshot_command import one  # noqa: PLC0415
    from streaming_job.pipeline.batch import now_ms  # noqa: PLC0415
    from streaming_job.pipeline.opening import Tables  # noqa: PLC0415
    from streaming_job.spark import spark_session  # noqa: PLC0415

    settings = load_settings(config_file)
    configs = configured_tables(settings)
    config = one(configs, table)
    with ExitStack() as cleanup:
        shown = cleanup.enter_context(_err.status("looking"))
        spark = cache(lambda: cleanup.enter_context(spark_session("lakestream rebuild", settings.spark)))

        def say(what: str) -> None:
            shown.update(f"{what} …")

        rebuilding = Rebuilding(
            settings=settings,
            config=config,
            tables=Tables(settings, spark),
            clock=now_ms,
            wait_s=wait_s,
            say=say,
        )
        yield _Work(settings, configs, config, config_file, rebuilding, spark, cleanup, say)


@dataclass(frozen=True)
class _Filling:
    source: Literal["snapshot", "archive"]
    segments: int
    read_capacity: float | None
    is_forced: bool


def _fill(work: _Work, rebuild: "Rebuild | None", options: _Filling) -> dict[str, Any]:
    """Everything that speaks against it is said before the new table is made."""
    from streaming_job.operations.rebuild_fill import refused_as_begun  # noqa: PLC0415 - see start
    from streaming_job.operations.replay import ReplayRefusedError  # noqa: PLC0415
    from streaming_job.pipeline.rebuild import State  # noqa: PLC0415

    rebuilding = work.rebuilding
    is_begun = rebuild is not None and not rebuild.is_over
    filler = _filler(work, options, is_resumed=is_begun)
    if not is_begun:
        if rebuild is not None:
            rebuilding.clear_away()
        rebuilding.begin(options.source, filler.since_ms)
    rebuilding.wait_until_taken_up()
    try:
        total = filler.fill(work.cleanup)
    except ReplayRefusedError as error:
        refused_as_begun(error, rebuilding)
        raise
    rebuilding.is_now(State.FILLED)
    return {"rows": total.rows, "rejects": total.rejects, "new_in_history": total.history_inserted}


def _filler(work: _Work, options: _Filling, *, is_resumed: bool) -> "Filler":
    from streaming_job.operations.rebuild_fill import BySnapshot, FromArchive, state_file  # noqa: PLC0415 - see start
    from streaming_job.operations.snapshot_load import Request  # noqa: PLC0415

    if options.source == "archive":
        return FromArchive.planned(work.settings, work.configs, work.config, work.rebuilding, _Shown(work.say))
    file = state_file(work.config_file, work.config.table)
    if not is_resumed:
        file.unlink(missing_ok=True)
    request = Request(
        segments=options.segments,
        read_capacity_units_per_s=options.read_capacity,
        is_resumed=file.exists(),
        state_file=file,
    )
    return BySnapshot.planned(
        work.settings,
        work.configs,
        work.config,
        request,
        is_forced=options.is_forced,
        cleanup=work.cleanup,
        say=work.say,
    )


class _Shown:
    """Of a replay: what is read, and what is in the lake."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say

    def read(self, done: int, total: int | None) -> None:
        self._say(f"{done:,} of {total:,} objects read" if total is not None else f"{done:,} records read")

    def taken(self, standing: "Standing") -> None:
        self._say(f"{standing.taken_in:,} of {standing.handed_over:,} pieces are in the lake")


def _verify_options(segments: int, read_capacity: float | None, settle_s: float) -> "Options":
    from streaming_job.operations.verify import Options  # noqa: PLC0415 - see start

    return Options(segments=segments, read_capacity_units_per_s=read_capacity, settle_s=settle_s)


def _standing(rebuilding: "Rebuilding") -> dict[str, Any]:
    rebuild = rebuilding.standing()
    if rebuild is None or rebuild.is_over:
        return {"table": rebuilding.config.table, "state": None}
    writer = rebuilding.writer()
    return {
        "table": rebuilding.config.table,
        "state": str(rebuild.state),
        "from": rebuild.source,
        "begun": datetime.fromtimestamp(rebuild.number / 1000, UTC).isoformat(),
        "written_by": str(writer) if writer is not None else None,
        "rows": rebuilding.rows(),
        "parked": rebuilding.parked(),
    }


def _tell(facts: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(facts, indent=2, default=str))
        return
    out = Console(soft_wrap=True, highlight=False)
    if facts.get("verify") is not None:
        report = facts["verify"]
        differences = {name: report[name] for name in ("missing", "extra", "stale", "different", "unproven")}
        said = ", ".join(f"{count:,} {name}" for name, count in differences.items() if count)
        out.print(f"{report['lake_rows']:,} rows for {report['source_items']:,} items: {said or 'equal'}")
    if "promoted" in facts:
        out.print("promoted" if facts["promoted"] else "[red]not promoted[/]")
    elif facts.get("state") is None:
        out.print("abandoned" if facts.get("abandoned") else "no rebuild is in hand")
    else:
        writer = facts["written_by"] or "nobody: no job runs"
        out.print(f"{facts['table']}: {facts['state']}, from {facts['from']}, begun {facts['begun']}")
        out.print(f"{facts['rows']:,} rows, {facts['parked']:,} changes parked; both tables written by {writer}")


def _exit_by(report: "Report") -> None:
    if not report.equal:
        raise typer.Exit(5 if report.differences else 6)

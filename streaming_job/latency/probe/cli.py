"""`lakestream probe` as it is called and what it prints."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

GAPS = 13
EXIT_CODES = f"Exit codes: 0 ended as asked; 2 not possible as things are, nothing was started; {GAPS} found gaps."


def probe(
    config: Annotated[
        Path, typer.Option("--config", help="The job's: stream, region and endpoint are read from it.")
    ] = Path("build/job.yaml"),
    *,
    bridge: Annotated[
        str | None, typer.Option(help="URL of /metrics that counts what the bridge sent; without it gaps stay unknown.")
    ] = None,
    start: Annotated[str, typer.Option(help="latest or trim_horizon, where no lease says where to go on.")] = "latest",
    workers: Annotated[int, typer.Option(min=1, max=8, help="Workers that share the shards.")] = 1,
    application: Annotated[
        str | None, typer.Option(help="Names the lease table; the stream's name with -probe by default.")
    ] = None,
    leases_endpoint: Annotated[
        str | None, typer.Option(help="Emulators only: where the lease table is, if not beside the stream.")
    ] = None,
    metrics_port: Annotated[int, typer.Option(min=0, max=65535, help="For /metrics; 0 takes a free one.")] = 0,
    seconds: Annotated[float | None, typer.Option(min=1, help="End after so long; until SIGTERM by default.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the findings as one JSON object at the end.")] = False,
) -> None:
    """See for yourself what the bridge sends: how late, in what order, whether anything is missing. Apart from Spark.

    A consumer of the Kinesis Client Library: it keeps its place in a DynamoDB table, and several share the shards.

    Example: lakestream probe --bridge http://127.0.0.1:9465/metrics --seconds 60
    """
    from config.settings import load_settings  # noqa: PLC0415 - the other commands need not load what a probe needs
    from infra.local import checks, kcl  # noqa: PLC0415
    from streaming_job.latency.probe.command import Options  # noqa: PLC0415
    from streaming_job.latency.probe.command import probe as run_probe  # noqa: PLC0415
    from streaming_job.logs import log_to_stderr  # noqa: PLC0415

    if start not in ("latest", "trim_horizon"):
        raise typer.BadParameter(f"{start!r} is neither latest nor trim_horizon", param_hint="--start")
    settings = load_settings(config)
    checks.java()
    kcl.check()
    log_to_stderr()
    options = Options(
        application=application or f"{settings.source.stream}-probe",
        start=start,
        leases_endpoint=leases_endpoint,
        workers=workers,
        bridge=bridge,
        metrics_port=metrics_port,
        seconds=seconds,
    )
    found = run_probe(settings, options, kcl.FOLDER)
    if as_json:
        typer.echo(json.dumps(found, indent=2))
    else:
        Console().print(_table(found))
    if found["gaps"]:
        raise typer.Exit(GAPS)


def _table(found: dict[str, Any]) -> Table:
    table = Table(show_header=False, box=None)
    for name in ("records", "duplicates", "older_after_newer", "foreign", "redelivered"):
        table.add_row(name.replace("_", " "), f"{found[name]:,}")
    table.add_row("gaps", "not known" if found["gaps"] is None else f"{found['gaps']:,}")
    for hop, figures in found["hops"].items():
        table.add_row(hop, ", ".join(f"{name} {value:,.0f}" for name, value in figures.items() if value is not None))
    return table

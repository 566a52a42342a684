"""`lakestream doctor`: everything that can be known to fail before the first record, each with its mend."""

import json
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer
from rich.console import Console
from rich.markup import escape

from config.settings import Settings, load_settings
from config.tables import TableConfig, load_tables
from streaming_job.aws import client, is_emulator
from streaming_job.operations.doctor_findings import Check, Finding, Level, examined, ok, problem

if TYPE_CHECKING:
    from streaming_job.operations.doctor_lag import BridgeLag
    from streaming_job.operations.doctor_source import Source

UNWELL: Final = 8
_ANSWER_S: Final = 5
EXIT_CODES: Final = "Exit codes: 0 no problem (there may be warnings); 2 no configuration to check; 8 a problem."
_SIGNS: Final = {Level.OK: "[green]ok[/]", Level.NOTE: "[cyan]note[/]", Level.WARNING: "[yellow]warning[/]",
                 Level.PROBLEM: "[red]problem[/]"}  # fmt: skip

_err = Console(stderr=True)


def doctor(
    *,
    config: Annotated[Path, typer.Option("--config", help="The job's configuration.")] = Path("build/job.yaml"),
    offline: Annotated[bool, typer.Option("--offline", help="Ask nothing of AWS.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="Warnings and problems only.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> None:
    """Check configuration, machine, AWS and lake before the first record, and say how to mend what is wrong.

    Only reads: rights to read are tried for real, rights to write are not. A check that cannot look says so, and hides
    no other.

    Example: lakestream doctor --config build/job.yaml
    """
    settings = load_settings(config)
    findings = []
    with _err.status("looking") as shown:
        for finding in examine(settings, offline=offline, say=lambda what: shown.update(f"{what} …")):
            findings.append(finding)
            if not as_json and not (quiet and finding.level in (Level.OK, Level.NOTE)):
                _print(finding)
    counts = Counter(str(finding.level) for finding in findings)
    if as_json:
        typer.echo(json.dumps({"counts": counts, "findings": [_as_dict(finding) for finding in findings]}, indent=2))
    else:
        _err.print(", ".join(f"{counts[level]} {level}" for level in Level if counts[level]), highlight=False)
    if counts[Level.PROBLEM]:
        raise typer.Exit(UNWELL)


def examine(settings: Settings, *, offline: bool, say: Callable[[str], None]) -> Iterator[Finding]:
    known: dict[str, TableConfig] = {}
    for name, check, right in _steps(settings, known, offline=offline):
        say(name)
        yield from examined(name, check, right)


def _steps(settings: Settings, known: dict[str, TableConfig], *, offline: bool) -> Iterator[tuple[str, Check, str]]:
    """Name, check, and the right it needs; `known` fills as the rules are read."""
    from streaming_job.operations import doctor_machine  # noqa: PLC0415 - Spark and Delta, which --help need not load

    yield "rules", lambda: _rules(settings, known), ""
    yield "versions", doctor_machine.versions, ""
    yield "Spark", doctor_machine.spark, ""
    yield "room", lambda: doctor_machine.room(settings), ""
    yield "lake", lambda: doctor_machine.tables(settings, known), ""
    if not offline:
        yield from _aws_steps(settings, known)


def _aws_steps(settings: Settings, known: dict[str, TableConfig]) -> Iterator[tuple[str, Check, str]]:
    from streaming_job.operations.doctor_files import archives  # noqa: PLC0415 - see _steps
    from streaming_job.operations.doctor_lag import BridgeLag, job_lag  # noqa: PLC0415
    from streaming_job.operations.doctor_source import Source  # noqa: PLC0415

    clients: dict[str, Any] = {}

    def made(service: str) -> Any:
        if service not in clients:
            # A service that takes calls and does not answer must not keep the others from being looked at for minutes.
            clients[service] = client(settings.aws, service, attempts=2, read_timeout_s=_ANSWER_S)
        return clients[service]

    source = Source(settings, made)
    yield "clock", source.clock, "kinesis:ListStreams"
    stream = settings.source.stream
    yield f"stream {stream}", source.stream, "kinesis:DescribeStreamSummary"
    if settings.source.connector == "files":
        yield "archive", lambda: archives(settings, made("s3")), "s3:ListBucket, GetObject"
    else:
        yield f"reading {stream}", source.stream_readable, "kinesis:ListShards, GetShardIterator, GetRecords"
        yield "lag", lambda: job_lag(settings, made("kinesis"), source.now_s), "kinesis:GetRecords"
    for name, config in known.items():
        yield f"table {name}", _bound(source.table, config), "dynamodb:DescribeTable, DescribeTimeToLive"
        yield f"reading {name}", _bound(source.readable, config), "dynamodb:Scan"
        yield f"mapping of {name}", _bound(source.mapping, config), "lambda:ListEventSourceMappings"
        if not is_emulator(settings.aws):
            lag = BridgeLag(made("cloudwatch"), source.now_s)
            yield f"bridge of {name}", _bound(_of_bridges(source, lag), config), "cloudwatch:GetMetricStatistics"
    if any(config.bridge.hash for config in known.values()):
        yield "secrets", lambda: _secrets(settings, known), "secretsmanager:GetSecretValue"
    yield "bucket", source.bucket, "s3:ListBucket"


def _of_bridges(source: "Source", lag: "BridgeLag") -> Callable[[TableConfig], Iterator[Finding]]:
    def look(config: TableConfig) -> Iterator[Finding]:
        functions = source.bridges(config)
        return lag.findings(config.table, functions, () if functions else source.pipes(config))

    return look


def _bound(check: Callable[[TableConfig], Iterator[Finding]], config: TableConfig) -> Check:
    return lambda: check(config)


def _rules(settings: Settings, known: dict[str, TableConfig]) -> Iterator[Finding]:
    from config.rules import compile_rules  # noqa: PLC0415 - see _steps

    found = load_tables(settings.tables_dir)
    for name in settings.tables:
        if name in found:
            known[name] = found[name]
        else:
            files = ", ".join(sorted(found)) or "no table"
            yield problem("rules", f"no rules file for {name} in {settings.tables_dir}", f"there are files for {files}")
    compile_rules(settings.tables_dir)
    yield ok("rules", f"{', '.join(known) or 'nothing'}: they compile, and fit their samples")


def _secrets(settings: Settings, known: Collection[str]) -> Iterator[Finding]:
    from streaming_job.operations.source_rules import rules_of  # noqa: PLC0415 - see _steps

    rules_of(settings, known)
    yield ok("secrets", "the keys that rules hash with can be read")


def _as_dict(finding: Finding) -> dict[str, str]:
    return {"level": finding.level, "check": finding.check, "what": finding.what, "mend": finding.mend}


def _print(finding: Finding) -> None:
    out = Console(soft_wrap=True, highlight=False)
    out.print(f"{_SIGNS[finding.level]:<20} {escape(finding.check)}: {escape(finding.what)}")
    if finding.mend:
        out.print(f"         [dim]{escape(finding.mend)}[/]")

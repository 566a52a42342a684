"""`lakestream deploy`: shows what would change, asks, and changes it. Also `python -m infra.deploy_cli`."""

import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Final

import boto3
import typer
from botocore.exceptions import BotoCoreError, ClientError
from rich.console import Console
from rich.table import Table

from config.errors import LakestreamError
from config.rules import TABLES
from config.tables import load_tables
from infra.artefact import build
from infra.deploy import TEMPLATE, Deployment, Plan, judged, load_deploy_settings
from infra.job_settings import fill
from infra.template_model import Template
from infra.validate import check_rules, table_of

DECLINED: Final = 3
EXIT_CODES: Final = (
    "Exit codes: 0 done or nothing to do; 1 CloudFormation failed; 2 not possible, nothing was changed; 3 declined."
)

_err = Console(stderr=True)


def deploy(
    config: Annotated[Path, typer.Option("--config", help="Region, stack and the template's parameters.")],
    *,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    plan_only: Annotated[bool, typer.Option("--plan", help="Show what would change, and end.")] = False,
    job_config: Annotated[
        list[Path] | None,
        typer.Option("--job-config", help="A configuration of the job that is told what the stack made; repeated."),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="One JSON document on stdout; needs --yes or --plan.")
    ] = False,
) -> None:
    """Deploy the bridge's side to AWS: stream, bridge, archive, alarms. Shows the plan and asks before it acts.

    Example: lakestream deploy --config config/prod.yaml
    """
    if as_json and not (yes or plan_only):
        raise typer.BadParameter("--json needs --yes or --plan: there is nobody to ask")
    if job_config and plan_only:
        raise typer.BadParameter("--job-config is filled by a deployment, and --plan makes none")
    try:
        _deploy(config, job_config or [], yes=yes, plan_only=plan_only, as_json=as_json)
    except LakestreamError as error:
        _err.print(f"error: {error}", markup=False, highlight=False, soft_wrap=True)
        raise typer.Exit(error.exit_code) from error
    except (BotoCoreError, ClientError) as error:
        _err.print(f"error: {' '.join(str(error).split())}", markup=False, highlight=False, soft_wrap=True)
        raise typer.Exit(1) from error


def _deploy(config: Path, job_configs: Sequence[Path], *, yes: bool, plan_only: bool, as_json: bool) -> None:
    settings = load_deploy_settings(config)
    session = boto3.Session(region_name=settings.region)
    # Before seconds go into an artefact.
    planned = judged(settings, Template.load(TEMPLATE))
    check_rules(planned, load_tables(TABLES))
    with _err.status("building the artefact") as shown:
        artefact = build(table_of(planned))
        values = judged(settings, Template.load(TEMPLATE), artefact_key=artefact.key)
        clients: Callable[..., Any] = session.client  # its stubs know services by literal names alone
        deployment = Deployment(settings, values, clients, artefact)
        shown.update("planning")
        plan = deployment.plan()
    if not as_json:
        _show(plan, stack=settings.stack, region=settings.region)
    outputs = None
    if plan.changes and not plan_only:
        if not yes and not typer.confirm(f"Change stack {settings.stack}?", err=True):
            raise typer.Exit(DECLINED)
        with _err.status("deploying") as shown:
            outputs = deployment.execute(plan, shown.update)
    for file in job_configs:
        fill(file, outputs or deployment.outputs(), settings.region)
        _err.print(f"filled {file}", markup=False, highlight=False, soft_wrap=True)
    if as_json:
        sys.stdout.write(json.dumps({"plan": asdict(plan), "outputs": outputs}, indent=2) + "\n")
    elif outputs is not None:
        for name, value in outputs.items():
            _err.print(f"{name:22} {value}", markup=False, highlight=False, soft_wrap=True)


def _show(plan: Plan, *, stack: str, region: str) -> None:
    _err.print(f"stack {stack}, account {plan.account}, region {region}", highlight=False)
    if not plan.changes:
        _err.print("nothing to change")
        return
    table = Table("", "resource", "type", box=None)
    for change in plan.changes:
        colour = "red" if change in plan.loses else "green" if change.action == "Add" else "yellow"
        table.add_row(f"[{colour}]{change.action}[/]", change.logical_id, change.kind)
    if plan.makes_artefact_bucket:
        table.add_row("[green]Add[/]", "Artefacts", f"a stack of its own, {stack}-artefacts")
    _err.print(table)
    if plan.loses:
        _err.print(
            "[red]Replace and Remove take resources away;[/] tables, streams, buckets and keys are kept (Retain), "
            "but no longer this stack's.",
            highlight=False,
        )


if __name__ == "__main__":
    typer.run(deploy)

"""The Databricks bundle, offline: it names only keys, commands, entry points, files and tables that there are."""

import ast
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import typer.main
import yaml

from config.settings import Settings, load_settings
from infra.arrival.jobs_api import RefusedError
from infra.arrival.trigger import check_one_at_a_time
from infra.artefact import ROOT
from infra.databricks.bundle import HERE, Bundle, BundleError, Resource, load, targets
from infra.job_settings import FILLED
from infra.template_model import Template
from streaming_job.cli import app
from streaming_job.main import configured_tables
from tests.infra.test_databricks_dashboard import FILE as DASHBOARD
from tests.infra.test_databricks_dashboard import QUERIES
from tests.support.templates import TEMPLATE

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
COMMANDS = typer.main.get_command(app)


@pytest.fixture(params=targets())
def bundle(request: pytest.FixtureRequest) -> Bundle:
    return load(request.param)


def jobs(bundle: Bundle) -> dict[str, Any]:
    return {resource.name: resource.content for resource in bundle.resources if resource.kind == "jobs"}


def tasks(bundle: Bundle) -> Iterator[tuple[str, Resource, Any]]:
    for resource in bundle.resources:
        if resource.kind == "jobs":
            for task in resource.content["tasks"]:
                yield f"{bundle.target}.{resource.name}.{task['task_key']}", resource, task


def configuration(bundle: Bundle, task: Any) -> Path:
    """The file its --config names, on this side of the deployment."""
    words = task["python_wheel_task"]["parameters"]
    remote = words[words.index("--config") + 1]
    return Path(remote.replace("${workspace.file_path}", str(bundle.sync_root)))


def settings_of(bundle: Bundle) -> dict[str, Settings]:
    return {place: load_settings(configuration(bundle, task)) for place, _, task in tasks(bundle)}


# --- what tasks run ---------------------------------------------------------------------------------------------------


def test_every_task_is_a_command_with_options_it_has(bundle: Bundle) -> None:
    for place, _, task in tasks(bundle):
        word, *rest = task["python_wheel_task"]["parameters"]
        command = COMMANDS.commands[word]  # type: ignore[attr-defined]
        context = command.make_context(word, list(rest))
        assert context.args == [], place


def test_every_task_starts_an_entry_point_of_the_wheel(bundle: Bundle) -> None:
    for place, _, task in tasks(bundle):
        wheel_task = task["python_wheel_task"]
        assert wheel_task["package_name"] == PROJECT["name"], place
        module, _, name = PROJECT["scripts"][wheel_task["entry_point"]].partition(":")
        assert callable(getattr(__import__(module, fromlist=[name]), name)), place


def test_every_task_has_compute_that_the_job_declares(bundle: Bundle) -> None:
    for place, job, task in tasks(bundle):
        clusters = {cluster["job_cluster_key"] for cluster in job.content.get("job_clusters", ())}
        environments = {environment["environment_key"] for environment in job.content.get("environments", ())}
        assert (task.get("job_cluster_key") in clusters) != (task.get("environment_key") in environments), place


def test_every_task_gets_the_wheel_that_the_bundle_builds(bundle: Bundle) -> None:
    (artefact,) = bundle.content["artifacts"].values()
    (built,) = ((HERE / file["source"]).resolve() for file in artefact["files"])
    assert built == (HERE / artefact["path"]).resolve() / "dist" / "lakestream-*.whl"
    for place, job, task in tasks(bundle):
        libraries = [library["whl"] for library in task.get("libraries", ())]
        for environment in job.content.get("environments", ()):
            libraries += environment["spec"]["dependencies"]
        assert [(job.file.parent / library).resolve() for library in libraries] == [built], place


# --- what they run with -----------------------------------------------------------------------------------------------


def test_every_configuration_is_taken_along_and_has_only_keys_there_are(bundle: Bundle) -> None:
    taken = [(bundle.root / path).resolve() for path in bundle.content["sync"]["paths"]]
    for place, _, task in tasks(bundle):
        file = configuration(bundle, task)
        assert any(file.is_relative_to(folder) for folder in taken), place
        load_settings(file)
    shipped = {file.resolve() for file in (HERE / "config").glob("*.yaml")}
    assert shipped == {configuration(load(target), task) for target in targets() for _, _, task in tasks(load(target))}


def test_bundle_and_configuration_name_the_same_lake_and_credential(bundle: Bundle) -> None:
    for place, settings in settings_of(bundle).items():
        assert (settings.lake.catalog, settings.lake.schema_) == (
            bundle.variables["catalog"],
            bundle.variables["schema"],
        ), place
        credentials = {settings.source.service_credential, settings.aws.service_credential} - {None}
        assert credentials == {bundle.variables["service_credential"]}, place


def test_positions_lie_in_the_volume_that_the_bundle_makes_and_no_two_sources_share_one(bundle: Bundle) -> None:
    (volume,) = (resource.content["name"] for resource in bundle.resources if resource.kind == "volumes")
    by_connector: dict[str, set[str]] = {}
    for place, settings in settings_of(bundle).items():
        home = f"/Volumes/{settings.lake.catalog}/{settings.lake.schema_}/{volume}/"
        assert settings.lake.checkpoint.startswith(home), place
        by_connector.setdefault(settings.source.connector, set()).add(settings.lake.checkpoint)
    assert all(len(checkpoints) == 1 for checkpoints in by_connector.values())
    assert len(set.union(*by_connector.values())) == len(by_connector)


def test_a_catalogs_tables_are_sparks_whatever_their_rules_say(bundle: Bundle) -> None:
    for settings in settings_of(bundle).values():
        assert {table.lake.engine for table in configured_tables(settings).values()} == {"spark"}


def test_the_streams_job_reports_to_cloudwatch_so_that_its_alarm_rests(bundle: Bundle) -> None:
    (task,) = jobs(bundle)["stream"]["tasks"]
    settings = load_settings(configuration(bundle, task))
    assert settings.cloudwatch
    assert settings.source.connector == "databricks"


def test_a_start_waits_until_the_lease_of_a_killed_job_is_over(bundle: Bundle) -> None:
    for place, settings in settings_of(bundle).items():
        assert settings.lease.wait_s > settings.lease.duration_s, place


def test_every_output_that_fills_a_configuration_is_an_output_and_a_documented_key() -> None:
    outputs = Template.load(TEMPLATE).content["Outputs"]
    readme = (ROOT / "config" / "README.md").read_text(encoding="utf-8")
    for output, ((section, key), _) in FILLED.items():
        assert output in outputs
        assert f"`{section}.{key}`" in readme


# --- one at a time ----------------------------------------------------------------------------------------------------


def test_no_job_runs_twice_at_once_and_each_has_one_reason_to_run(bundle: Bundle) -> None:
    for name, job in jobs(bundle).items():
        assert job["max_concurrent_runs"] == 1, name
        assert len({"continuous", "schedule"} & job.keys()) <= 1, name


def test_the_streams_job_is_the_one_that_the_command_asks_for() -> None:
    (asked,) = (
        parameter.default for parameter in COMMANDS.commands["job"].commands["run"].params if parameter.name == "job"
    )  # type: ignore[attr-defined]
    assert jobs(load("prod"))["stream"]["name"] == asked


def test_the_trigger_on_arrival_takes_the_jobs_that_are_made_for_it_and_not_the_streams(bundle: Bundle) -> None:
    def judge(name: str) -> None:
        check_one_at_a_time(SimpleNamespace(job_id=1, settings=lambda: jobs(bundle)[name]))  # type: ignore[arg-type]

    for name in ("arrival", "arrival_serverless"):
        judge(name)
        # A run that a person starts beside the trigger's waits; it is not skipped.
        assert jobs(bundle)[name]["queue"]["enabled"]
    with pytest.raises(RefusedError, match="runs continuously"):
        judge("stream")


def test_schedules_and_the_stream_rest_in_dev_and_run_in_prod() -> None:
    for target, status in (("dev", "PAUSED"), ("prod", "UNPAUSED")):
        statuses = {
            job[key]["pause_status"]
            for job in jobs(load(target)).values()
            for key in ("continuous", "schedule")
            if key in job
        }
        assert statuses == {status}


# --- the dashboard ----------------------------------------------------------------------------------------------------


def test_the_dashboard_is_there_and_its_queries_name_tables_of_the_lake(bundle: Bundle) -> None:
    (dashboard,) = (resource for resource in bundle.resources if resource.kind == "dashboards")
    assert (dashboard.file.parent / dashboard.content["file_path"]).resolve() == DASHBOARD
    assert (dashboard.content["dataset_catalog"], dashboard.content["dataset_schema"]) == (
        bundle.variables["catalog"],
        bundle.variables["schema"],
    )
    named = {name for query in QUERIES.values() for name in re.findall(r"(?i)\b(?:from|join)\s+([a-z_][\w.]*)", query)}
    assert named
    assert named <= set(shared_tables())


def shared_tables() -> Iterator[str]:
    """What the code itself asks the lake for by `shared("…")`."""
    for path in (ROOT / "streaming_job").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "shared":
                yield from (argument.value for argument in node.args if isinstance(argument, ast.Constant))


# --- the wheel --------------------------------------------------------------------------------------------------------


def test_the_wheel_has_what_the_tasks_need_and_lays_no_spark_over_the_platforms(tmp_path: Path) -> None:
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(tmp_path)],
        cwd=ROOT,
        check=True,
        capture_output=True,
        timeout=120,
    )
    (wheel,) = tmp_path.glob("lakestream-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        metadata = next(archive.read(name).decode() for name in names if name.endswith(".dist-info/METADATA"))
    wanted = [line for line in metadata.splitlines() if line.startswith("Requires-Dist:") and "extra ==" not in line]
    assert wanted
    assert not [line for line in wanted if re.match(r"Requires-Dist: (pyspark|delta-spark|py4j)\b", line)]
    assert {"streaming_job/task.py", "streaming_job/remote.py", "bridge_lambda/rules.py"} <= names
    rules = {path.relative_to(ROOT).as_posix() for path in (ROOT / "config" / "tables").glob("*.yaml")}
    assert rules <= names


# --- the check itself -------------------------------------------------------------------------------------------------


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    folder = tmp_path / "databricks"
    shutil.copytree(HERE, folder, ignore=shutil.ignore_patterns("__pycache__"))
    return folder


def change(file: Path, old: str, new: str) -> None:
    text = file.read_text(encoding="utf-8")
    assert old in text
    file.write_text(text.replace(old, new, 1), encoding="utf-8")


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("max_concurrent_runs", "max_concurent_runs", "jobs.stream: Unexpected field 'max_concurent_runs'"),
        ("task_retry_mode: ON_FAILURE", "task_retry_mode: SOMETIMES", "jobs.stream: 'SOMETIMES' is not a valid"),
        ("- task_key: run\n", "- description: run\n", "jobs.stream: Task.__init__() missing 1 required"),
        ("  jobs:\n", "  pipelines: {p: {name: p}}\n  jobs:\n", "pipelines.p: no model for pipelines"),
    ],
)
def test_what_the_platforms_models_refuse_is_refused_offline(copied: Path, old: str, new: str, said: str) -> None:
    change(copied / "resources" / "jobs.yml", old, new)
    done = subprocess.run(
        [str(ROOT / ".venv-check" / "bin" / "python"), "-m", "infra.databricks.check", str(copied)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 1
    assert said in done.stderr


@pytest.mark.parametrize(
    ("file", "old", "new", "said"),
    [
        ("databricks.yml", "artifacts:", "artefacts:", "unknown key 'artefacts'"),
        ("databricks.yml", "mode: production", "mood: production", "targets.prod: unknown key 'mood'"),
        ("databricks.yml", "      catalog: main", "      catalogue: main", "unknown key 'catalogue'"),
        ("resources/dashboard.yml", "${var.catalog}", "${var.catalogue}", "nothing is named ${var.catalogue}"),
        ("resources/lake.yml", "${resources.schemas.lake.name}", "${resources.schemas.sea.name}", "no ${resources.sch"),
        ("resources/lake.yml", "resources:", "resources: [", "lake.yml: "),
    ],
)
def test_what_leads_nowhere_is_refused_with_its_place(copied: Path, file: str, old: str, new: str, said: str) -> None:
    change(copied / file, old, new)
    with pytest.raises(BundleError, match=re.escape(said)):
        load("prod", copied)


def test_a_reference_in_a_reference_is_put_in(copied: Path) -> None:
    content = yaml.safe_load((copied / "databricks.yml").read_text())
    content["variables"]["node_type"]["default"] = "${var.name}-node"
    (copied / "databricks.yml").write_text(yaml.safe_dump(content))
    (machine,) = jobs(load("prod", copied))["stream"]["job_clusters"]
    assert machine["new_cluster"]["node_type_id"] == "lakestream-node"

"""Style that a machine can check: who may import whom, that nothing is dead, that what exists is documented."""

import ast
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer.main

from streaming_job.cli import app

ROOT = Path(__file__).parents[2]
PACKAGES = ("bridge_lambda", "streaming_job", "config", "infra")
BRIDGE_FOR_OPERATIONS = {"bridge_lambda.images", "bridge_lambda.envelope", "bridge_lambda.rules"}
ENTRY_POINTS = {
    "streaming_job.latency.probe.processor",
    "config.rules",
    "infra.arrival.handler",
    "infra.databricks.check",
    "infra.local.demo",
    "infra.local.jars",
    "infra.local.mapping.environment",
    "streaming_job.cli",
    "streaming_job.task",
    "bridge_lambda.handler",
}
"""Started by name - by make, by the stack, by Lambda or Databricks - and so imported by nobody."""


def modules() -> Iterator[tuple[str, Path]]:
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts), path


def imports(path: Path) -> set[str]:
    """Absolute names of modules, and of what is imported from them, that a file names."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def importers_of(prefix: str, within: str) -> dict[str, set[str]]:
    found = {}
    for name, path in modules():
        if name.startswith(within):
            named = {module for module in imports(path) if module == prefix or module.startswith(f"{prefix}.")}
            if named:
                found[name] = named
    return found


@pytest.mark.parametrize("library", ["pyspark", "pydantic", "yaml", "pandas", "pyarrow", "streaming_job", "infra"])
def test_the_bridge_imports_nothing_that_would_slow_its_cold_start(library: str) -> None:
    assert importers_of(library, "bridge_lambda") == {}


def test_the_jobs_own_path_imports_nothing_of_the_bridge() -> None:
    outside_operations = {
        name: used
        for name, used in importers_of("bridge_lambda", "streaming_job").items()
        if not name.startswith("streaming_job.operations")
    }
    assert outside_operations == {}


def test_no_module_is_dead() -> None:
    used = set(ENTRY_POINTS)
    for name, path in modules():
        used |= imports(path) - {name}
    dead = [name for name, path in modules() if path.name not in {"__init__.py", "__main__.py"} and name not in used]
    assert dead == []


def test_every_command_is_documented_in_the_readme() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    undocumented = [name for name in commands() if f"lakestream {name}" not in readme]
    assert undocumented == []


def test_every_command_shows_an_example_in_its_help() -> None:
    without = [name for name, text in commands().items() if "Example" not in text]
    assert without == []


def test_every_command_that_prints_an_answer_prints_it_as_json_too() -> None:
    serving = {"run", "dashboard"}
    without = {name for name, command in parts().items() if not any("--json" in param.opts for param in command.params)}
    assert without == serving


def commands() -> dict[str, str]:
    """Every command and the text of its help."""
    return {name: f"{command.help or ''} {command.epilog or ''}" for name, command in parts().items()}


def parts() -> dict[str, Any]:
    """Every command as typer made it."""
    found: dict[str, Any] = {}

    def walk(command: object, prefix: str) -> None:
        for name, child in getattr(command, "commands", {}).items():
            full = f"{prefix} {name}".strip()
            if hasattr(child, "commands"):
                walk(child, full)
            else:
                found[full] = child

    walk(typer.main.get_command(app), "")
    return found


def test_every_published_metric_is_documented() -> None:
    text = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
    declared = {name for _, path in modules() for name in metrics_of(path)}
    assert len(declared) > 20
    assert sorted(name for name in declared if f"`{name}`" not in text) == []


def metrics_of(path: Path) -> Iterator[str]:
    """Names given to prometheus-client's constructors."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.args:
            first = node.args[0]
            if node.func.id in METRIC_TYPES and isinstance(first, ast.Constant):
                yield str(first.value)


METRIC_TYPES = {
    "Counter",
    "Gauge",
    "Histogram",
    "CounterMetricFamily",
    "GaugeMetricFamily",
    "SummaryMetricFamily",
}


def test_no_tracked_file_names_a_registry_or_a_path_of_a_machine() -> None:
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    forbidden = re.compile(r"pypi\.org|python[h]osted|repo1?\.maven|registry\.npmjs|/(?:home/[a-z]+|root|Users)/")
    offenders = [
        name
        for name in tracked
        if (ROOT / name).is_file() and forbidden.search((ROOT / name).read_text(encoding="utf-8", errors="ignore"))
    ]
    assert offenders == []


def test_every_module_says_what_it_is_for() -> None:
    silent = [
        name
        for name, path in modules()
        if path.read_text(encoding="utf-8").strip()
        and not ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
    ]
    assert silent == []

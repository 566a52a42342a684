"""The README's costs are what the command prints."""

import json
import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from streaming_job.cli import app

README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
WAYS = {"stream": [], "files": ["--way", "files", "--runs-h", "4"], "pull": ["--way", "pull", "--runs-h", "4"]}


def usd_month(*arguments: str) -> float:
    return float(json.loads(CliRunner().invoke(app, ["cost", *arguments, "--json"]).stdout)["usd_month"])


@pytest.mark.parametrize("rate", ["1", "100", "1000"])
def test_the_readme_s_costs_are_those_the_command_prints(rate: str) -> None:
    found = re.search(rf"\| a month at {int(rate):,} changes?/s \|(.*)\|\n", README)
    assert found is not None
    said = [cell.strip() for cell in found[1].split("|")]
    assert said == [f"${usd_month(rate, *options):,.0f}" for options in WAYS.values()]


def test_what_a_pipe_costs_more_is_what_the_command_says() -> None:
    found = re.search(r"\$(\d+) more at 100 changes/s", README)
    assert found is not None
    assert float(found[1]) == pytest.approx(usd_month("100", "--pipe") - usd_month("100"), abs=0.5)


def test_the_readme_names_the_commands_its_costs_come_from() -> None:
    text = " ".join(README.split())
    for options in WAYS.values():
        assert " ".join(["lakestream cost RATE", *options]) in text

"""The fault table in ARCHITECTURE.md has the rows of the code, and each runs in a test that is there."""

import ast
from pathlib import Path

import pytest

from tests.faults.fault_table import HERE, ROWS, Row

ROOT = Path(__file__).parents[2]


def test_the_architectures_table_has_the_rows_that_are_run() -> None:
    text = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
    written = text.partition("## Broken on purpose\n")[2].partition("\n## ")[0]
    rows = [line for line in written.splitlines() if line.startswith("| ")][1:]
    assert rows == [f"| {row.fault} | {row.told} | {row.mended} |" for row in ROWS]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.fault.replace("`", ""))
def test_every_row_runs_in_a_test_that_is_there(row: Row) -> None:
    path, _, name = row.held_by.partition("::")
    tests = {node.name for node in ast.walk(ast.parse((ROOT / path).read_text())) if isinstance(node, ast.FunctionDef)}
    assert name in tests
    assert (row.drill is not None) == (row.held_by == HERE)

from pathlib import Path

import pytest

from config.errors import ConfigurationError
from config.tables import load_table, load_tables

SHIPPED = Path(__file__).parents[2] / "config" / "tables"


def test_every_shipped_rules_file_is_valid() -> None:
    assert "chargeminder-car-telemetry" in load_tables(SHIPPED)


def test_an_unknown_key_is_refused_by_its_path(tmp_path: Path) -> None:
    rules = tmp_path / "t.yaml"
    rules.write_text("table: t\nversion: 1\nkey: [{name: id}]\nbridge: {dorp: [a]}\nlake: {name: t}\n")
    with pytest.raises(ConfigurationError, match=r"t\.yaml: bridge\.dorp: unknown key"):
        load_table(rules)


def test_two_files_for_one_table_are_refused(tmp_path: Path) -> None:
    for name in ("a.yaml", "b.yaml"):
        (tmp_path / name).write_text("table: t\nversion: 1\nkey: [{name: id}]\nlake: {name: t}\n")
    with pytest.raises(ConfigurationError, match=r"b\.yaml names table 't' a second time"):
        load_tables(tmp_path)

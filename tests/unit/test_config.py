from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import pytest
from pydantic import BaseModel

from config.errors import ConfigurationError
from config.settings import Settings
from config.tables import TableConfig, load_table, load_tables

SHIPPED = Path(__file__).parents[2] / "config" / "tables"


def test_every_shipped_rules_file_is_valid() -> None:
    assert "chargeminder-car-telemetry" in load_tables(SHIPPED)


def test_an_unknown_key_is_refused_by_its_path(tmp_path: Path) -> None:
    rules = tmp_path / "t.yaml"
    rules.write_text("table: t\nversion: 1\nkey: [{name: id}]\nbridge: {dorp: [a]}\nlake: {name: t}\n")
    with pytest.raises(ConfigurationError, match=r"t\.yaml: bridge\.dorp: unknown key"):
        load_table(rules)


def test_a_refusal_says_names_as_the_file_has_them(tmp_path: Path) -> None:
    rules = tmp_path / "t.yaml"
    rules.write_text("table: t\nversion: 1\nkey: [{name: id}]\nbridge: {drop: [Home, Home.Street]}\nlake: {name: t}\n")
    with pytest.raises(ConfigurationError, match=r"t\.yaml: bridge: Home\.Street is dropped or hashed twice"):
        load_table(rules)


def test_two_files_for_one_table_are_refused(tmp_path: Path) -> None:
    for name in ("a.yaml", "b.yaml"):
        (tmp_path / name).write_text("table: t\nversion: 1\nkey: [{name: id}]\nlake: {name: t}\n")
    with pytest.raises(ConfigurationError, match=r"b\.yaml names table 't' a second time"):
        load_tables(tmp_path)


def keys_of(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    for name, field in model.model_fields.items():
        full = prefix + (field.alias or name)
        nested = [part for part in (field.annotation, *get_args(field.annotation)) if is_section(part)]
        if nested:
            yield from keys_of(nested[0], f"{full}.")
        else:
            yield full


def is_section(annotation: object) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel) and annotation.__name__.endswith(SECTIONS)


SECTIONS = ("Settings", "BridgeRules", "LakeRules", "FlattenRules", "PullRules")


@pytest.mark.parametrize("model", [Settings, TableConfig])
def test_every_key_of_the_configuration_is_documented(model: type[BaseModel]) -> None:
    text = (SHIPPED.parent / "README.md").read_text(encoding="utf-8")
    assert [key for key in keys_of(model) if f"`{key}`" not in text] == []

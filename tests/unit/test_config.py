import re
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


@pytest.mark.parametrize("name", ["latency", "Rejects"])
def test_a_table_under_the_name_of_one_that_all_share_is_refused(name: str, tmp_path: Path) -> None:
    rules = tmp_path / "t.yaml"
    rules.write_text(f"table: t\nversion: 1\nkey: [{{name: id}}]\nlake: {{name: {name}}}\n")
    with pytest.raises(ConfigurationError, match=rf"t\.yaml: .*lake\.name: {name} is a table that all .* share"):
        load_table(rules)


def test_two_files_for_one_table_are_refused(tmp_path: Path) -> None:
    for name in ("a.yaml", "b.yaml"):
        (tmp_path / name).write_text("table: t\nversion: 1\nkey: [{name: id}]\nlake: {name: t}\n")
    with pytest.raises(ConfigurationError, match=r"b\.yaml names table 't' a second time"):
        load_tables(tmp_path)


RULES = "table: t\nversion: 1\nkey: [{{name: id, type: {key}}}]\nbridge: {{{bridge}}}\nlake: {{name: t{lake}}}\n"


@pytest.mark.parametrize(
    ("place", "bridge", "lake"),
    [
        ("bridge.drop.0", "drop: [a..b]", ""),
        ("bridge.hash.1", "hash: [a, .b], hash_secret: s", ""),
        ("bridge.filter.attribute", "filter: {attribute: a., equals: [1]}", ""),
        ("bridge.ttl_attribute", "ttl_attribute: .", ""),
        ("bridge.origin.attribute", "origin: {attribute: a..b}", ""),
        ("lake.time_zone.attribute", "", ", time_zone: {attribute: a.}"),
        ("lake.columns.a..b", "", ", columns: {a..b: bigint}"),
        ("lake.flatten.pivot.0.list", "", ", flatten: {pivot: [{list: a..b, name: '{n}', value: v}]}"),
        ("lake.flatten.index.0", "", ", flatten: {index: [a..b]}"),
        ("lake.flatten.embedded.0", "", ", flatten: {embedded: [.a]}"),
        ("lake.flatten.json.0", "", ", flatten: {json: ['..']}"),
    ],
)
def test_a_path_with_an_empty_name_is_refused_by_its_place(place: str, bridge: str, lake: str, tmp_path: Path) -> None:
    rules = tmp_path / "t.yaml"
    rules.write_text(RULES.format(key="S", bridge=bridge, lake=lake))
    with pytest.raises(ConfigurationError, match=rf"t\.yaml: {re.escape(place)}.*: .* holds an empty name"):
        load_table(rules)


@pytest.mark.parametrize(
    ("key", "rule"),
    [
        *(("N", rule) for rule in ("string", "boolean", "binary", "json", "date", "timestamp")),
        ("N", "{type: date, format: yyyy}"),
        *(("S", rule) for rule in ("bigint", "date", "json", "{type: timestamp, unit: ms}")),
        *(("B", rule) for rule in ("string", "double")),
    ],
)
def test_a_key_declared_as_what_it_cannot_be_is_refused(key: str, rule: str, tmp_path: Path) -> None:
    """A key that its column did not take would be no change at all."""
    rules = tmp_path / "t.yaml"
    rules.write_text(RULES.format(key=key, bridge="", lake=f", columns: {{id: {rule}}}"))
    with pytest.raises(
        ConfigurationError, match=rf"t\.yaml: .*lake\.columns\.id: a key's attribute of type {key} becomes"
    ):
        load_table(rules)


@pytest.mark.parametrize(
    ("key", "rule"),
    [
        *(("N", rule) for rule in ("bigint", "double", "'decimal(38,10)'", "{type: timestamp, unit: us}")),
        *(("S", "string"), ("B", "binary")),
    ],
)
def test_a_key_declared_as_what_it_can_be_is_taken(key: str, rule: str, tmp_path: Path) -> None:
    rules = tmp_path / "t.yaml"
    rules.write_text(RULES.format(key=key, bridge="", lake=f", columns: {{id: {rule}}}"))
    assert load_table(rules).lake.columns.keys() == {"id"}


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

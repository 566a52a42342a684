"""Compiles `config/tables/*.yaml` into the one JSON file that the bridge reads: `python -m config.rules OUT.json`.

A rule that names nothing real is found here and not in production: every path of a table's rules must lead somewhere in
at least one item of `<table>.sample.json` beside the rules file - DynamoDB JSON, as `aws dynamodb scan` prints it. An
attribute that only some items have needs one such item there.
"""

import argparse
import json
import sys
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from config.errors import ConfigurationError
from config.tables import FilterRule, TableConfig, join_path, load_table, load_tables, split_path

FORMAT: Final = 1
TABLES: Final = Path(__file__).parent / "tables"
_TAGS: Final = frozenset(("S", "N", "B", "SS", "NS", "BS", "M", "L", "BOOL", "NULL"))

Item = dict[str, Any]
Scalar = str | int | bool


def compile_rules(directory: Path, wanted: Collection[str] | None = None) -> dict[str, Any]:
    """The compiled rules of the tables wanted, or of all there are; ConfigurationError, with the place, where those of
    any table can't be meant.
    """
    known = load_tables(directory)  # refuses two files for one table
    if not known:
        raise ConfigurationError(f"{directory} holds no rules", hint="one YAML file a table")
    if missing := sorted(set(wanted or ()) - known.keys()):
        raise ConfigurationError(
            f"there are no rules for table {missing[0]} in {directory}", hint=f"there are for {', '.join(known)}"
        )
    tables = {}
    for path in sorted(directory.glob("*.yaml")):
        table = load_table(path)
        check(path, table)
        if wanted is None or table.table in wanted:
            tables[table.table] = compile_table(table)
    return {"format": FORMAT, "tables": tables}


def compile_table(table: TableConfig) -> dict[str, Any]:
    bridge = table.bridge
    return {
        "version": table.version,
        "key": [attribute.name for attribute in table.key],
        "drop": [split_path(path) for path in bridge.drop],
        "hash": [split_path(path) for path in bridge.hash],
        "secret": {"name": bridge.hash_secret, "version": bridge.hash_secret_version} if bridge.hash_secret else None,
        "keep_old_image": bridge.keep_old_image,
        "filter": _compiled_filter(bridge.filter) if bridge.filter else None,
        "origin": {
            "path": split_path(bridge.origin.attribute),
            "ms_per_unit": 1000 if bridge.origin.unit == "s" else 1,
        }
        if bridge.origin
        else None,
    }


def _compiled_filter(rule: FilterRule) -> dict[str, Any]:
    return {"path": split_path(rule.attribute), "equals": [_typed(value) for value in rule.equals]}


def _typed(value: Scalar) -> tuple[str, str | bool]:
    if isinstance(value, bool):
        return "BOOL", value
    return ("N", str(value)) if isinstance(value, int) else ("S", value)


# --- against the sample -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Claim:
    """What a rules file says about its items."""

    place: str
    names: tuple[str, ...]
    tags: frozenset[str] = _TAGS
    everywhere: bool = False
    """Of every item, as a key is; else of one at least."""
    through_lists: bool = True


def _claims(table: TableConfig) -> Iterator[_Claim]:
    bridge = table.bridge
    for attribute in table.key:
        yield _Claim(f"key.{attribute.name}", (attribute.name,), frozenset((attribute.type,)), everywhere=True)
    for word, paths in (("drop", bridge.drop), ("hash", bridge.hash)):
        for path in paths:
            yield _Claim(f"bridge.{word}", split_path(path))
    if bridge.filter:
        tags = frozenset(_typed(value)[0] for value in bridge.filter.equals)
        yield _Claim("bridge.filter", split_path(bridge.filter.attribute), tags, through_lists=False)
    if bridge.origin:
        times = frozenset(("N", "S"))
        yield _Claim("bridge.origin", split_path(bridge.origin.attribute), times, through_lists=False)
    if bridge.ttl_attribute:
        yield _Claim("bridge.ttl_attribute", split_path(bridge.ttl_attribute), frozenset(("N",)))


def check(path: Path, table: TableConfig) -> None:
    """Every name in the rules against the table's sample items."""
    keys = {attribute.name for attribute in table.key}
    for dropped in table.bridge.drop:
        if split_path(dropped)[0] in keys:
            raise ConfigurationError(f"{path}: bridge.drop: {dropped} is of the key", hint="hash it instead")
    if len(split_path(table.bridge.ttl_attribute or "-")) > 1:
        raise ConfigurationError(f"{path}: bridge.ttl_attribute: DynamoDB expires by a top-level attribute only")
    claims = list(_claims(table))
    sample = _sample(path.with_suffix(".sample.json"))
    if sample is not None:
        for claim in claims:
            _settle(path, claim, sample)
    elif len(claims) > len(keys):
        raise ConfigurationError(
            f"{path}: there is no {path.stem}.sample.json to check its rules against",
            hint="aws dynamodb scan --max-items 20 --table-name … > it",
        )


def _settle(path: Path, claim: _Claim, sample: Sequence[Item]) -> None:
    found = [set(_tags_at(item, claim.names, through_lists=claim.through_lists)) for item in sample]
    name = join_path(claim.names)
    if not any(found) or (claim.everywhere and not all(found)):
        where = "every sample item" if claim.everywhere else "any sample item"
        raise ConfigurationError(
            f"{path}: {claim.place}: {name} is not in {where}{_likely(sample, claim.names)}",
            hint=f"correct the name, or add an item that has it to {path.stem}.sample.json",
        )
    wrong = set().union(*found) - claim.tags
    if wrong:
        raise ConfigurationError(
            f"{path}: {claim.place}: {name} is {_or(wrong)} in the sample, not {_or(claim.tags)}",
            hint="correct the rule, or the sample",
        )


def _or(tags: Iterable[str]) -> str:
    return " or ".join(sorted(tags))


def _tags_at(attributes: Item, names: tuple[str, ...], *, through_lists: bool) -> Iterator[str]:
    """Types of what the path leads to."""
    typed = attributes.get(names[0])
    if typed is None:
        return
    for value in _through(typed) if through_lists and len(names) > 1 else (typed,):
        ((tag, inner),) = value.items()
        if len(names) == 1:
            yield tag
        elif tag == "M":
            yield from _tags_at(inner, names[1:], through_lists=through_lists)


def _through(typed: Item) -> Iterator[Item]:
    if "L" not in typed:
        yield typed
        return
    for element in typed["L"]:
        yield from _through(element)


def _likely(sample: Sequence[Item], names: tuple[str, ...]) -> str:
    """What stands at the place where the path breaks off: most wrong names are misspelt ones."""
    known: set[str] = set()
    for depth in range(len(names)):
        here = {name for item in sample for name in _names_below(item, names[:depth])}
        if names[depth] not in here:
            known = here
            break
    return f"; there are {', '.join(sorted(known))}" if known else ""


def _names_below(attributes: Item, names: tuple[str, ...]) -> Iterator[str]:
    if not names:
        yield from attributes
        return
    typed = attributes.get(names[0])
    for value in _through(typed) if typed is not None else ():
        if "M" in value:
            yield from _names_below(value["M"], names[1:])


def _sample(path: Path) -> list[Item] | None:
    """The sample items; None where there is no such file."""
    if not path.exists():
        return None
    hint = "DynamoDB JSON, as `aws dynamodb scan` prints it"
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        items: list[Item] = content["Items"]
        if not items or not all(_is_typed({"M": item}) for item in items):
            raise ConfigurationError(f"{path} holds no items in DynamoDB JSON", hint=hint)
    except (ValueError, TypeError, KeyError) as error:
        raise ConfigurationError(f"{path} is no sample: {error!r}", hint=hint) from error
    return items


def _is_typed(value: Any) -> bool:
    if not isinstance(value, dict) or len(value) != 1:
        return False
    ((tag, inner),) = value.items()
    if tag == "M":
        return isinstance(inner, dict) and all(map(_is_typed, inner.values()))
    if tag == "L":
        return isinstance(inner, list) and all(map(_is_typed, inner))
    return tag in _TAGS


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m config.rules", description="Compile and check the tables' rules.")
    parser.add_argument("out", type=Path, help="where the compiled rules go")
    parser.add_argument("--tables", type=Path, default=TABLES, help="folder of the rules files")
    options = parser.parse_args(arguments)
    try:
        compiled = compile_rules(options.tables)
    except ConfigurationError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    options.out.write_text(json.dumps(compiled, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())

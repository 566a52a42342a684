"""The bundle as one target sees it: files joined, the target laid over, variables put in. What the CLI does, offline.

Of the CLI's rules only those that our files use; anything else is refused rather than guessed. Nothing but PyYAML is
needed, so that the checking tools' environment reads it too.
"""

import copy
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

HERE: Final = Path(__file__).parent
_TOP: Final = frozenset({"bundle", "include", "sync", "artifacts", "variables", "targets", "resources"})
_OF_TARGET: Final = frozenset({"default", "mode", "presets", "workspace", "run_as", "variables", "permissions"})
_OF_VARIABLE: Final = frozenset({"description", "default", "lookup"})
_REFERENCE: Final = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_.-]*)\}")
_LEFT_TO_DATABRICKS: Final = ("workspace.", "resources.")


class BundleError(Exception):
    """The bundle says something that cannot be; with the place."""


@dataclass(frozen=True)
class Resource:
    kind: str
    """`jobs`, `schemas`, …"""
    name: str
    file: Path
    """Relative paths in it begin at its folder."""
    content: Mapping[str, Any]


@dataclass(frozen=True)
class Bundle:
    target: str
    content: Mapping[str, Any]
    """databricks.yml with the target's part laid over it, variables put in."""
    variables: Mapping[str, Any]
    """None of one that is looked up, or given at deployment."""
    resources: tuple[Resource, ...]
    root: Path

    @property
    def sync_root(self) -> Path:
        """What ${workspace.file_path} is a copy of: the folder that holds the bundle and all that it takes along."""
        roots = [self.root, *((self.root / path).resolve() for path in self.content["sync"]["paths"])]
        return next(
            folder for folder in (self.root, *self.root.parents) if all(root.is_relative_to(folder) for root in roots)
        )


def targets(root: Path = HERE) -> list[str]:
    return list(_load(root / "databricks.yml")["targets"])


def load(target: str, root: Path = HERE) -> Bundle:
    root = root.resolve()
    file = root / "databricks.yml"
    top = _load(file)
    _known(top, _TOP, file.name)
    laid_over = top.pop("targets")[target]
    _known(laid_over, _OF_TARGET, f"{file.name}: targets.{target}")
    variables = _variables(top.pop("variables"), laid_over.pop("variables", {}), file)
    values = {f"var.{name}": value for name, value in variables.items() if value is not None}
    values |= {"bundle.target": target, "bundle.name": top["bundle"]["name"]}
    known = frozenset(f"var.{name}" for name in variables)
    files = [file, *(found for pattern in top.pop("include") for found in sorted(root.glob(pattern)))]
    resources = tuple(
        Resource(kind, name, source, _put_in(content, values, known, f"{source.name}: {kind}.{name}"))
        for source in files
        for kind, named in _load(source).get("resources", {}).items()
        for name, content in named.items()
    )
    content = _put_in(top | laid_over, values, known, file.name)
    bundle = Bundle(
        target,
        content,
        {name: _put_in(value, values, known, f"variables.{name}") for name, value in variables.items()},
        resources,
        root,
    )
    _references_lead_somewhere(bundle)
    return bundle


def _variables(declared: Mapping[str, Any], given: Mapping[str, Any], file: Path) -> dict[str, Any]:
    for name, about in declared.items():
        _known(about, _OF_VARIABLE, f"{file.name}: variables.{name}")
    _known(given, frozenset(declared), f"{file.name}: a target's variables")
    return {name: given.get(name, about.get("default")) for name, about in declared.items()}


def _put_in(value: Any, values: Mapping[str, Any], known: frozenset[str], place: str) -> Any:
    if isinstance(value, dict):
        return {key: _put_in(inner, values, known, f"{place}.{key}") for key, inner in value.items()}
    if isinstance(value, list):
        return [_put_in(inner, values, known, place) for inner in value]
    if not isinstance(value, str):
        return copy.deepcopy(value)

    def one(match: re.Match[str]) -> str:
        name = match.group(1)
        if name in values:
            return str(_put_in(values[name], values, known, place))
        if name in known or name.startswith(_LEFT_TO_DATABRICKS):
            return match.group(0)
        raise BundleError(f"{place}: nothing is named ${{{name}}}")

    return _REFERENCE.sub(one, value)


def _references_lead_somewhere(bundle: Bundle) -> None:
    there = {f"{resource.kind}.{resource.name}" for resource in bundle.resources}
    for resource in bundle.resources:
        for name in references(resource.content):
            if name.startswith("resources.") and ".".join(name.split(".")[1:3]) not in there:
                place = f"{resource.file.name}: {resource.kind}.{resource.name}"
                raise BundleError(f"{place}: no ${{{name}}} in the bundle")


def references(value: Any) -> Iterator[str]:
    if isinstance(value, Mapping):
        for inner in value.values():
            yield from references(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from references(inner)
    elif isinstance(value, str):
        yield from _REFERENCE.findall(value)


def _known(given: Mapping[str, Any], names: frozenset[str], place: str) -> None:
    if unknown := sorted(given.keys() - names):
        raise BundleError(f"{place}: unknown key {unknown[0]!r}")


def _load(file: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise BundleError(f"{file.name}: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict):
        raise BundleError(f"{file.name} holds no mapping")
    return content

"""infra/*.yaml as CloudFormation reads it: short forms spelled out, parameters with their bounds."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from config.errors import ConfigurationError

TEMPLATE_BYTES_MAX = 1_000_000
"""Of a template in a bucket; in the call itself CloudFormation takes 51,200."""
_PLAIN = {"Ref", "Condition"}
_SEQUENCE_OF_NAME = "GetAtt"


# The parser in C reads 45 KB ten times as fast; not every build of PyYAML has it.
_Fastest: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class _Loader(_Fastest):  # type: ignore[misc]
    """Knows !Ref, !Sub and the others, and leaves `yes` and dates alone as CloudFormation does."""


def _intrinsic(loader: yaml.SafeLoader, suffix: str, node: yaml.Node) -> dict[str, Any]:
    name = suffix if suffix in _PLAIN else f"Fn::{suffix}"
    if isinstance(node, yaml.ScalarNode):
        text = str(loader.construct_scalar(node))
        return {name: text.split(".", 1) if suffix == _SEQUENCE_OF_NAME else text}
    if isinstance(node, yaml.SequenceNode):
        return {name: loader.construct_sequence(node, deep=True)}
    assert isinstance(node, yaml.MappingNode)
    return {name: loader.construct_mapping(node, deep=True)}


_Loader.add_multi_constructor("!", _intrinsic)


@dataclass(frozen=True)
class Template:
    path: Path
    content: Mapping[str, Any]

    @classmethod
    def load(cls, path: Path) -> "Template":
        try:
            content = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)  # noqa: S506 - a SafeLoader
        except OSError as error:
            raise ConfigurationError(f"cannot read {path}: {error.strerror}") from error
        except yaml.YAMLError as error:
            raise ConfigurationError(f"{path} is not YAML: {' '.join(str(error).split())}") from error
        if not isinstance(content, dict) or "Resources" not in content:
            raise ConfigurationError(f"{path} is not a CloudFormation template", hint="it has no Resources")
        return cls(path, content)

    @property
    def body(self) -> str:
        """Without comments and spaces."""
        text = json.dumps(self.content, separators=(",", ":"), ensure_ascii=False)
        if len(text.encode()) > TEMPLATE_BYTES_MAX:
            raise ConfigurationError(
                f"{self.path} has {len(text.encode())} bytes, CloudFormation takes {TEMPLATE_BYTES_MAX}",
                hint="move a part into a stack of its own",
            )
        return text

    @property
    def resources(self) -> Mapping[str, Mapping[str, Any]]:
        resources: Mapping[str, Mapping[str, Any]] = self.content["Resources"]
        return resources

    def parameters(self, given: Mapping[str, object]) -> dict[str, str]:
        """Every parameter with its value as text, checked against the template's own bounds before any call is made."""
        declared: Mapping[str, Mapping[str, Any]] = self.content.get("Parameters", {})
        if unknown := sorted(given.keys() - declared.keys()):
            raise ConfigurationError(f"the template knows no parameter {unknown[0]!r}", hint=f"see {self.path}")
        values = {}
        for name, rules in declared.items():
            value = given.get(name, rules.get("Default"))
            if value is None:
                raise ConfigurationError(f"parameter {name} has no value", hint=str(rules.get("Description", "")))
            values[name] = _checked(name, _text(value), rules)
        return values


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _checked(name: str, value: str, rules: Mapping[str, Any]) -> str:
    hint = str(rules.get("Description", ""))
    if rules.get("Type") == "Number":
        if not re.fullmatch(r"-?\d+(\.\d+)?", value):
            raise ConfigurationError(f"parameter {name} is {value!r}, which is no number", hint=hint)
        low, high = rules.get("MinValue"), rules.get("MaxValue")
        if (low is not None and float(value) < low) or (high is not None and float(value) > high):
            raise ConfigurationError(f"parameter {name} is {value}, it must be from {low} to {high}", hint=hint)
    if (allowed := rules.get("AllowedValues")) and value not in [_text(one) for one in allowed]:
        one_of = ", ".join(map(_text, allowed))
        raise ConfigurationError(f"parameter {name} is {value!r}, it must be one of {one_of}", hint=hint)
    if (pattern := rules.get("AllowedPattern")) and not re.fullmatch(pattern, value):
        raise ConfigurationError(f"parameter {name} is {value!r}, which cannot be", hint=hint)
    return value

"""What a template's expressions come to, for given parameters and the resources as they were made.

CloudFormation works them out itself and does not tell; the local stack must know them to apply what the emulator drops,
and the validator to refuse what cannot be before anything is changed. Only the functions our templates use are known.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from infra.template_model import Template

NO_VALUE: Final = object()


@dataclass(frozen=True)
class Values:
    template: Template
    parameters: Mapping[str, str]
    pseudo: Mapping[str, str]
    """`AWS::Region` and its like."""
    physical: Mapping[str, str] = field(default_factory=dict)
    """Logical id to what Ref gives; a resource not made yet stands as `<its id>`."""
    attributes: Mapping[str, str] = field(default_factory=dict)
    """`Id.Attribute` to what GetAtt gives."""

    def holds(self, condition: str) -> bool:
        return bool(self.of(self.template.content["Conditions"][condition]))

    def exists(self, logical_id: str) -> bool:
        condition = self.template.resources[logical_id].get("Condition")
        return condition is None or self.holds(condition)

    def properties(self, logical_id: str) -> dict[str, Any]:
        found: dict[str, Any] = self.of(self.template.resources[logical_id].get("Properties", {}))
        return found

    def of(self, expression: Any) -> Any:
        """The expression with every function in it worked out; what is AWS::NoValue is left out."""
        if isinstance(expression, list):
            return [value for value in map(self.of, expression) if value is not NO_VALUE]
        if not isinstance(expression, dict):
            return expression
        if len(expression) == 1:
            ((name, argument),) = expression.items()
            if name in ("Ref", "Condition") or name.startswith("Fn::"):
                return self._function(name.removeprefix("Fn::"), argument)
        values = {key: self.of(value) for key, value in expression.items()}
        return {key: value for key, value in values.items() if value is not NO_VALUE}

    def _function(self, name: str, argument: Any) -> Any:
        match name:
            case "Ref":
                return self._ref(argument)
            case "Condition":
                return self.holds(argument)
            case "GetAtt":
                return self._attribute(argument if isinstance(argument, str) else ".".join(argument))
            case "Sub":
                return self._sub(argument)
            case "If":
                condition, then, otherwise = argument
                return self.of(then if self.holds(condition) else otherwise)
            case _:
                return self._pure(name, self.of(argument))

    def _pure(self, name: str, argument: Any) -> Any:
        pure: dict[str, Callable[..., Any]] = {
            "Equals": lambda left, right: str(left) == str(right),
            "Not": lambda condition: not condition,
            "And": lambda *conditions: all(conditions),
            "Or": lambda *conditions: any(conditions),
            "Select": lambda index, values: values[int(index)],
            "Split": lambda separator, text: text.split(separator),
            "FindInMap": lambda table, first, second: self.template.content["Mappings"][table][str(first)][second],
        }
        if name not in pure:
            raise NotImplementedError(f"our templates do not use Fn::{name}")
        return pure[name](*argument)

    def _ref(self, name: str) -> Any:
        if name == "AWS::NoValue":
            return NO_VALUE
        if name in self.pseudo:
            return self.pseudo[name]
        if name in self.parameters:
            return self.parameters[name]
        return self.physical.get(name, f"<{name}>")

    def _attribute(self, name: str) -> str:
        return self.attributes.get(name, f"<{name}>")

    def _sub(self, argument: Any) -> str:
        text, given = argument if isinstance(argument, list) else (argument, {})
        known = {name: self.of(value) for name, value in given.items()}

        def replace(match: re.Match[str]) -> str:
            name = match.group(1)
            if name in known:
                return str(known[name])
            return self._attribute(name) if "." in name else str(self._ref(name))

        return re.sub(r"\$\{([^!}]+)\}", replace, text)

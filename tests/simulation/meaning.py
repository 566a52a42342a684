"""What an item means, by the two ways it is written: DynamoDB's JSON, and plain JSON with its types."""

import base64
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any, Final

Meaning = Any
"""Nested tuples: (type, value). Equal meanings are equal values to DynamoDB."""


def of_image(image: Mapping[str, Any]) -> Meaning:
    return ("M", tuple(sorted((name, of_typed(typed)) for name, typed in image.items())))


def of_typed(typed: Mapping[str, Any]) -> Meaning:
    ((tag, value),) = typed.items()
    if tag == "M":
        return of_image(value)
    if tag == "L":
        return ("L", tuple(of_typed(element) for element in value))
    return _tagged(tag, value)


def of_plain(tree: Mapping[str, Any], types: Mapping[str, str], root: str) -> Meaning:
    """`root` is where the item stands in the envelope: `/new` or `/old`."""
    members = ((name, _of_value(value, types, f"{root}/{_escaped(name)}")) for name, value in tree.items())
    return ("M", tuple(sorted(members)))


def _of_value(value: Any, types: Mapping[str, str], pointer: str) -> Meaning:
    tag = types.get(pointer)
    if tag is not None:
        return _tagged(tag, value)
    if isinstance(value, bool):
        return ("BOOL", value)
    if isinstance(value, int | float | Decimal):
        return number(value)
    if isinstance(value, dict):
        return of_plain(value, types, pointer)
    if isinstance(value, list):
        return ("L", tuple(_of_value(element, types, f"{pointer}/{at}") for at, element in enumerate(value)))
    return ("NULL", True) if value is None else ("S", value)


def _tagged(tag: str, value: Any) -> Meaning:
    """By its type, as both ways of writing it name it."""
    if tag == "N":
        return number(value)
    if tag == "B":
        return ("B", _bytes(value))
    if tag in _SETS:
        return (tag, tuple(sorted(_SETS[tag](member) for member in value)))
    return (tag, value)


def number(value: str | float | Decimal) -> Meaning:
    """All digits count; how the number is spelled does not. As text: a float never equals what it was made from."""
    exact = value if isinstance(value, float) else Decimal(value)
    if isinstance(exact, float):
        return ("N", repr(exact))
    sign, digits, exponent = exact.as_tuple()
    text = "".join(map(str, digits)).lstrip("0")
    stripped = text.rstrip("0")
    assert isinstance(exponent, int)
    return ("N", f"{'-' * sign}{stripped}E{exponent + len(text) - len(stripped)}" if stripped else "0")


def _bytes(value: str | bytes) -> bytes:
    return value if isinstance(value, bytes) else base64.b64decode(value, validate=True)


def _escaped(name: str) -> str:
    return name.replace("~", "~0").replace("/", "~1")


_SETS: Final[Mapping[str, Callable[[Any], Any]]] = {"SS": str, "NS": lambda member: number(member)[1], "BS": _bytes}

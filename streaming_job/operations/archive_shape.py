"""The columns `new` and `old`: from what the images hold to a DuckDB type with a field for every attribute.

A shape is what `json_group_structure` says: a type's name, {name: shape}, or [shape].
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from streaming_job.operations.archive_numbers import ELEMENT, Path

FIELDS_MAX: Final = 500
"""A map with more names is a collection keyed by them, and stays JSON."""
_INTEGERS: Final = frozenset(("BIGINT", "UBIGINT"))
_NUMBERS: Final = _INTEGERS | {"DOUBLE"}
NOTHING: Final = "NULL"
TEXT: Final = "VARCHAR"
DOCUMENT: Final = "JSON"

Shape = Any


def merged(one: Shape, other: Shape) -> Shape:
    """What holds the values of both."""
    if NOTHING in (one, other):
        return one if other == NOTHING else other
    match one, other:
        case dict(), dict():
            names = [*one, *(name for name in other if name not in one)]
            return {name: merged(one.get(name, NOTHING), other.get(name, NOTHING)) for name in names}
        case list(), list():
            return [merged(one[0] if one else NOTHING, other[0] if other else NOTHING)]
        case str(), str():
            return one if one == other else _number({one, other})
        case _:
            return DOCUMENT


def _number(types: set[str]) -> str:
    if types <= _INTEGERS:
        return "BIGINT"
    return "DOUBLE" if types <= _NUMBERS else DOCUMENT


@dataclass(frozen=True, slots=True)
class Extent:
    """What the numbers at a place need, none of them written with an exponent."""

    digits_before: int
    digits_after: int

    @property
    def type(self) -> str | None:
        """None where no decimal holds them all."""
        if self.digits_after == 0 and self.digits_before <= 18:  # what 64 bits always hold
            return "BIGINT"
        width = self.digits_before + self.digits_after
        return f"DECIMAL(38,{self.digits_after})" if width <= 38 else None


@dataclass(frozen=True, slots=True)
class Column:
    read_as: str
    """For `json_transform`: long numbers as text, since it would round them."""
    type: str
    """What the text is then cast to."""


def column(shape: Shape, long_numbers: Mapping[Path, Extent | None]) -> Column:
    """`long_numbers`: the places whose numbers stand in quotes, with their extent; None where they fit no decimal."""
    read_as, type_ = _planned(shape, (), long_numbers)
    return Column(json.dumps(read_as), type_)


def _planned(shape: Shape, path: Path, long_numbers: Mapping[Path, Extent | None]) -> tuple[Any, str]:
    if isinstance(shape, dict):
        if not _is_struct(shape):
            return DOCUMENT, DOCUMENT
        fields = {name: _planned(child, (*path, name), long_numbers) for name, child in shape.items()}
        types = ", ".join(f"{identifier(name)} {type_}" for name, (_, type_) in fields.items())
        return {name: read_as for name, (read_as, _) in fields.items()}, f"STRUCT({types})"
    if isinstance(shape, list):
        read_as, type_ = _planned(shape[0] if shape else NOTHING, (*path, ELEMENT), long_numbers)
        return [read_as], f"{type_}[]"
    if shape in _NUMBERS and path in long_numbers:
        extent = long_numbers[path]
        return TEXT, (extent.type if extent else None) or TEXT
    # An unsigned number that does not fit a BIGINT is a long one.
    plain = str({"UBIGINT": "BIGINT", NOTHING: DOCUMENT}.get(shape, shape))
    return plain, plain


def _is_struct(shape: Mapping[str, Shape]) -> bool:
    """DuckDB's fields have names, and differ in more than case."""
    folded = {name.lower() for name in shape}
    return 0 < len(shape) == len(folded) <= FIELDS_MAX and "" not in folded


def candidates(long_numbers: frozenset[Path], shape: Shape) -> list[Path]:
    """The places of long numbers that become fields; within what stays JSON no type is asked for."""
    return [path for path in sorted(long_numbers) if _leads_to_number(shape, path)]


def _leads_to_number(shape: Shape, path: Path) -> bool:
    for name in path:
        if name == ELEMENT and isinstance(shape, list) and shape:
            shape = shape[0]
        elif isinstance(shape, dict) and _is_struct(shape) and name in shape:
            shape = shape[name]
        else:
            return False
    return shape in _NUMBERS


def json_path(path: Path) -> str | None:
    """For `json_extract_string`; None where a name cannot stand in one."""
    if any('"' in name or "\\" in name for name in path):
        return None
    return "$" + "".join("[*]" if name == ELEMENT else f'."{name}"' for name in path)


def identifier(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def text_literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"

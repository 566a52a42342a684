"""Numbers that DuckDB's JSON reader would round: it keeps a number as a double where it is not a 64-bit integer.

Lines that hold one are found by a pattern, read by Python, and given to DuckDB with exactly those numbers in quotes, so
that every way to them, `->>` too, shows all their digits.
"""

import json
from collections.abc import Iterator
from decimal import Decimal
from typing import Any, Final, NamedTuple

DOUBLE_DIGITS: Final = 15
"""So many significant digits always survive a double."""

# A number stands after `":`, `,` or `[`. Inside of a string such a quote is escaped, so that `\\":` is no name's end
# unless the backslash is itself escaped. What the pattern finds needlessly is read by Python and found to be harmless.
_AFTER_NAME: Final = r'(?:[^\\]|\\\\)": *'
_LONG: Final = rf"-?[0-9][-+.0-9eE]{{{DOUBLE_DIGITS},}}"
LONG_NUMBER_PATTERN: Final = rf"(?:{_AFTER_NAME}|[\[,] *){_LONG}"
"""For RE2, over a whole line."""
REAL_IN_KEY_PATTERN: Final = rf"{_AFTER_NAME}-?[0-9]+[.eE]"
"""For RE2, over a key: DuckDB would write 0.0000001 as 1e-07, and keys are compared as text."""

Path = tuple[str, ...]
"""Names from the image down; ELEMENT for any element of a list."""
ELEMENT: Final = "\0[]"


class Quoted(str):
    """A number's digits, to stand in quotes."""

    __slots__ = ()


class ExactLine(NamedTuple):
    line: str
    """The envelope with its long numbers in quotes."""
    key: str
    """The key's text as it arrived."""
    paths: frozenset[Path]
    """Where the new and old image hold numbers in quotes now."""


def exact_line(line: str) -> ExactLine | None:
    """None where DuckDB reads the line without loss after all."""
    envelope = json.loads(line, parse_int=_integer, parse_float=_real)
    key = envelope.get("key")
    numeric = isinstance(key, dict) and any(isinstance(value, int | float | Quoted) for value in key.values())
    paths = frozenset(path for image in ("new", "old") for path in _quoted(envelope.get(image), ()))
    if not paths and not numeric:
        return None
    return ExactLine(_text(envelope), key_as_written(line) if numeric else _text(key), paths)


class _Literal(str):
    __slots__ = ()


def key_as_written(line: str) -> str:
    """Keys are maps of strings, numbers and base64."""
    key = json.loads(line, parse_int=_Literal, parse_float=_Literal)["key"]
    parts = (f"{_text(name)}:{value if isinstance(value, _Literal) else _text(value)}" for name, value in key.items())
    return "{" + ",".join(parts) + "}"


def _text(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _integer(text: str) -> int | Quoted:
    return int(text) if len(text) <= DOUBLE_DIGITS else Quoted(text)


def _real(text: str) -> float | Quoted:
    value = float(text)
    # repr is the shortest text that gives the double back: where it is another number, digits would be lost.
    return value if Decimal(repr(value)) == Decimal(text) else Quoted(text)


def _quoted(value: Any, path: Path) -> Iterator[Path]:
    if isinstance(value, dict):
        for name, child in value.items():
            yield from _quoted(child, (*path, name))
    elif isinstance(value, list):
        for child in value:
            yield from _quoted(child, (*path, ELEMENT))
    elif isinstance(value, Quoted):
        yield path

"""JSON that loses nothing: a number that is no whole one stays the text it was, whole ones keep all their digits."""

import json
import re
from typing import Any, Final

import msgspec
import orjson


class NotJsonError(ValueError):
    """The text is no single JSON value that we could keep whole."""


class Number(str):
    """A number's literal."""

    __slots__ = ()


class Binary(str):
    """Bytes in base64, where an envelope's `types` say so."""

    __slots__ = ()


_DECODER: Final = msgspec.json.Decoder(float_hook=Number)
DEPTH_MAX: Final = 200
"""DynamoDB nests 32 deep; text in an item may hold any JSON. What is deeper stays text."""
_LITERAL: Final = re.compile(r"-?(0|[1-9]\d*)(\.\d+)?([eE][+-]?\d+)?", re.ASCII)
_QUOTED: Final = re.compile(r"[+-]?(?:\d++\.?\d*+|\.\d++)(?:[eE][+-]?\d++)?", re.ASCII)
"""DynamoDB takes numbers that are no literal of JSON's."""


def is_number(text: str) -> bool:
    """A text that an envelope's `types` may call a number. Python makes numbers of others too, and of `NaN`."""
    return _QUOTED.fullmatch(text) is not None


def parse(text: str) -> Any:
    """`None`, booleans, `int`, `Number`, `str`, lists and dicts; of a name that repeats the last value."""
    try:
        value = _DECODER.decode(text)
    except (msgspec.DecodeError, RecursionError) as error:
        raise NotJsonError(str(error)) from None
    if len(text) > DEPTH_MAX and text.count("{") + text.count("[") > DEPTH_MAX:
        _refuse_deeper(value, DEPTH_MAX)
    return value


def parse_distinct(text: str) -> Any:
    """As `parse`; text in which a name repeats is refused, for one of the values would be lost."""
    value = parse(text)
    colons = text.count(":")
    # As many colons as names: then no string holds one, and no name stands twice.
    if not (type(value) is dict and colons == len(value)) and colons != _names(value):
        json.loads(text, object_pairs_hook=_distinct, parse_int=Number)
    return value


def dumps(value: Any) -> str:
    """Compact, with every literal as it was."""
    try:
        return orjson.dumps(value, default=_as_written, option=orjson.OPT_PASSTHROUGH_SUBCLASS).decode()
    except TypeError:
        # A whole number beyond 64 bits, or nested deeper than the quick encoder goes.
        return _dumps_slowly(value)


def quote(text: str) -> str:
    return orjson.dumps(text).decode()


def _refuse_deeper(value: Any, levels: int) -> None:
    if type(value) in (dict, list):
        if levels == 0:
            raise NotJsonError(f"nested deeper than {DEPTH_MAX}")
        for part in value.values() if type(value) is dict else value:
            _refuse_deeper(part, levels - 1)


def _names(value: Any) -> int:
    if type(value) is dict:
        count = len(value)
        for part in value.values():
            if type(part) is dict or type(part) is list:
                count += _names(part)
        return count
    return sum(map(_names, value)) if type(value) is list else 0


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    held = dict(pairs)
    if len(held) < len(pairs):
        raise NotJsonError("a name repeats")
    return held


def _as_written(value: object) -> Any:
    if isinstance(value, Number) and _LITERAL.fullmatch(value):
        return orjson.Fragment(str(value))
    if isinstance(value, str):
        return str(value)
    raise AssertionError(type(value).__name__)


def _dumps_slowly(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ",".join(f"{quote(name)}:{_dumps_slowly(part)}" for name, part in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(_dumps_slowly, value)) + "]"
    if isinstance(value, str):
        return str(value) if isinstance(value, Number) and _LITERAL.fullmatch(value) else quote(str(value))
    return str(value) if type(value) is int else orjson.dumps(value).decode()

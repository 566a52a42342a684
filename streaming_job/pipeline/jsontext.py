"""SQL fragments over JSON text that keep what Spark's own JSON functions lose.

`from_json` and `get_json_object` hand out nested values and non-integer numbers by way of a double (`1.50` becomes
`1.5`, the 18th digit is gone), and a string "1" cannot be told from the number 1. So the text is *marked* first: every
string token begins with `'`, every number with a point or an exponent becomes a string token that begins with `#`.
What `from_json` then returns is exact, and its first character says what it was. All patterns consume whole tokens
from where the last match ended, with possessive quantifiers: linear, and no recursion on long text.
"""

from collections.abc import Iterable
from typing import Final

_STRING_BODY: Final = r'[^"\\]*+(?:\\.[^"\\]*+)*+"'
_INTEGER: Final = r"-?\d++(?![.eE\d])"
_STRING: Final = rf'"({_STRING_BODY})'
_FLOAT: Final = rf'\G((?:[^"\d-]++|"{_STRING_BODY}|{_INTEGER})*+)(-?\d++[.eE][\d.eE+-]*+)'
_STUFFABLE: Final = rf"""\G([^"]*+(?:"(?!['#]){_STRING_BODY}[^"]*+)*+)"(['#]{_STRING_BODY})"""
_MARKED: Final = rf"""(?s)"#([^"]*+)"|(")'({_STRING_BODY})"""
_STUFFED: Final = rf"""(?s)"#([^"]*+)"|(")'?({_STRING_BODY})"""
_NUMBER: Final = r"^-?(0|[1-9]\d*)(\.\d+)?([eE][+-]?\d+)?$"
_LONE_SURROGATE: Final = (
    r"(?i)\G(?:[^\\]++|\\[^u]|\\u(?!d[89a-f])[0-9a-f]{4}|\\ud[89ab][0-9a-f]{2}\\ud[c-f][0-9a-f]{2})*+\\ud[89a-f]"
)
_NEEDS_ESCAPE: Final = r'["\\\x00-\x1f]'

STRING_TOKEN: Final = '"' + _STRING_BODY
"""A pattern for a JSON string."""

STRICT_OPTIONS: Final = ("allowSingleQuotes", "false", "allowNonNumericNumbers", "false")
"""Of from_json, whose defaults take JavaScript that is not JSON."""


def literal(text: str) -> str:
    """A SQL string literal. Whatever could mean something (a quote, `${...}`) is written as its code point."""
    return "'" + "".join(c if (c.isascii() and c.isalnum()) or c in " _/.,:" else _code_point(c) for c in text) + "'"


def _code_point(char: str) -> str:
    return f"\\u{ord(char):04x}" if ord(char) <= 0xFFFF else f"\\U{ord(char):08x}"


def is_in(value: str, members: Iterable[str]) -> str:
    """`value IN (...)`, which the optimizer hashes when it is long; false when nothing is listed."""
    listed = ", ".join(map(literal, members))
    return f"{value} IN ({listed})" if listed else "false"


def bind(name: str, value: str, body: str) -> str:
    """`body` where `name` stands for `value`, evaluated once: lambdas know no common subexpressions."""
    return f"transform(array({value}), {name} -> {body})[0]"


def replace(text: str, pattern: str, replacement: str) -> str:
    return f"regexp_replace({text}, {literal(pattern)}, {literal(replacement)})"


def mark(text: str) -> str:
    """Every string, names included, begins with `'`; other numbers than integers become strings that begin with `#`."""
    return replace(replace(text, _STRING, "\"'$1"), _FLOAT, '$1"#$2"')


def unmark(text: str) -> str:
    return replace(text, _MARKED, "$1$2$3")


def mark_floats(text: str) -> str:
    """The lighter mark: only the numbers; of the strings those that begin like a mark, by one more `'`."""
    return replace(replace(text, _STUFFABLE, "$1\"'$2"), _FLOAT, '$1"#$2"')


def unmark_floats(text: str) -> str:
    # A string that begins with `'` was stuffed with another, always.
    return replace(text, _STUFFED, "$1$2$3")


def has_floats(text: str) -> str:
    return f"({text} RLIKE {literal(_FLOAT)})"


def has_lone_surrogate(text: str) -> str:
    """Half a character, which JSON can escape and UTF-8 cannot hold: Spark would make it a question mark."""
    return f"(contains({text}, {literal(chr(92) + 'u')}) AND {text} RLIKE {literal(_LONE_SURROGATE)})"


def quote(text: str) -> str:
    """A JSON string token; the slow way only for text that needs escapes."""
    listed = f"to_json(array({text}))"
    escaped = f"substring({listed}, 2, length({listed}) - 2)"
    return f"CASE WHEN {text} RLIKE {literal(_NEEDS_ESCAPE)} THEN {escaped} ELSE concat('\"', {text}, '\"') END"


def number_token(raw: str) -> str:
    """A number's text as JSON: in quotes where it is no JSON literal."""
    return f"CASE WHEN {raw} RLIKE {literal(_NUMBER)} THEN {raw} ELSE {quote(raw)} END"


def significant(number: str) -> str:
    """The digits that carry a number's value: no sign, point or exponent, no zeros at either end."""
    return replace(replace(number, r"[eE].*$|[-+.]", ""), r"^0+|0+$", "")


STRICT_JSON: Final = f"map({', '.join(map(literal, STRICT_OPTIONS))})"

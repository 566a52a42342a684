"""Firehose's prefix expressions: `!{timestamp:…}`, `!{firehose:random-string}`, `!{firehose:error-output-type}`."""

import re
import secrets
import string
from collections.abc import Callable
from datetime import UTC, datetime

_EXPRESSION = re.compile(r"!\{([^:{}]*):([^{}]*)\}")
_ERROR_TYPE = "!{firehose:error-output-type}"
_DEFAULT_TIME = "!{timestamp:yyyy/MM/dd/HH}/"
_RANDOM_CHARS = 11
_EVALUATED_CHARS_MAX = 1024
"""Of an S3 key, with the object's name after the prefix."""

_FIELDS: dict[str, Callable[[datetime, int], str]] = {
    "y": lambda moment, width: f"{moment.year % 100:02d}" if width == 2 else f"{moment.year:0{width}d}",
    "u": lambda moment, width: f"{moment.year % 100:02d}" if width == 2 else f"{moment.year:0{width}d}",
    "M": lambda moment, width: (
        f"{moment.month:0{width}d}" if width <= 2 else moment.strftime("%b" if width == 3 else "%B")
    ),
    "d": lambda moment, width: f"{moment.day:0{width}d}",
    "D": lambda moment, width: f"{moment.timetuple().tm_yday:0{width}d}",
    "H": lambda moment, width: f"{moment.hour:0{width}d}",
    "m": lambda moment, width: f"{moment.minute:0{width}d}",
    "s": lambda moment, width: f"{moment.second:0{width}d}",
    "S": lambda moment, width: f"{moment.microsecond:06d}000"[:width],
}
_PATTERN = re.compile(r"'((?:[^']|'')*)'|([A-Za-z])\2*|[^A-Za-z']+")


class PrefixError(ValueError):
    pass


def checked(prefix: str, error_prefix: str | None) -> tuple[str, str | None]:
    """Both as they will be evaluated; Firehose's own rules about what may stand where."""
    has_expressions = "!{" in prefix
    if _ERROR_TYPE in prefix:
        raise PrefixError("error-output-type belongs in error_prefix only")
    if has_expressions and error_prefix is None:
        raise PrefixError("error_prefix is needed since prefix holds expressions")
    if error_prefix is not None and "!{" in error_prefix and _ERROR_TYPE not in error_prefix:
        raise PrefixError("error_prefix holds expressions and must hold !{firehose:error-output-type} too")
    now = datetime.now(UTC)
    for text in (prefix, error_prefix or ""):
        if len(evaluate(text, now, error_type="processing-failed")) > _EVALUATED_CHARS_MAX // 2:
            raise PrefixError("prefix is longer than half an object's key may be")
    return prefix if has_expressions else prefix + _DEFAULT_TIME, error_prefix


def evaluate(prefix: str, moment: datetime, *, error_type: str | None = None) -> str:
    """Every timestamp is the same moment, in UTC; every random string is another."""

    def value(match: re.Match[str]) -> str:
        match match.groups():
            case ("timestamp", pattern):
                return java_format(pattern, moment.astimezone(UTC))
            case ("firehose", "random-string"):
                return "".join(secrets.choice(string.ascii_letters + string.digits) for _ in range(_RANDOM_CHARS))
            case ("firehose", "error-output-type") if error_type is not None:
                return error_type
            case (namespace, name):
                raise PrefixError(f"!{{{namespace}:{name}}} is not an expression this delivery knows")
        raise AssertionError(match)

    evaluated = _EXPRESSION.sub(value, prefix)
    if "!{" in evaluated:
        raise PrefixError(f"{prefix!r} holds an expression without an end, or one inside another")
    return evaluated


def java_format(pattern: str, moment: datetime) -> str:
    """The part of Java's DateTimeFormatter that dates and hours need; anything else is refused, not guessed."""
    parts = []
    end = 0
    for match in _PATTERN.finditer(pattern):
        if match.start() != end:
            break
        end = match.end()
        quoted, letter = match.groups()
        if quoted is not None:
            parts.append(quoted.replace("''", "'") or "'")
        elif letter is None:
            parts.append(match.group())
        elif letter in _FIELDS:
            parts.append(_FIELDS[letter](moment, len(match.group())))
        else:
            hint = "; YYYY is the year of the week, use yyyy" if letter == "Y" else ""
            raise PrefixError(f"!{{timestamp:{pattern}}}: {letter!r} is not supported{hint}")
    if end != len(pattern):
        raise PrefixError(f"!{{timestamp:{pattern}}}: a quote has no end")
    return "".join(parts)

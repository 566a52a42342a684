"""Patterns of dates and times as Java's DateTimeFormatter writes them, which is what Spark's users know."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from typing import Final

_MONTHS: Final = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_DAYS: Final = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_LONG_MONTHS: Final = (
    *("january", "february", "march", "april", "may", "june", "july"),
    *("august", "september", "october", "november", "december"),
)
_LONG_DAYS: Final = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
_OFFSET: Final = r"[+-]\d{2}(?::?\d{2})?"


class UnknownPatternError(ValueError):
    """The pattern holds a letter, or a number of them, that we do not read."""


@dataclass(frozen=True)
class _Field:
    """One run of a pattern's letter: what it matches, and what of a moment it says (None: nothing)."""

    regex: str
    part: str | None
    read: Callable[[str], int]


def _field(part: str | None, regex: str, read: Callable[[str], int] = int) -> _Field:
    return _Field(regex, part, read)


def _one_of(words: tuple[str, ...], part: str | None) -> _Field:
    return _Field("|".join(words), part, lambda text: words.index(text.lower()) + 1)


def _fraction(text: str) -> int:
    return int(text[:6].ljust(6, "0"))


def _offset_s(text: str) -> int:
    if text in "zZ":
        return 0
    digits = text[1:].replace(":", "").ljust(4, "0")
    return (int(digits[:2]) * 3600 + int(digits[2:]) * 60) * (-1 if text[0] == "-" else 1)


_FIELDS: Final[Mapping[str, _Field]] = {
    **{letters: _field("year", r"\d{4}") for letters in ("yyyy", "uuuu")},
    **{letters: _field("year", r"\d{2}", lambda text: 2000 + int(text)) for letters in ("yy", "uu")},
    "M": _field("month", r"\d{1,2}"),
    "MM": _field("month", r"\d{2}"),
    "MMM": _one_of(_MONTHS, "month"),
    "MMMM": _one_of(_LONG_MONTHS, "month"),
    "d": _field("day", r"\d{1,2}"),
    "dd": _field("day", r"\d{2}"),
    "E": _one_of(_DAYS, None),
    "EEEE": _one_of(_LONG_DAYS, None),
    "H": _field("hour", r"\d{1,2}"),
    "HH": _field("hour", r"\d{2}"),
    "h": _field("hour12", r"\d{1,2}"),
    "hh": _field("hour12", r"\d{2}"),
    "a": _field("half", "am|pm", lambda text: int(text.lower() == "pm")),
    "m": _field("minute", r"\d{1,2}"),
    "mm": _field("minute", r"\d{2}"),
    "s": _field("second", r"\d{1,2}"),
    "ss": _field("second", r"\d{2}"),
    **{"S" * digits: _field("microsecond", rf"\d{{{digits}}}", _fraction) for digits in range(1, 10)},
    **{"X" * count: _field("offset_s", f"Z|{_OFFSET}", _offset_s) for count in (1, 2, 3)},
    **{"x" * count: _field("offset_s", _OFFSET, _offset_s) for count in (1, 2, 3)},
    "Z": _field("offset_s", _OFFSET, _offset_s),
}
_TOKEN: Final = re.compile(r"'((?:[^']|'')*)'|([A-Za-z])\2*|([^A-Za-z'])")


@dataclass(frozen=True)
class TimeFormat:
    regex: re.Pattern[str]
    fields: tuple[_Field, ...]

    def parse(self, text: str, zone: tzinfo | None) -> datetime | None:
        """The moment; placed by `zone` where the text itself names no offset. None for what is no such time."""
        found = self.regex.fullmatch(text)
        if found is None:
            return None
        parts: dict[str, int] = {"year": 1970, "month": 1, "day": 1}
        for part, value in zip(self.fields, found.groups(), strict=True):
            if part.part is not None:
                parts[part.part] = part.read(value)
        half, hour12, offset_s = (parts.pop(name, None) for name in ("half", "hour12", "offset_s"))
        if hour12 is not None:
            if not 1 <= hour12 <= 12:
                return None
            parts["hour"] = hour12 % 12 + 12 * (half or 0)
        try:
            placed = timezone(timedelta(seconds=offset_s)) if offset_s is not None else zone
            return datetime(**parts, tzinfo=placed)
        except ValueError:
            return None


def time_format(pattern: str) -> TimeFormat:
    regex, fields, at = "", [], 0
    while at < len(pattern):
        token = _TOKEN.match(pattern, at)
        if token is None:
            raise UnknownPatternError(f"{pattern!r}: a quote is not closed")
        letters, at = token.group(), token.end()
        if token.group(2) is None:
            quoted = token.group(1)
            regex += re.escape(letters if quoted is None else quoted.replace("''", "'") or "'")
        elif letters in _FIELDS:
            fields.append(_FIELDS[letters])
            regex += f"({_FIELDS[letters].regex})"
        else:
            raise UnknownPatternError(f"{pattern!r}: {letters!r} is not read; these are: {', '.join(sorted(_FIELDS))}")
    return TimeFormat(re.compile(regex, re.IGNORECASE | re.ASCII), tuple(fields))


EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)

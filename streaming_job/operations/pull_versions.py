"""What an index sorts a tenant's items by: read as numbers, put in the order of `_seq`, and stepped back from. Pure.

A `_seq` number of 40 digits holds the version in 28 - 19 before the point, 9 behind it - and 12 of the item's digest:
two states of an item under one version are told apart, and always in the same way, though not by which was later.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Final

from config.limits import CALENDAR_MS_MAX, SEQUENCE_DIGITS

Typed = Mapping[str, Any]
"""An attribute's value as DynamoDB says it."""

_TIE_DIGITS: Final = 12
_POINT_DIGITS: Final = 9
_NUMBER_BELOW: Final = Decimal(10) ** (SEQUENCE_DIGITS - _TIE_DIGITS - _POINT_DIGITS)
_PER_SECOND: Final = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9, "iso": 1}
_SORTED: Final = re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(?:\.\d{1,9})?(?:Z|\+00:00)?")
"""ISO times whose order as text is that of time: all of them UTC, with one separator."""


@dataclass(frozen=True, slots=True)
class Version:
    typed: Typed | None
    number: Decimal | None
    """In its own unit; of an ISO time seconds. None: it is not there, or cannot be read as one."""
    is_sorted: bool
    """It stands in the index where its number says."""


class Versions:
    def __init__(self, unit: str, overlap: int) -> None:
        self._unit = unit
        self._overlap = overlap * _PER_SECOND.get(unit, 1)

    @property
    def attribute_type(self) -> str:
        return "S" if self._unit == "iso" else "N"

    def read(self, typed: Typed | None) -> Version:
        number, is_sorted = None, False
        if typed is not None and self._unit == "iso" and "S" in typed:
            number, is_sorted = _time(typed["S"])
        elif typed is not None and self._unit != "iso" and "N" in typed:
            number, is_sorted = Decimal(typed["N"]), True
        if number is None or not 0 <= number < _NUMBER_BELOW:
            return Version(typed, None, is_sorted=False)
        return Version(typed, number, is_sorted)

    def beside(self, version: Version, newest: Version) -> Version:
        """The version as it stands beside what was seen in the index: two forms of ISO time do not sort together."""
        if self._unit != "iso" or not version.is_sorted or newest.typed is None or version.typed is None:
            return version
        return replace(version, is_sorted=_separator(version.typed["S"]) == _separator(newest.typed["S"]))

    def behind(self, newest: Version) -> dict[str, Any] | None:
        """Where the next pass begins: the overlap behind the newest version seen. None: from the beginning."""
        if newest.number is None or newest.typed is None:
            return None
        start = newest.number - self._overlap
        if start <= 0:
            return None
        if self._unit != "iso":
            return {"N": format(start, "f")}
        return {"S": f"{datetime.fromtimestamp(int(start), UTC):%Y-%m-%d{_separator(newest.typed['S'])}%H:%M:%S}"}

    def at(self, now_ms: int) -> Decimal | None:
        """The version of something written now; None where versions are no times."""
        return Decimal(now_ms) * self._per_second / 1000 if self._unit != "count" else None

    def created_ms(self, version: Version) -> int | None:
        """When it was written, as its version tells, be its writer's clock ahead: `history` finds a change by it, so it
        has to be the same each time the version is read.
        """
        if self._unit == "count" or version.number is None:
            return None
        return min(CALENDAR_MS_MAX, int(version.number * 1000 / self._per_second))

    @property
    def _per_second(self) -> int:
        return _PER_SECOND.get(self._unit, 1)


def sequence(version: Version, digest: str) -> str:
    """An item whose version cannot be read goes before all others: it is there, and replaces nothing."""
    number = version.number if version.number is not None else Decimal(0)
    tie = int(digest, 16) % 10**_TIE_DIGITS
    return f"{int(number * 10**_POINT_DIGITS)}{tie:0{_TIE_DIGITS}d}".zfill(SEQUENCE_DIGITS)


def after(number: str) -> str:
    """The next number: beats that one, and is beaten by every later version."""
    return str(int(number) + 1).zfill(SEQUENCE_DIGITS)


def _separator(text: str) -> str:
    return text[10]


def _time(text: str) -> tuple[Decimal | None, bool]:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None, False
    moment = moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
    elapsed = moment - datetime.fromtimestamp(0, UTC)
    seconds = Decimal(elapsed.days * 86_400 + elapsed.seconds) + Decimal(elapsed.microseconds) / 10**6
    return seconds, _SORTED.fullmatch(text) is not None

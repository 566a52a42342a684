"""How a leaf's value becomes its column's: None for what does not fit, and never a rounded guess."""

import binascii
import re
from base64 import b64decode
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta, timezone, tzinfo
from decimal import Context, Decimal, Inexact, InvalidOperation
from functools import lru_cache
from typing import Any, Final
from zoneinfo import ZoneInfo

from pyspark.sql.types import BinaryType, BooleanType, DataType, DoubleType, StringType

from config.tables import ColumnRule
from config.time_formats import EPOCH, time_format
from streaming_job.pipeline.exact_json import dumps

Convert = Callable[[Any, str | None], Any]
"""A value of the column's kind, and the zone for times written without one."""

_ISO_TIME: Final = re.compile(
    r"(\d{4}-\d{2}-\d{2})[ T](\d{2}:\d{2}(?::\d{2}(?:\.\d{1,6})?)?)(Z|[+-]\d{2}(?::?\d{2})?)?", re.ASCII
)
_ISO_DATE: Final = re.compile(r"\d{4}-\d{2}-\d{2}", re.ASCII)
_OFFSET: Final = re.compile(r"(?:UTC|GMT|UT)?([+-])(\d{2}):?(\d{2})?", re.ASCII)
_MICROSECOND: Final = timedelta(microseconds=1)
_MICROS: Final = {"s": 1_000_000, "ms": 1_000, "us": 1}
_YEAR_1_US: Final = -62_135_596_800_000_000
_YEAR_10000_US: Final = 253_402_300_800_000_000
EXACT_INT_MAX: Final = 2**53
_LONG_MAX: Final = 2**63
SHORT_CHARS_MAX: Final = 16
"""A literal of fifteen digits and a point: a double gives back every such decimal."""


def natural(of_type: DataType) -> Convert | None:
    """For a learnt column's type, whose every value of the right kind fits, or nearly."""
    return _NATURAL.get(of_type)


def declared(rule: ColumnRule) -> Convert:
    """For a declared type that a value may misfit."""
    if rule.unit is not None:
        return _since_1970(_MICROS[rule.unit])
    if rule.type == "bigint":
        return _whole_number
    if rule.type.startswith("decimal"):
        precision, scale = map(int, rule.type.removeprefix("decimal(").removesuffix(")").split(","))
        return lambda value, _zone: fixed(value, precision, scale)
    if rule.type == "timestamp":
        return _moment(rule.format) if rule.format else _iso_moment
    if rule.type == "date":
        return _day(rule.format) if rule.format else _iso_day
    raise AssertionError(rule.type)


def is_exact(value: Any, double: float) -> bool:
    """The double gives the number back digit for digit."""
    if type(value) is int:
        if -EXACT_INT_MAX <= value <= EXACT_INT_MAX:
            return True
    elif len(value) <= SHORT_CHARS_MAX and "e" not in value and "E" not in value:
        return True
    try:
        return Decimal(repr(double)) == Decimal(value)
    except InvalidOperation:
        return False  # text may hold a number of any exponent, further out than decimals go


def fixed(value: Any, precision: int, scale: int) -> Decimal | None:
    """A number as decimal(precision, scale), where nothing has to be rounded."""
    context = Context(prec=precision, traps=[InvalidOperation, Inexact])
    try:
        exact = Decimal(value).quantize(Decimal(1).scaleb(-scale), context=context)
    except (InvalidOperation, Inexact):
        return None
    return exact if exact.is_finite() else None


def bytes_of(text: str) -> bytes | None:
    try:
        return b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return None


def _double(value: Any, _zone: str | None) -> float | None:
    try:
        double = float(value)
    except (OverflowError, ValueError):
        return None
    return double if -float("inf") < double < float("inf") else None


def as_it_is(value: Any, _zone: str | None) -> Any:
    return value


def _json(value: Any, _zone: str | None) -> str:
    return dumps(value)


def _binary(value: Any, _zone: str | None) -> bytes | None:
    return bytes_of(value)


_NATURAL: Final[dict[DataType, Convert]] = {
    StringType(): as_it_is,
    DoubleType(): _double,
    BooleanType(): as_it_is,
    BinaryType(): _binary,
}
as_json: Final = _json


def _whole_number(value: Any, _zone: str | None) -> int | None:
    whole = value if type(value) is int else fixed(value, 19, 0)
    return int(whole) if whole is not None and -_LONG_MAX <= whole < _LONG_MAX else None


def _since_1970(micros: int) -> Convert:
    digits = len(str(micros)) - 1

    def read(value: Any, _zone: str | None) -> int | None:
        exact = fixed(value, 38, digits)
        at_us = None if exact is None else int(exact.scaleb(digits))
        return at_us if at_us is not None and _YEAR_1_US <= at_us < _YEAR_10000_US else None

    return read


def _iso_moment(value: Any, zone: str | None) -> int | None:
    found = _ISO_TIME.fullmatch(value)
    if found is None:
        return None
    day, time, offset = found.groups()
    placed = zone_named(zone if offset is None else offset)
    return None if placed is None else _placed(f"{day} {time}", placed)


def _placed(text: str, zone: tzinfo) -> int | None:
    try:
        return micros(datetime.fromisoformat(text).replace(tzinfo=zone))
    except (ValueError, OverflowError):
        return None


def micros(moment: datetime) -> int:
    return (moment - EPOCH) // _MICROSECOND


def _moment(pattern: str) -> Convert:
    compiled = time_format(pattern)

    def read(value: Any, zone: str | None) -> int | None:
        moment = compiled.parse(value, zone_named(zone))
        return None if moment is None or moment.tzinfo is None else micros(moment)

    return read


def _iso_day(value: Any, _zone: str | None) -> date | None:
    try:
        return date.fromisoformat(value) if _ISO_DATE.fullmatch(value) else None
    except ValueError:
        return None


def _day(pattern: str) -> Convert:
    compiled = time_format(pattern)

    def read(value: Any, _zone: str | None) -> date | None:
        moment = compiled.parse(value, None)
        return None if moment is None else moment.date()

    return read


@lru_cache(maxsize=1024)
def zone_named(name: str | None) -> tzinfo | None:
    """None where nobody knows the zone: a time is then not placed, rather than guessed."""
    if name is None:
        return None
    if name in ("Z", "UTC", "GMT"):
        return UTC
    found = _OFFSET.fullmatch(name)
    try:
        if found is not None:
            sign, hours, minutes = found.groups()
            span = timedelta(hours=int(hours), minutes=int(minutes or 0))
            return timezone(-span if sign == "-" else span)
        return ZoneInfo(name)
    except (ValueError, KeyError, OSError):
        return None

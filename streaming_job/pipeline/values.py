"""How a declared value becomes its column's: SQL that gives null for what does not fit, and never a rounded guess."""

from typing import Final

from config.tables import ColumnRule, TimeZoneRule
from streaming_job.pipeline.jsontext import literal, significant

_ISO_LOCAL: Final = r"^\d{4}-\d{2}-\d{2}[ T]\d{2}:\d{2}(:\d{2}(\.\d{1,6})?)?$"
_ISO_PLACED: Final = r"^\d{4}-\d{2}-\d{2}[ T]\d{2}:\d{2}(:\d{2}(\.\d{1,6})?)?(Z|[+-]\d{2}(:?\d{2})?)$"
_ISO_DATE: Final = r"^\d{4}-\d{2}-\d{2}$"
_MICROS: Final = {"s": 1_000_000, "ms": 1_000, "us": 1}
_YEAR_1_US: Final = -62_135_596_800_000_000
_YEAR_10000_US: Final = 253_402_300_800_000_000
DOUBLE_DIGITS_EXACT: Final = 15
"""A double gives back every decimal of so many digits."""


def converted(rule: ColumnRule, raw: str, zone: str) -> str:
    """`raw` as the declared type; `zone` is the SQL of the zone for times written without one."""
    if rule.unit is not None:
        return _since_1970(raw, rule.unit)
    if rule.type == "bigint":
        return f"try_cast({_decimal(raw, 'decimal(38,0)')} AS bigint)"
    if rule.type.startswith("decimal"):
        return _decimal(raw, rule.type)
    if rule.type == "timestamp":
        return _timestamp(rule.format, raw, zone)
    if rule.type == "date":
        parsed = (
            f"to_date(try_to_timestamp({raw}, {literal(rule.format)}))" if rule.format else f"try_cast({raw} AS date)"
        )
        return parsed if rule.format else f"CASE WHEN {raw} RLIKE {literal(_ISO_DATE)} THEN {parsed} END"
    raise AssertionError(rule.type)


def zone_of(rule: TimeZoneRule, attribute: str) -> str:
    """`attribute` is the SQL of the item's own zone."""
    fixed = literal(rule.zone) if rule.zone else "CAST(NULL AS STRING)"
    return f"coalesce({attribute}, {fixed})" if rule.attribute else fixed


def is_exact_double(raw: str) -> str:
    """The double nearest to the number gives it back digit for digit."""
    short = f"length({raw}) <= {DOUBLE_DIGITS_EXACT} AND NOT {raw} RLIKE '[eE]'"
    digits = significant(raw)
    again = significant(f"CAST(try_cast({raw} AS double) AS STRING)")
    return f"({short} OR {is_finite(raw)} AND {digits} = {again})"


def is_finite(raw: str) -> str:
    return f"abs(try_cast({raw} AS double)) < double('Infinity')"


def _decimal(raw: str, of_type: str) -> str:
    """Rounding takes a digit that is not zero away, so equal digits mean nothing was rounded."""
    cast = f"try_cast({raw} AS {of_type})"
    return f"CASE WHEN {significant(f'CAST({cast} AS STRING)')} = {significant(raw)} THEN {cast} END"


def _since_1970(raw: str, unit: str) -> str:
    exact = _decimal(f"CAST({_decimal(raw, 'decimal(29,6)')} * {_MICROS[unit]} AS STRING)", "decimal(20,0)")
    inside = f"{exact} >= {_YEAR_1_US} AND {exact} < {_YEAR_10000_US}"
    return f"CASE WHEN {inside} THEN timestamp_micros(CAST({exact} AS bigint)) END"


def _timestamp(format_: str | None, raw: str, zone: str) -> str:
    # A zone nobody knows makes the parse fail like any other text that is no time.
    if format_ is not None:
        return f"try_to_timestamp(concat({raw}, ' ', {zone}), {literal(format_ + ' VV')})"
    return (
        f"CASE WHEN {raw} RLIKE {literal(_ISO_PLACED)} THEN try_cast({raw} AS timestamp) "
        f"WHEN {raw} RLIKE {literal(_ISO_LOCAL)} THEN try_cast(concat({raw}, ' ', {zone}) AS timestamp) END"
    )

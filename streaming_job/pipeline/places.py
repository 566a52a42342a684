"""Where a column's values go, and what becomes of them on the way. Pure."""

from typing import Any, Final, NamedTuple

from pyspark.sql.types import DoubleType

from streaming_job.pipeline.columns import BOOLEAN, JSON, NUMBER, STRING, Column
from streaming_job.pipeline.conversion import Convert, as_it_is, as_json, declared, is_exact, natural

_DOUBLE: Final = DoubleType()
_HELD_AS: Final[dict[str, type]] = {STRING: str, BOOLEAN: bool}


class Place(NamedTuple):
    kind: str
    convert: Convert
    cells: list[Any]
    """One a row."""
    is_double: bool
    plain: type | None
    """Every value of this type is held as it is."""

    @property
    def takes_numbers(self) -> bool:
        return self.is_double and self.kind == NUMBER

    def put(self, row: int, kind: str, value: Any, zone: str | None) -> bool:
        """False where the value is not in its column, or not wholly."""
        if kind != self.kind:
            return False
        held = self.cells[row] = self.convert(value, zone)
        return held is not None and (not self.is_double or is_exact(value, held))


def place_of(column: Column, cells: list[Any]) -> Place:
    convert = _converter(column)
    plain = _HELD_AS.get(column.kind) if convert is as_it_is else None
    return Place(column.kind, convert, cells, column.type == _DOUBLE, plain)


def _converter(column: Column) -> Convert:
    if column.kind == JSON:
        return as_json
    plain = natural(column.type) if column.rule is None or column.rule.unit is None else None
    if plain is not None:
        return plain
    assert column.rule is not None, column
    return declared(column.rule)

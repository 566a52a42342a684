"""Which columns a table has, which values they take, and how new ones are learnt. Pure: no session, no tables.

A column remembers where its values come from in its comment (`from /vehicle/make`), which Delta keeps for both engines
and people see as its description; so a restart needs no other state. Where somebody rewrote the comment, the column
goes to the path that would get its name anyway.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from pyspark.sql.types import (
    BinaryType,
    BooleanType,
    DataType,
    DateType,
    DecimalType,
    DoubleType,
    LongType,
    StringType,
    StructField,
    StructType,
    TimestampType,
)

from config.errors import LakestreamError
from config.tables import ColumnRule, KeyType, TableConfig, split_path
from streaming_job.pipeline.naming import distinct_name, plain_name, pointer

# What a value is, one letter each: they stand before the path in a slot ("s/vehicle/make").
STRING: Final = "s"
NUMBER: Final = "n"
BOOLEAN: Final = "b"
BINARY: Final = "x"
JSON: Final = "j"
MAP: Final = "m"
LIST: Final = "l"
UNFIT: Final = "r"
"""Never a column's: a value its rule could not read."""

_LEARNT: Final[Mapping[str, DataType]] = {
    STRING: StringType(),
    NUMBER: DoubleType(),
    BINARY: BinaryType(),
    BOOLEAN: BooleanType(),
    JSON: StringType(),
}
"""In this order where a batch shows as many values of one kind as of another."""

PATH_CHARS_MAX: Final = 400
"""A value at a longer path gets no column: the path is kept in the column's comment."""

_COMMENT: Final = re.compile(r"(JSON )?from (/.*)", re.DOTALL)


class ColumnTypeError(LakestreamError):
    """The rules declare another type than the table's column has."""

    exit_code = 2


@dataclass(frozen=True)
class Column:
    """`path` is its identity; `kind` the one kind of value it takes; `rule` how a declared one is converted."""

    name: str
    type: DataType
    path: str | None
    """None: the table has the column, and what it comes from is not known yet."""
    kind: str
    rule: ColumnRule | None = None

    @property
    def slot(self) -> str | None:
        return None if self.path is None else self.kind + self.path

    def to_field(self) -> StructField:
        comment = {"comment": ("JSON from " if self.kind == JSON else "from ") + self.path} if self.path else {}
        return StructField(self.name, self.type, nullable=True, metadata=comment)


@dataclass(frozen=True)
class KeyColumn:
    """A key attribute under its name; `rule` says what the lake holds it as."""

    attribute: str
    dynamodb_type: KeyType
    name: str
    rule: ColumnRule

    @property
    def type(self) -> DataType:
        return declared_type(self.rule)

    @property
    def path(self) -> str:
        return pointer([self.attribute])


@dataclass(frozen=True)
class Columns:
    """One table's columns: its key's, and the flattened ones in the order of the table."""

    keys: tuple[KeyColumn, ...]
    flattened: tuple[Column, ...]
    templates: Mapping[str, str] = field(default_factory=dict)
    columns_max: int = 1000

    def schema(self) -> StructType:
        keys = [StructField(key.name, key.type, nullable=True) for key in self.keys]
        return StructType([*keys, *(column.to_field() for column in self.flattened)])

    def paths(self) -> frozenset[str]:
        return frozenset(column.path for column in self.flattened if column.path is not None)

    def learn(self, seen: Mapping[tuple[str, str], int]) -> "Columns":
        """With a column for each new path; `seen` counts values by (kind, path). A path that has a column keeps it."""
        has = self.paths() | {key.path for key in self.keys}
        order = "".join(_LEARNT)
        ranked = sorted(
            ((path, -count, order.index(kind), kind) for (kind, path), count in seen.items() if kind in _LEARNT)
        )
        first: dict[str, str] = {}
        for path, _count, _rank, kind in ranked:
            if path not in has and len(path) <= PATH_CHARS_MAX:
                first.setdefault(path, kind)
        columns = self
        for path, kind in first.items():
            columns = columns.with_path(path, _LEARNT[kind], kind, None)
        return columns

    def with_path(self, path: str, of_type: DataType, kind: str, rule: ColumnRule | None) -> "Columns":
        """The path's column: one the table has under the name it would get, or a new one."""
        plain = plain_name(path, self.templates).lower()
        for index, column in enumerate(self.flattened):
            if column.path == path or (column.path is None and column.name.lower() == plain):
                owner = replace(column, path=path)
                if rule is not None:
                    owner = replace(_checked(owner, of_type), kind=kind, rule=rule)
                return replace(self, flattened=(*self.flattened[:index], owner, *self.flattened[index + 1 :]))
        if rule is None and len(self.flattened) >= self.columns_max:
            return self
        taken = {name.lower() for name in self.names()}
        name = distinct_name(path, self.templates, taken.__contains__)
        return replace(self, flattened=(*self.flattened, Column(name, of_type, path, kind, rule)))

    def names(self) -> Iterable[str]:
        yield from (key.name for key in self.keys)
        yield from (column.name for column in self.flattened)


def columns_of(config: TableConfig, known: StructType | None) -> Columns:
    """Those the table has already (`known`; ours, which begin with `_`, left out), then the declared ones."""
    keys = key_columns(config)
    names = {key.name.lower() for key in keys}
    fields = [f for f in (known or StructType()).fields if not f.name.startswith("_") and f.name.lower() not in names]
    templates = {path_of(pivot.list): pivot.name for pivot in config.lake.flatten.pivot}
    columns = Columns(keys, tuple(map(_known_column, fields)), templates, config.lake.flatten.columns_max)
    for path, rule in declared(config).items():
        columns = columns.with_path(path, declared_type(rule), declared_kind(rule), rule)
    return columns


def declared(config: TableConfig) -> dict[str, ColumnRule]:
    """The rules of declared columns by path; the key's attributes have columns of their own."""
    lake = config.lake
    rules = {path_of(attribute): rule for attribute, rule in lake.columns.items()}
    if lake.time_zone.attribute is not None:
        rules.setdefault(path_of(lake.time_zone.attribute), ColumnRule(type="string"))
    for attribute in lake.flatten.json_:
        rules.setdefault(path_of(attribute), ColumnRule(type="json"))
    key = {pointer([attribute.name]) for attribute in config.key}
    return {path: rule for path, rule in rules.items() if path not in key}


def key_columns(config: TableConfig) -> tuple[KeyColumn, ...]:
    """A number without a declared type is decimal(38,0): keys must be exact, and mostly count or identify."""
    rules = {path_of(attribute): rule for attribute, rule in config.lake.columns.items()}
    columns: list[KeyColumn] = []
    for attribute in config.key:
        path = pointer([attribute.name])
        taken = {column.name.lower() for column in columns}
        name = distinct_name(path, {}, taken.__contains__)
        rule = rules.get(path, _KEY_RULES[attribute.type])
        columns.append(KeyColumn(attribute.name, attribute.type, name, rule))
    return tuple(columns)


_KEY_RULES: Final[Mapping[KeyType, ColumnRule]] = {
    "S": ColumnRule(type="string"),
    "N": ColumnRule(type="decimal(38,0)"),
    "B": ColumnRule(type="binary"),
}


def path_of(attribute: str) -> str:
    """The path of an attribute as a rules file writes it."""
    return pointer(split_path(attribute))


def declared_type(rule: ColumnRule) -> DataType:
    if rule.type.startswith("decimal"):
        precision, scale = rule.type.removeprefix("decimal(").removesuffix(")").split(",")
        return DecimalType(int(precision), int(scale))
    return _DECLARED[rule.type]


_DECLARED: Final[Mapping[str, DataType]] = {
    "string": StringType(),
    "boolean": BooleanType(),
    "double": DoubleType(),
    "bigint": LongType(),
    "timestamp": TimestampType(),
    "date": DateType(),
    "binary": BinaryType(),
    "json": StringType(),
}


def declared_kind(rule: ColumnRule) -> str:
    if rule.type in ("double", "bigint") or rule.type.startswith("decimal") or rule.unit is not None:
        return NUMBER
    return {"boolean": BOOLEAN, "binary": BINARY, "json": JSON}.get(rule.type, STRING)


def _known_column(known: StructField) -> Column:
    comment = _COMMENT.fullmatch(str((known.metadata or {}).get("comment", "")))
    path = comment.group(2) if comment else None
    kind = next((kind for kind, of_type in _LEARNT.items() if of_type == known.dataType), None)
    if kind is None:
        # Declared once, and no longer: values still have to be converted to what the column holds.
        rule = ColumnRule(type=known.dataType.simpleString())
        return Column(known.name, known.dataType, path, declared_kind(rule), rule)
    return Column(known.name, known.dataType, path, JSON if comment and comment.group(1) else kind)


def _checked(column: Column, wanted: DataType) -> Column:
    if column.type != wanted:
        raise ColumnTypeError(
            f"column {column.name} is {column.type.simpleString()} in the table, {wanted.simpleString()} in the rules",
            hint="a column keeps its type: declare the old one, or `lakestream rebuild` the table",
        )
    return column

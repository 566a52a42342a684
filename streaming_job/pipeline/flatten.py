"""One table's images as columns: its own under stable names and types, and what does not fit in `_rescued`.

`plan` looks once over a batch for paths that have no column yet; `apply` is one projection. An image is read into
leaves (leaves.py), a map from slot to text; by way of JSON, `from_json` with the columns' slots as its schema finds
each column its text without a search for each.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Final

from pyspark.sql import DataFrame
from pyspark.sql import functions as F  # noqa: N812 - as everybody calls it
from pyspark.sql.types import BinaryType, BooleanType, DoubleType, StringType, StructField, StructType

from config.tables import TableConfig
from streaming_job.pipeline.columns import (
    BINARY,
    BOOLEAN,
    NUMBER,
    STRING,
    UNFIT,
    Column,
    Columns,
    columns_of,
    path_of,
)
from streaming_job.pipeline.jsontext import is_in, literal, number_token, quote
from streaming_job.pipeline.keys import key_value, parsed_key
from streaming_job.pipeline.leaves import leaves
from streaming_job.pipeline.values import converted, is_exact_double, is_finite, zone_of

_CONSUMED: Final = frozenset({"data", "new", "old", "types", "ref", "reject"})
"""Columns of a change that end here; the others pass through."""

_NATURAL: Final = (StringType(), DoubleType(), BooleanType(), BinaryType())
"""Types whose every value of the right kind fits; for any other a declared rule converts, and may find a misfit."""


@dataclass(frozen=True)
class FlattenPlan:
    """How changes become columns. A value without a column, or that does not fit its own, goes to `_rescued`."""

    config: TableConfig
    columns: Columns
    new_columns: tuple[Column, ...] = ()

    @property
    def schema(self) -> StructType:
        """The columns the table must have: the key's and the flattened ones."""
        return self.columns.schema()

    def apply(self, changes: DataFrame) -> DataFrame:
        """`_change` (a struct of what passes through), the columns of `schema`, `_rescued`.

        A struct, for an item may have attributes called `key` or `op` too; no column of an item begins with `_`.
        """
        passing = ", ".join(f"`{name}`" for name in changes.columns if name not in _CONSUMED)
        read = changes.selectExpr(
            f"struct({passing}) AS _change",
            f"{parsed_key('key')} AS _key_values",
            f"{leaves(self.config.lake, self.columns.keys)} AS _leaves",
        )
        slots, named = self._slots
        # Only what has a column: the parser takes no name as long as some paths are.
        fit = f"filter(_leaves, l -> {is_in('l.slot', slots.names)})"
        row = F.from_json(F.expr(f"to_json(map_from_entries({fit}))"), slots).cast(named)
        typed = read.select("_change", "_key_values", F.expr(self._unfit()).alias("_unfit"), row.alias("_row"))
        converted_ = ", ".join(f"{sql} AS `{column.name}`" for column, sql in self._conversions)
        if converted_:
            typed = typed.selectExpr("*", f"struct({converted_}) AS _typed")
        return typed.selectExpr(
            "_change",
            *(f"{key_value(key, '_key_values')} AS `{key.name}`" for key in self.columns.keys),
            *(self._value(column) for column in self.columns.flattened),
            f"{self._rescued()} AS _rescued",
        )

    @cached_property
    def _fed(self) -> tuple[Column, ...]:
        """Columns whose path is known."""
        return tuple(column for column in self.columns.flattened if column.path is not None)

    @cached_property
    def _slots(self) -> tuple[StructType, StructType]:
        """The schema of a row's JSON text by slot, and the same by name: whatever it is, its text."""
        by_slot = [StructField(column.slot or "", StringType()) for column in self._fed]
        by_name = [StructField(column.name, StringType()) for column in self._fed]
        return StructType(by_slot), StructType(by_name)

    @cached_property
    def _conversions(self) -> tuple[tuple[Column, str], ...]:
        return tuple(
            (column, converted(column.rule, f"_row.`{column.name}`", self._zone))
            for column in self._fed
            if column.rule is not None and not _is_natural(column)
        )

    @cached_property
    def _zone(self) -> str:
        rule = self.config.lake.time_zone
        path = path_of(rule.attribute) if rule.attribute else None
        attribute = next((f"_row.`{column.name}`" for column in self._fed if column.path == path), "NULL")
        return zone_of(rule, attribute)

    @cached_property
    def _exact_numbers(self) -> list[str]:
        """Slots of numbers that become no double."""
        return [column.slot or "" for column in self._fed if column.kind == NUMBER and not _is_natural(column)]

    def _unfit(self) -> str:
        slots = is_in("l.slot", self._slots[0].names)
        lossy = f"NOT {is_in('l.slot', self._exact_numbers)} AND NOT {is_exact_double('l.raw')}"
        does_not_fit = (
            f"CASE WHEN NOT {slots} THEN true WHEN left(l.slot, 1) = '{NUMBER}' THEN {lossy} "
            f"WHEN left(l.slot, 1) = '{BINARY}' THEN try_to_binary(l.raw, 'base64') IS NULL ELSE false END"
        )
        text = _raw_json("left(l.slot, 1)", "l.raw")
        entry = f"named_struct('path', substring(l.slot, 2), 'text', {text})"
        return f"transform(filter(_leaves, l -> {does_not_fit}), l -> {entry})"

    def _value(self, column: Column) -> str:
        text = f"_row.`{column.name}`"
        if column.path is None:
            value = f"CAST(NULL AS {column.type.simpleString()})"
        elif not _is_natural(column):
            value = f"_typed.`{column.name}`"
        elif column.kind == NUMBER:
            value = f"CASE WHEN {is_finite(text)} THEN try_cast({text} AS double) END"
        elif column.kind == BOOLEAN:
            value = f"{text} = 'true'"
        elif column.kind == BINARY:
            value = f"try_to_binary({text}, 'base64')"
        else:
            value = text
        return f"{value} AS `{column.name}`"

    def _rescued(self) -> str:
        misfits = [_misfit(column) for column, _ in self._conversions]
        kept = f"concat(_unfit, filter(array({', '.join(misfits)}), u -> u IS NOT NULL))" if misfits else "_unfit"
        return f"CASE WHEN size({kept}) > 0 THEN {_json_object(kept, 'u', 'u.path', 'u.text')} END"


class Flattener:
    """Of one table. Remembers its plan, so that a batch that brings nothing new builds nothing new."""

    def __init__(self, config: TableConfig) -> None:
        self._config = config
        self._known: StructType | None = None
        self._plan: FlattenPlan | None = None

    def plan(self, changes: DataFrame, known: StructType | None) -> FlattenPlan:
        """`known` are the table's columns; None when it does not exist. Runs one small job."""
        plan = self.standing(known)
        seen = _unknown(changes, plan)
        columns = plan.columns.learn(seen)
        if columns == plan.columns:
            return plan
        before = set(plan.columns.names())
        added = tuple(column for column in columns.flattened if column.name not in before)
        self._plan = FlattenPlan(self._config, columns, (*plan.new_columns, *added))
        return self._plan

    def standing(self, known: StructType | None) -> FlattenPlan:
        """The plan for columns that are known already, without a look at any change: what has none is rescued."""
        if self._plan is None or self._known != known:
            columns = columns_of(self._config, known)
            before = {name.lower() for name in (known.names if known else ())}
            added = tuple(column for column in columns.flattened if column.name.lower() not in before)
            self._known, self._plan = known, FlattenPlan(self._config, columns, added)
        return self._plan


def _unknown(changes: DataFrame, plan: FlattenPlan) -> dict[tuple[str, str], int]:
    """How many values there are of each kind at each path without a column."""
    slots = is_in("l.slot", [column.slot or "" for column in plan.columns.flattened if column.path is not None])
    unknown = f"transform(filter(_leaves, l -> NOT {slots} AND left(l.slot, 1) != '{UNFIT}'), l -> l.slot)"
    found = (
        changes.selectExpr(f"{leaves(plan.config.lake, plan.columns.keys)} AS _leaves")
        .selectExpr(f"explode({unknown}) AS slot")
        .groupBy("slot")
        .count()
        .collect()
    )
    return {(row["slot"][0], row["slot"][1:]): row["count"] for row in found}


def _is_natural(column: Column) -> bool:
    return column.type in _NATURAL and (column.rule is None or column.rule.unit is None)


def _misfit(column: Column) -> str:
    """The entry of a declared column's value that its rule could not convert; else null."""
    text = f"_row.`{column.name}`"
    entry = f"named_struct('path', {literal(column.path or '')}, 'text', {_raw_json(repr(column.kind), text)})"
    return f"CASE WHEN {text} IS NOT NULL AND _typed.`{column.name}` IS NULL THEN {entry} END"


def _json_object(entries: str, name: str, field: str, value: str) -> str:
    pair = f"concat({quote(field)}, ':', {value})"
    return f"concat('{{', array_join(transform({entries}, {name} -> {pair}), ','), '}}')"


def _raw_json(kind: str, raw: str) -> str:
    """A leaf's raw text as the JSON it was."""
    return (
        f"CASE WHEN {kind} IN ('{STRING}', '{BINARY}') THEN {quote(raw)} "
        f"WHEN {kind} = '{NUMBER}' THEN {number_token(raw)} ELSE {raw} END"
    )

"""One table's images as columns: its own under stable names and types, and what does not fit in `_rescued`. Pure.

Arrow in, Arrow out. An image is taken apart into leaves (image_walk.py); a path met for the first time gets a column,
which then keeps its name and type. Of a name that an image holds twice, which DynamoDB cannot, the last value counts.
"""

from collections import Counter
from dataclasses import dataclass
from typing import Any, NamedTuple

import pyarrow as pa
from pyspark.sql.types import StructType

from config.tables import TableConfig
from streaming_job.pipeline.arrow import Column as Values
from streaming_job.pipeline.arrow import values
from streaming_job.pipeline.columns import STRING, UNFIT, Columns, columns_of, path_of
from streaming_job.pipeline.exact_json import dumps, quote
from streaming_job.pipeline.image_tree import ImageTree
from streaming_job.pipeline.image_walk import Leaf, Walk
from streaming_job.pipeline.keys import KeyReader
from streaming_job.pipeline.merge_rust import arrow_schema
from streaming_job.pipeline.places import Place, place_of

Kept = list[tuple[str, Any]]
"""Paths and values of one item that have no column, or do not fit it."""


@dataclass(frozen=True)
class Flattened:
    """`columns` of the item in the order of `schema`: the key's and the flattened ones; and what was rescued."""

    schema: StructType
    columns: tuple[Values, ...]
    rescued: Values


class Flattener:
    """Of one table. Remembers its columns, so that a batch that brings nothing new builds nothing new."""

    def __init__(self, config: TableConfig) -> None:
        self._config = config
        lake = config.lake
        whole = [*lake.flatten.json_, *(path for path, rule in lake.columns.items() if rule.type == "json")]
        self._keys = KeyReader(config)
        self._tree = ImageTree(lake.flatten, map(path_of, whole), [key.path for key in self._keys.columns])
        self._known: StructType | None = None
        self._columns: Columns | None = None
        self._zone = _Zone(config)

    def rows(self, changes: pa.Table, known: StructType | None) -> Flattened:
        """Of changes with an image in `new`, or none; `known` are the table's columns, None where it has none yet."""
        columns = self._columns_for(known)
        cells = _Cells(changes.num_rows, self._zone)
        self._tree.bind(cells.open(columns))
        for row, (image, types) in enumerate(zip(values(changes, "new"), values(changes, "types"), strict=True)):
            if image is not None:
                walk = Walk(self._tree, row)
                walk.through(image, types)
                if walk.rest or walk.repeated:
                    cells.fill(row, walk.rest, walk.repeated)
        if cells.unplaced:
            columns = self._columns = columns.learn(_seen(cells.unplaced))
            cells.open(columns)
            cells.place_rest()
        self._tree.bind({})
        schema = columns.schema()
        types_of = arrow_schema(schema)
        keys = self._keys.arrays(values(changes, "key"))
        flattened = [pa.array(held, types_of.field(name).type) for name, held in cells.by_name.items()]
        return Flattened(schema, (*keys, *flattened), pa.array(cells.rescued(), pa.string()))

    def _columns_for(self, known: StructType | None) -> Columns:
        if self._columns is None or self._known != known:
            self._known, self._columns = known, columns_of(self._config, known)
        return self._columns


class _Unplaced(NamedTuple):
    """A value at a path that has no column yet."""

    row: int
    path: str
    kind: str
    value: Any


def _seen(unplaced: list[_Unplaced]) -> Counter[tuple[str, str]]:
    """How many values there are of each kind at each path."""
    return Counter((each.kind, each.path) for each in unplaced if each.kind is not UNFIT)


class _Zone:
    """Of times written without one."""

    def __init__(self, config: TableConfig) -> None:
        rule = config.lake.time_zone
        self.path = path_of(rule.attribute) if rule.attribute else None
        self._fixed = rule.zone

    def of(self, leaves: list[Leaf]) -> str | None:
        for node, kind, value in leaves:
            if node.path == self.path:
                return value if kind is STRING else self._fixed
        return self._fixed


class _Cells:
    """A batch's values, column by column."""

    def __init__(self, rows: int, zone: _Zone) -> None:
        self._rows = rows
        self._zone = zone
        self._places: dict[str, Place] = {}
        self._kept: dict[int, Kept] = {}
        self.by_name: dict[str, list[Any]] = {}
        self.unplaced: list[_Unplaced] = []

    def open(self, columns: Columns) -> dict[str, Place]:
        """A place for each path with a column; those that are open stay."""
        for column in columns.flattened:
            cells = self.by_name.setdefault(column.name, [None] * self._rows)
            if column.path is not None and column.path not in self._places:
                place = place_of(column, cells)
                # The zone is looked for among what has to be converted.
                self._places[column.path] = place._replace(plain=None) if column.path == self._zone.path else place
        return self._places

    def fill(self, row: int, leaves: list[Leaf], repeated: Kept) -> None:
        zone = self._zone.of(leaves)
        kept = repeated
        for node, kind, value in leaves:
            place = node.place
            if place is None:
                self.unplaced.append(_Unplaced(row, node.path, kind, value))
            elif not place.put(row, kind, value, zone):
                kept.append((node.path, value))
        if kept:
            self._kept[row] = kept

    def place_rest(self) -> None:
        """What came before its column; learnt columns need no zone."""
        for row, path, kind, value in self.unplaced:
            place = self._places.get(path)
            if place is None or not place.put(row, kind, value, None):
                self._kept.setdefault(row, []).append((path, value))

    def rescued(self) -> list[str | None]:
        return [_object(self._kept[row]) if row in self._kept else None for row in range(self._rows)]


def _object(kept: Kept) -> str:
    return "{" + ",".join(f"{quote(path)}:{dumps(value)}" for path, value in kept) + "}"

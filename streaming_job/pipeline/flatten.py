"""One table's images as columns: its own under stable names and types, and what does not fit in `_rescued`. Pure.

Arrow in, Arrow out. An image is taken apart into leaves (image_walk.py); a path met for the first time gets a column,
which then keeps its name and type. Of a name that an image holds twice, which DynamoDB cannot, the last value counts.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
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


class Unplaced(NamedTuple):
    """A value at a path that had no column yet."""

    row: int
    path: str
    kind: str
    value: Any
    zone: str | None
    """Of its item, for a time written without one: a column of the table may turn out to be the path's."""


@dataclass(frozen=True)
class Part:
    """Rows of a batch taken apart, by whichever process: all that had a column is in it."""

    rows: int
    columns: dict[str, Values]
    unplaced: list[Unplaced]
    kept: dict[int, Kept]

    def place_rest(self, columns: Columns, types: pa.Schema) -> tuple[list[Values], Values]:
        """Each column, and what is rescued, once it is known which columns there are."""
        late: dict[str, list[Any]] = {}
        places: dict[str, Place] = {}
        for column in columns.flattened:
            if column.path is not None and column.name not in self.columns:
                places[column.path] = place_of(column, late.setdefault(column.name, [None] * self.rows))
        kept = {row: list(values) for row, values in self.kept.items()}
        for row, path, kind, value, zone in self.unplaced:
            place = places.get(path)
            if place is None or not place.put(row, kind, value, zone):
                kept.setdefault(row, []).append((path, value))
        rescued = [_object(kept[row]) if row in kept else None for row in range(self.rows)]
        return [self._column(column.name, late, types) for column in columns.flattened], pa.array(rescued, pa.string())

    def _column(self, name: str, late: Mapping[str, list[Any]], types: pa.Schema) -> Values:
        of_type = types.field(name).type
        if name in late:
            return pa.array(late[name], of_type)
        return self.columns[name] if name in self.columns else pa.nulls(self.rows, of_type)


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
        self._schema, self._types = StructType(), pa.schema([])
        self._zone = _Zone(config)

    def rows(self, changes: pa.Table, known: StructType | None) -> Flattened:
        """Of changes with an image in `new`, or none; `known` are the table's columns, None where it has none yet."""
        return self.join(changes, known, [self.part(changes, known)])

    def part(self, changes: pa.Table, known: StructType | None) -> Part:
        """Of some of a batch's changes."""
        columns = self._columns_for(known)
        cells = _Cells(changes.num_rows, self._zone)
        self._tree.bind(cells.open(columns))
        for row, (image, types) in enumerate(zip(values(changes, "new"), values(changes, "types"), strict=True)):
            if image is not None:
                walk = Walk(self._tree, row)
                walk.through(image, types)
                if walk.rest or walk.repeated:
                    cells.fill(row, walk.rest, walk.repeated)
        self._tree.bind({})
        held = {name: pa.array(filled, self._types.field(name).type) for name, filled in cells.by_name.items()}
        return Part(changes.num_rows, held, cells.unplaced, cells.kept)

    def join(self, changes: pa.Table, known: StructType | None, parts: Sequence[Part]) -> Flattened:
        """All of a batch's changes, from its parts in their order: what is new is learnt of all of them."""
        columns = self._columns_for(known)
        unplaced = [each for part in parts for each in part.unplaced]
        if unplaced:
            columns = self._remember(columns.learn(_seen(unplaced)))
        placed = [part.place_rest(columns, self._types) for part in parts]
        flattened = [_joined(pieces) for pieces in zip(*(of_part for of_part, _ in placed), strict=True)]
        keys = self._keys.arrays(values(changes, "key"))
        return Flattened(self._schema, (*keys, *flattened), _joined([rescued for _, rescued in placed]))

    def _columns_for(self, known: StructType | None) -> Columns:
        if self._columns is None or self._known != known:
            self._known = known
            return self._remember(columns_of(self._config, known))
        return self._columns

    def _remember(self, columns: Columns) -> Columns:
        """With their types, on which a small batch would spend a fifth of its time."""
        self._columns, self._schema = columns, columns.schema()
        self._types = arrow_schema(self._schema)
        return columns


def _joined(pieces: Sequence[Values]) -> Values:
    return pieces[0] if len(pieces) == 1 else pa.chunked_array(pieces)


def _seen(unplaced: list[Unplaced]) -> Counter[tuple[str, str]]:
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
        self.by_name: dict[str, list[Any]] = {}
        self.kept: dict[int, Kept] = {}
        self.unplaced: list[Unplaced] = []

    def open(self, columns: Columns) -> dict[str, Place]:
        """A place for each path with a column."""
        places: dict[str, Place] = {}
        for column in columns.flattened:
            if column.path is not None:
                cells = self.by_name[column.name] = [None] * self._rows
                place = place_of(column, cells)
                # The zone is looked for among what has to be converted.
                places[column.path] = place._replace(plain=None) if column.path == self._zone.path else place
        return places

    def fill(self, row: int, leaves: list[Leaf], repeated: Kept) -> None:
        zone = self._zone.of(leaves)
        kept = repeated
        for node, kind, value in leaves:
            place = node.place
            if place is None:
                self.unplaced.append(Unplaced(row, node.path, kind, value, zone))
            elif not place.put(row, kind, value, zone):
                kept.append((node.path, value))
        if kept:
            self.kept[row] = kept


def _object(kept: Kept) -> str:
    return "{" + ",".join(f"{quote(path)}:{dumps(value)}" for path, value in kept) + "}"

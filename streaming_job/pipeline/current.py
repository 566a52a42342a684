"""`current`: one row a key, only ever replaced by a newer version of itself.

One guarded MERGE serves upserts and deletes. A delete leaves a tombstone, so that an older change that comes late finds
something newer than itself.
"""

from typing import Final

import pyarrow as pa
from pyspark.sql.types import BooleanType, LongType, StringType, StructType, TimestampType

from config.tables import DeleteRule, LakeRules
from streaming_job.pipeline.arrow import Column as Values
from streaming_job.pipeline.arrow import moment, pc, repeated, replaced, table
from streaming_job.pipeline.flatten import Flattened
from streaming_job.pipeline.locations import Location
from streaming_job.pipeline.merge import Guard, LakeTable, Merge, Merged, TableSpec, Update
from streaming_job.pipeline.merge_rust import arrow_schema
from streaming_job.pipeline.row_digest import row_digests

SYSTEM: Final = (
    StructType()
    .add("_key", StringType())
    .add("_seq", StringType())
    .add("_op", StringType())
    .add("_deleted", BooleanType())
    .add("_ttl", BooleanType())
    .add("_digest", StringType())
    .add("_row_digest", StringType())
    .add("_rules", StringType())
    .add("_created_ms", LongType())
    .add("_origin_ms", LongType())
    .add("_ingest_ts", TimestampType())
    .add("_rescued", StringType())
)
"""Columns of ours, first in the table so that Delta keeps statistics of them."""

_PASSED: Final = {"_seq": "change_seq"}
"""Columns whose name in a change is not theirs without the underscore."""

_FOUND_BY: Final = ("_key", "_ingest_ts")

PURGED_PROPERTY: Final = "lakestream.purgedBeforeMs"
"""Tombstones of changes created before this may be gone."""
SCANNED_PROPERTY: Final = "lakestream.scannedMs"
"""All items were read whole after this: a change created before it is no news here, whatever it says."""

_OLD_POINTER: Final = r'([{,])"/old/'
"""In the JSON text of `types`, where a name begins: within a name a quote follows a backslash."""

_MARK: Final = ("_seq", "_op", "_ttl", "_digest", "_rules", "_created_ms", "_origin_ms", "_ingest_ts")
"""What an ignored delete without an old image changes of its row: everything but the item."""


def spec(location: Location, keys: StructType, properties: dict[str, str]) -> TableSpec:
    return TableSpec(location, StructType([*SYSTEM.fields, *keys.fields]), properties=properties, found_by=_FOUND_BY)


def item_columns(columns: StructType) -> StructType:
    """The table's columns that hold the item: keys and flattened, not ours."""
    return StructType([field for field in columns.fields if field.name not in SYSTEM.names])


def missing_columns(present: StructType, wanted: StructType) -> StructType:
    have = {name.lower() for name in present.names}
    return StructType([field for field in wanted.fields if field.name.lower() not in have])


def rows(changes: pa.Table, flattened: Flattened, ingest_ms: int) -> pa.Table:
    """What `current` holds of these changes; `flattened` are their items."""
    items = dict(zip(flattened.schema.names, flattened.columns, strict=True))
    is_deleted = pc.and_(pc.equal(changes["op"], "REMOVE"), pc.invert(changes["keeps_row"]))
    digests = row_digests(table({**items, "_rescued": flattened.rescued}))
    ours = {
        "_deleted": is_deleted,
        "_row_digest": pc.if_else(is_deleted, pa.scalar(None, pa.string()), digests),
        "_ingest_ts": moment(ingest_ms, changes.num_rows),
        "_rescued": flattened.rescued,
    }
    passed = {name: changes[_PASSED.get(name, name[1:])] for name in SYSTEM.names if name not in ours}
    return table({**{name: (ours | passed)[name] for name in SYSTEM.names}, **items})


def write(into: LakeTable, source: pa.Table, guard: Guard, *, overwrite_equal: bool = False) -> Merged:
    """`overwrite_equal` is for a repair: it also replaces a row by the same version of itself."""
    names = source.column_names
    merge = Merge(match=("_key",), insert=names, updates=(Update("_seq", names, or_equal=overwrite_equal),))
    return into.merge(_as_in(into, source), merge, guard)


def split(into: LakeTable, rows: pa.Table) -> tuple[pa.Table, pa.Table]:
    """Rows of keys that are surely not there, to be written first where that costs no look at the table; and the rest.

    None are written first where all or none are new: one commit then does.
    """
    lacking = into.lacks(rows["_key"])
    if lacking is not None:
        new = rows.filter(lacking)
        if 0 < new.num_rows < rows.num_rows:
            return new, rows.filter(pc.invert(lacking))
    return rows.slice(0, 0), rows


def mark_rows(changes: pa.Table, ingest_ms: int) -> pa.Table:
    """Tombstones for ignored deletes without an image, in case there is no row to mark."""
    count = changes.num_rows
    given = {"_deleted": repeated(True, pa.bool_(), count), "_ingest_ts": moment(ingest_ms, count)}
    none = {name: pa.nulls(count, pa.string()) for name in ("_row_digest", "_rescued")}
    passed = {name: changes[_PASSED.get(name, name[1:])] for name in SYSTEM.names if name not in given | none}
    return table({name: (given | none | passed)[name] for name in SYSTEM.names}, arrow_schema(SYSTEM))


def mark(into: LakeTable, source: pa.Table, guard: Guard) -> Merged:
    """Ignored deletes without an image: the row stays as it is, its version moves on. Without a row, a tombstone."""
    merge = Merge(match=("_key",), insert=source.column_names, updates=(Update("_seq", _MARK),))
    return into.merge(_as_in(into, source), merge, guard)


def _as_in(into: LakeTable, source: pa.Table) -> pa.Table:
    target = arrow_schema(into.columns())
    return source.cast(pa.schema([target.field(name) for name in source.column_names]))


class Ignored:
    """Which deletes a table's rules ignore, and what becomes of those. Pure, on Arrow."""

    def __init__(self, rules: LakeRules) -> None:
        self._of = {False: rules.deletes.policy == "ignore", True: expiry_rule(rules).policy == "ignore"}

    @property
    def any(self) -> bool:
        return any(self._of.values())

    def keeps_row(self, changes: pa.Table) -> Values:
        """A delete that is ignored. An item that left the filter is not in the lake, whatever the policy."""
        by_policy = pc.if_else(pc.coalesce(changes["ttl"], False), self._of[True], self._of[False])
        applies = pc.and_(pc.equal(changes["op"], "REMOVE"), pc.invert(pc.coalesce(changes["filtered"], False)))
        return pc.and_(applies, by_policy)


def with_old_as_new(changes: pa.Table, keeps_row: Values) -> pa.Table:
    """An ignored delete writes the item as it was just before: so each change says all of its row, in any order."""
    if not pc.any(keeps_row).as_py():
        return changes
    new = pc.if_else(keeps_row, changes["old"], changes["new"])
    types = pc.if_else(
        keeps_row, pc.replace_substring_regex(changes["types"], _OLD_POINTER, r'\1"/new/'), changes["types"]
    )
    return replaced(replaced(changes, "new", new), "types", types)


def expiry_rule(rules: LakeRules) -> DeleteRule:
    return rules.expiries or rules.deletes

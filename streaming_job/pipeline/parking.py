"""`parked`: changes of a table that cannot be written now, kept in order until it is mended.

What was parked together carries one ticket and drains together, oldest ticket first.
"""

from typing import Final

import pyarrow as pa
from pyspark.sql.pandas.types import from_arrow_schema
from pyspark.sql.types import LongType, StringType, StructField, StructType

from streaming_job.pipeline.arrow import pc, repeated, table
from streaming_job.pipeline.changes import SCHEMA
from streaming_job.pipeline.locations import Location
from streaming_job.pipeline.merge import LakeTable, Merge, TableSpec

COLUMNS: Final = StructType(
    [
        StructField("_ticket", LongType()),
        StructField("_why", StringType()),
        *(StructField(f"_{field.name}", field.dataType) for field in from_arrow_schema(SCHEMA).fields),
    ]
)
_MERGE: Final = Merge(match=("_table", "_key", "_change_seq"), insert=COLUMNS.names)
_WHY_CHARS_MAX: Final = 2_000


def spec(location: Location) -> TableSpec:
    return TableSpec(location, COLUMNS)


class Parking:
    """The parked changes of one source table."""

    def __init__(self, parked: LakeTable, source: str) -> None:
        self._parked = parked
        self._where = f"_table = '{source}'"
        self._tickets: dict[int, int] = {}
        self.look_again()

    @property
    def count(self) -> int:
        return sum(self._tickets.values())

    def add(self, changes: pa.Table, why: str, now_ms: int) -> None:
        """Kept once: what a batch run again parks again is there already."""
        ticket = max(now_ms, *(held + 1 for held in self._tickets)) if self._tickets else now_ms
        rows = table(
            {
                "_ticket": repeated(ticket, pa.int64(), changes.num_rows),
                "_why": repeated(why[:_WHY_CHARS_MAX], pa.string(), changes.num_rows),
                **{f"_{name}": changes[name] for name in SCHEMA.names},
            }
        )
        inserted = self._parked.merge(rows, _MERGE).inserted
        if inserted == changes.num_rows:
            self._tickets[ticket] = inserted
        else:
            # The rest is there: from a batch that is run again, or an attempt that landed and was reported as failed.
            self.look_again()

    def look_again(self) -> None:
        """Whoever wrote the table until now may have parked and drained meanwhile."""
        self._parked.refresh()
        held = self._parked.read(["_ticket"], self._where)["_ticket"]
        self._tickets = {row["values"].as_py(): row["counts"].as_py() for row in pc.value_counts(held)}

    @property
    def tickets(self) -> list[int]:
        return sorted(self._tickets)

    def oldest(self) -> tuple[int, pa.Table]:
        ticket = min(self._tickets)
        return ticket, self.of(ticket)

    def of(self, ticket: int) -> pa.Table:
        """Its changes, by version."""
        rows = self._parked.read([f"_{name}" for name in SCHEMA.names], f"{self._where} AND _ticket = {ticket}")
        changes = rows.rename_columns(SCHEMA.names).cast(SCHEMA)
        return changes.take(pc.sort_indices(changes, sort_keys=[("change_seq", "ascending")]))

    def remove(self, ticket: int) -> None:
        """After its changes were written: a crash before this drains them again, which changes nothing."""
        self._parked.delete(f"{self._where} AND _ticket = {ticket}")
        self._tickets.pop(ticket)

    def clear(self) -> None:
        """Nothing of it is wanted any more."""
        if self._tickets:
            self._parked.delete(self._where)
            self._tickets.clear()

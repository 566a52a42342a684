"""Which of a batch's changes count: each once, and of each key the newest. Pure, on Arrow, no row at a time."""

from typing import Literal

import pyarrow as pa

from streaming_job.pipeline.arrow import Column, pc


def once(changes: pa.Table) -> pa.Table:
    """Without exact duplicates (table, key, change_seq); of each the first that arrived stays, in order of arrival."""
    return _take_of_each(changes, ["table", "key", "change_seq"], "min")


def newest(changes: pa.Table, key: str = "key", seq: str = "change_seq") -> pa.Table:
    """Of each key of one table the version with the highest number."""
    ordered = changes.take(pc.sort_indices(changes, sort_keys=[(seq, "ascending")]))
    return _take_of_each(ordered, [key], "max")


def of_table(changes: pa.Table, table: str) -> pa.Table:
    return changes.filter(pc.equal(changes["table"], table))


def _take_of_each(rows: pa.Table, by: list[str], which: Literal["min", "max"]) -> pa.Table:
    numbered = rows.select(by).append_column("row", pa.array(range(rows.num_rows), pa.int64()))
    kept: Column = numbered.group_by(by).aggregate([("row", which)])[f"row_{which}"]
    return rows.take(kept.take(pc.sort_indices(kept))) if len(kept) < rows.num_rows else rows

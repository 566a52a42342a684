"""Which of a batch's changes count: each once, and of each key the newest. Pure, on Arrow, no row at a time."""

import pyarrow as pa

from streaming_job.pipeline.arrow import Column, kept, pc


def once(changes: pa.Table) -> pa.Table:
    """Without exact duplicates (table, key, change_seq); of each the first that arrived stays, in order of arrival."""
    by = ["table", "key", "change_seq"]
    place = pa.array(range(changes.num_rows), pa.int64())
    first = changes.select(by).append_column("place", place).group_by(by).aggregate([("place", "min")])
    return _at(changes, first["place_min"])


def newest(changes: pa.Table, key: str = "key", seq: str = "change_seq") -> pa.Table:
    """Of each key of one table the version with the highest number, in order of arrival."""
    places = pc.sort_indices(changes, sort_keys=[(seq, "ascending")])
    rank = pa.array(range(changes.num_rows), pa.int64())
    last = pa.table({"key": changes[key].take(places), "rank": rank}).group_by("key").aggregate([("rank", "max")])
    return _at(changes, places.take(last["rank_max"]))


def of_table(changes: pa.Table, table: str) -> pa.Table:
    return kept(changes, pc.equal(changes["table"], table))


def count_of_table(changes: pa.Table, table: str) -> int:
    return pc.sum(pc.equal(changes["table"], table)).as_py() or 0


def _at(rows: pa.Table, places: Column) -> pa.Table:
    """Those rows, in their order; images are most of what they weigh, so that all of them are not copied."""
    return rows if len(places) == rows.num_rows else rows.take(places.take(pc.sort_indices(places)))

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from streaming_job.operations.comparison import SOURCE_SCHEMA, Counts, Finding, Suspect, comparison


def test_each_kind_of_difference_is_told_by_its_name_and_equal_rows_are_not_suspected(tmp_path: Path) -> None:
    source = {
        "key": ["a", "b", "c", "d", "g"],
        "digest": ["1", "2", "3", "4", "7"],
        "address": ["A", "B", "C", "D", "G"],
    }
    rows = [
        ("a", "1", True, False),
        ("c", "old", True, False),
        ("d", "4", False, False),
        ("e", "5", True, False),
        ("f", None, True, True),
        ("g", None, True, True),
    ]
    names = ("key", "digest", "intact", "kept")
    lake = pa.Table.from_pylist([dict(zip(names, row, strict=True)) for row in rows])
    pq.write_table(lake, tmp_path / "part.parquet")
    with comparison(tmp_path) as sides:
        sides.add_source(pa.table(source, schema=SOURCE_SCHEMA))
        sides.add_lake(tmp_path)
        assert sides.counts() == (5, 4, 1, 0)
        assert sides.suspects() == [
            Suspect("b", Finding.MISSING, "B"),
            Suspect("c", Finding.STALE, "C"),
            Suspect("d", Finding.DIFFERENT, "D"),
            Suspect("e", Finding.EXTRA, None),
            Suspect("g", Finding.STALE, "G"),
        ]


def test_a_key_that_has_more_rows_than_one_is_different_whatever_they_hold(tmp_path: Path) -> None:
    """Twice the same; one right and one old; both old; twice what the source has not; kept twice."""
    rows = {"a": ["1", "1"], "b": ["2", "old"], "c": ["old", "old"], "d": ["4", "4"], "e": [None, None], "f": ["6"]}
    lake = [
        {"key": key, "digest": digest, "intact": True, "kept": digest is None}
        for key, digests in rows.items()
        for digest in digests
    ]
    pq.write_table(pa.Table.from_pylist(lake), tmp_path / "part.parquet")
    source = {"key": ["a", "b", "c", "f"], "digest": ["1", "2", "3", "6"], "address": ["A", "B", "C", "F"]}
    with comparison(tmp_path) as sides:
        sides.add_source(pa.table(source, schema=SOURCE_SCHEMA))
        sides.add_lake(tmp_path)
        assert sides.counts() == Counts(source=4, lake=9, kept=2, doubled=5)
        assert sides.suspects() == [
            Suspect("a", Finding.DIFFERENT, "A"),
            Suspect("b", Finding.DIFFERENT, "B"),
            Suspect("c", Finding.DIFFERENT, "C"),
            Suspect("d", Finding.DIFFERENT, None),
            Suspect("e", Finding.DIFFERENT, None),
        ]

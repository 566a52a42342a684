from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from streaming_job.operations.comparison import SOURCE_SCHEMA, Finding, Suspect, comparison


def test_each_kind_of_difference_is_told_by_its_name_and_equal_rows_are_not_suspected(tmp_path: Path) -> None:
    source = {"key": ["a", "b", "c", "d"], "digest": ["1", "2", "3", "4"], "address": ["A", "B", "C", "D"]}
    lake = {"key": ["a", "c", "d", "e"], "digest": ["1", "old", "4", "5"], "intact": [True, True, False, True]}
    pq.write_table(pa.table(lake), tmp_path / "part.parquet")
    with comparison(tmp_path) as sides:
        sides.add_source(pa.table(source, schema=SOURCE_SCHEMA))
        sides.add_lake(tmp_path)
        assert sides.counts() == (4, 4)
        assert sides.suspects() == [
            Suspect("b", Finding.MISSING, "B"),
            Suspect("c", Finding.STALE, "C"),
            Suspect("d", Finding.DIFFERENT, "D"),
            Suspect("e", Finding.EXTRA, None),
        ]

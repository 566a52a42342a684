import pyarrow as pa

from streaming_job.operations.comparison import LAKE_SCHEMA, SOURCE_SCHEMA, Finding, Suspect, comparison


def test_each_kind_of_difference_is_told_by_its_name_and_equal_rows_are_not_suspected() -> None:
    source = pa.table({"key": ["a", "b", "c", "d"], "digest": ["1", "2", "3", "4"]}, schema=SOURCE_SCHEMA)
    lake = pa.table(
        {"key": ["a", "c", "d", "e"], "digest": ["1", "old", "4", "5"], "intact": [True, True, False, True]},
        schema=LAKE_SCHEMA,
    )
    with comparison() as sides:
        sides.add_source(source)
        sides.add_lake(lake)
        assert sides.counts() == (4, 4)
        assert sides.suspects() == [
            Suspect("b", Finding.MISSING),
            Suspect("c", Finding.STALE),
            Suspect("d", Finding.DIFFERENT),
            Suspect("e", Finding.EXTRA),
        ]

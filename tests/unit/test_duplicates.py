"""Changes that come again: history has them already, and they are counted as what they are."""

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from envelopes import DAY_MS, Change, put, remove
from lake_rig import table_config
from rig_without_spark import RigWithoutSpark

BATCH = (put("a", 1, n=1), put("b", 1, n=1), remove("b", 2))
NEXT = put("c", 1, n=1)
OF_AN_OLDER_STREAM = replace(put("d", 1), generation="20240501080000000", created_ms=DAY_MS + 3_600_000)


def counted(rig: RigWithoutSpark, *batches: Iterable[Change]) -> list[tuple[int, int]]:
    """Of each batch how many changes were new to history, and how many came again."""
    reports = [report.tables["things"] for report in rig.run(*batches)]
    return [(report.history_inserted, report.duplicates) for report in reports]


def test_of_a_batch_that_comes_again_every_change_is_a_duplicate(tmp_path: Path) -> None:
    """To the job that had it, and to one started since: a retry, a replay, a batch run again."""
    rig = RigWithoutSpark(tmp_path, table_config())
    assert counted(rig, BATCH, BATCH) == [(3, 0), (0, 3)]
    assert counted(rig, [*BATCH, NEXT]) == [(1, 3)]


def test_what_comes_twice_in_one_batch_is_a_duplicate_too(tmp_path: Path) -> None:
    rig = RigWithoutSpark(tmp_path, table_config())
    assert counted(rig, [*BATCH, *BATCH], [BATCH[0], *BATCH]) == [(3, 3), (0, 4)]


def test_a_change_that_a_strict_table_rejects_is_no_duplicate(tmp_path: Path) -> None:
    rig = RigWithoutSpark(tmp_path, table_config(strict=True, columns={"n": "bigint"}))
    ((_, duplicates),) = counted(rig, [*BATCH, put("c", 1, n="text")])
    assert duplicates == 0


def test_what_a_table_did_not_take_is_no_duplicate(tmp_path: Path) -> None:
    """Parked, drained later, or of a stream that nobody placed: of those only what came twice at once is known.

    History may have taken a batch in that `current` then failed with: it is not drained as one that came again.
    """
    RigWithoutSpark(tmp_path, table_config(columns={"n": "date"})).run([put("z", 1)])
    failing, mended = (RigWithoutSpark(tmp_path, table_config(columns={"n": of})) for of in ("bigint", "date"))
    assert counted(failing, BATCH, [NEXT, NEXT]) == [(0, 0), (0, 1)]
    assert counted(mended, [put("e", 1)], [put("e", 1)]) == [(2, 0), (0, 1)]
    assert counted(mended, [OF_AN_OLDER_STREAM, put("f", 1)]) == [(1, 0)]

"""A damaged checkpoint is refused by the file's name, with a mend that is safe; a sound one is let pass."""

from pathlib import Path

import pytest

from streaming_job.checkpoint import check
from streaming_job.errors import CheckpointDamagedError

FILES = {
    "metadata": '{"id":"1"}',
    "offsets/8": 'v1\n{"batchTimestampMs":1}\n-',
    "offsets/9": 'v1\n{"batchTimestampMs":1}\n{"streams":{}}',
    "offsets/10": 'v1\n{"batchTimestampMs":2}\n{"streams":{}}',
    "commits/9": 'v1\n{"nextBatchWatermarkMs":0}',
    "commits/10": 'v1\n{"nextBatchWatermarkMs":0}',
}


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    for name, content in FILES.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(content)
    return tmp_path


def test_a_sound_one_a_new_one_and_one_elsewhere_are_let_pass(checkpoint: Path) -> None:
    check(str(checkpoint))
    check(f"file://{checkpoint}")
    check(str(checkpoint / "not-there-yet"))
    check("s3://bucket/checkpoint")
    check("/Volumes/main/cars/checkpoint")


@pytest.mark.parametrize("left", [0, 1, 2, 5, 20])
@pytest.mark.parametrize(
    ("name", "doomed"), [("offsets/10", ["offsets/10", "commits/10"]), ("commits/10", ["commits/10"])]
)
def test_of_the_last_batch_the_files_to_delete_are_named(
    checkpoint: Path, name: str, doomed: list[str], left: int
) -> None:
    """Cut off after so many bytes, as after a loss of power; without them it goes on from the batch before."""
    (checkpoint / name).write_text(FILES[name][:left])
    with pytest.raises(CheckpointDamagedError, match=f"{name} is damaged") as raised:
        check(str(checkpoint))
    named = " and ".join(str(checkpoint / file) for file in doomed)
    assert f"delete {named}: " in str(raised.value.hint)
    for file in doomed:
        (checkpoint / file).unlink()
    check(str(checkpoint))


def test_where_a_query_began_is_not_to_be_deleted(checkpoint: Path) -> None:
    """It would begin elsewhere: `latest` has moved on."""
    for name in ("offsets/8", "offsets/9", "commits/9", "commits/10"):
        (checkpoint / name).unlink()
    (checkpoint / "offsets/10").write_text("")
    with pytest.raises(CheckpointDamagedError, match=r"name another lake\.checkpoint"):
        check(str(checkpoint))


@pytest.mark.parametrize("name", ["metadata", "offsets/9"])
def test_what_no_deletion_mends_is_to_be_restored_or_begun_anew(checkpoint: Path, name: str) -> None:
    (checkpoint / name).write_bytes(b"\xff\xfe")
    with pytest.raises(CheckpointDamagedError, match=r"name another lake\.checkpoint"):
        check(str(checkpoint))

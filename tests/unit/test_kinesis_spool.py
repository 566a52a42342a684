"""A batch's rows in a file: kept for a while, for one user, and never in the way."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from streaming_job.kinesis import spool
from streaming_job.kinesis.rows import Rows
from streaming_job.kinesis.spool import Spool, empty_folder

BATCH = Rows.of(["1", "2"], [5, 6], ["a", "b"], [b"x", b"y"]).to_arrow("stream", "shard")


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(spool.tempfile, "gettempdir", lambda: str(tmp_path))
    return tmp_path


def test_rows_are_read_from_the_file_as_they_were_left(tmp_path: Path) -> None:
    path = Spool(str(tmp_path)).put([BATCH, BATCH])
    assert path is not None
    with pa.OSFile(path) as file, pa.ipc.open_stream(file) as reader:
        assert reader.read_all().equals(pa.Table.from_batches([BATCH, BATCH]))


def test_only_the_last_files_are_kept_and_none_after_the_end(tmp_path: Path) -> None:
    folder = tmp_path / "spool"
    kept = Spool(str(folder))
    paths = [kept.put([BATCH]) for _ in range(5)]
    assert sorted(map(str, folder.iterdir())) == sorted(str(path) for path in paths[-3:])
    kept.close()
    assert not folder.exists()


def test_where_no_file_can_be_written_nothing_is_left_and_it_is_said(tmp_path: Path, caplog: Any) -> None:
    (tmp_path / "file").touch()
    assert Spool(str(tmp_path / "file" / "spool")).put([BATCH]) is None
    assert "Spark carries them" in caplog.text


def test_a_checkpoints_folder_is_its_users_alone_and_begins_empty(temporary: Path) -> None:
    folder = Path(empty_folder("s3://bucket/checkpoint") or "")
    (folder / "1-0.arrow").write_bytes(b"of a job that was killed")
    assert empty_folder("s3://bucket/checkpoint") == str(folder)
    assert folder.stat().st_mode & 0o777 == 0o700
    assert not list(folder.iterdir())
    assert empty_folder("s3://bucket/another") != str(folder)
    assert folder.parent == temporary


def test_a_folder_that_somebody_else_has_is_not_used(temporary: Path, caplog: Any) -> None:
    folder = Path(empty_folder("c") or "")
    folder.rmdir()
    folder.symlink_to(temporary)
    assert empty_folder("c") is None
    assert "Spark carries them" in caplog.text

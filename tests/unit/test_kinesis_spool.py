"""A batch's rows in a file: kept for a while, for one user, and never in the way."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from streaming_job.kinesis import spool
from streaming_job.kinesis.rows import Rows
from streaming_job.kinesis.spool import Spool, own_folder

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


def test_a_checkpoints_folder_is_its_users_alone_begins_empty_and_ends_with_the_query(temporary: Path) -> None:
    with own_folder("s3://bucket/checkpoint") as name, own_folder("s3://bucket/another") as another:
        folder = Path(name or "")
        assert (folder.parent, folder.stat().st_mode & 0o777) == (temporary, 0o700)
        assert another not in (None, name)
        Spool(str(folder)).put([BATCH])
    assert not list(temporary.iterdir())


def test_what_a_killed_query_left_is_gone_when_the_next_begins(temporary: Path) -> None:
    with own_folder("c") as name:
        killed = Path(name or "")
    killed.mkdir()
    (killed / "1-0.arrow").write_bytes(b"of a job that was killed")
    with own_folder("c") as name:
        assert name == str(killed)
        assert not list(killed.iterdir())


def test_a_folder_that_somebody_else_has_is_not_used(temporary: Path, caplog: Any) -> None:
    with own_folder("c") as name:
        folder = Path(name or "")
    folder.symlink_to(temporary)
    with own_folder("c") as name:
        assert name is None
    assert folder.is_symlink()
    assert "Spark carries them" in caplog.text

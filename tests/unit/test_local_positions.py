"""Positions on disk: whole at any instant, held by one process, never guessed."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from infra.local.mapping.positions import Positions
from infra.local.positions import Document, PositionsError, StateFolder

ARN = "arn:aws:dynamodb:us-east-1:000000000000:table/cars/stream/"


class CrashBeforeRename(Document):
    """Dies with the new text written and the name still on the old one."""

    def save(self, document: dict[str, Any]) -> None:
        original = Path.replace
        try:
            Path.replace = _refuse  # type: ignore[method-assign, assignment]
            super().save(document)
        finally:
            Path.replace = original  # type: ignore[method-assign]


def _refuse(*_: object) -> None:
    raise InterruptedError


def test_a_kill_while_saving_leaves_the_old_position_whole(tmp_path: Path) -> None:
    Document(tmp_path / "p.json").save({"after": "1"})
    with pytest.raises(InterruptedError):
        CrashBeforeRename(tmp_path / "p.json").save({"after": "2"})
    assert Document(tmp_path / "p.json").load() == {"after": "1"}


def test_a_position_is_on_disk_before_save_returns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    monkeypatch.setattr(os, "fsync", lambda _: calls.append("fsync"))
    original = Path.replace

    def replace(path: Path, to: Path) -> Path:
        calls.append("rename")
        return original(path, to)

    monkeypatch.setattr(Path, "replace", replace)
    Document(tmp_path / "p.json").save({"after": "1"})
    assert calls == ["fsync", "rename", "fsync"], "text, name, folder"


@pytest.mark.parametrize("text", ["", '{"after": ', "[]"])
def test_a_damaged_position_stops_the_worker_instead_of_starting_over(tmp_path: Path, text: str) -> None:
    (tmp_path / "p.json").write_text(text)
    with pytest.raises(PositionsError, match="remove it"):
        Document(tmp_path / "p.json").load()


def test_two_workers_do_not_share_a_state_folder(tmp_path: Path) -> None:
    with StateFolder(tmp_path / "state"), pytest.raises(PositionsError, match="another process"):
        StateFolder(tmp_path / "state").__enter__()
    with StateFolder(tmp_path / "state"):
        pass


def test_a_stream_made_anew_has_positions_of_its_own(tmp_path: Path) -> None:
    Positions(tmp_path, ARN + "2026-01-01T00:00:00.000").move("s", "5")
    assert Positions(tmp_path, ARN + "2026-01-01T00:00:00.000").after("s") == "5"
    assert Positions(tmp_path, ARN + "2026-02-02T00:00:00.000").after("s") is None


def test_shards_that_are_no_longer_listed_are_forgotten(tmp_path: Path) -> None:
    positions = Positions(tmp_path, ARN + "x")
    positions.finish("old")
    positions.move("new", "5")
    positions.keep(["new"])
    (file,) = tmp_path.glob("positions-*.json")
    assert json.loads(file.read_text()) == {"shards": {"new": {"after": "5"}}}

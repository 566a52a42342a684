"""What Python's collector of cycles is told when the bridge's function starts, and when it is let be."""

import gc
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from bridge_lambda.handler import EVENT_CONTAINERS_MAX, spare_the_collector


# CUT
@pytest.fixture
def collections() -> Iterator[list[int]]:
    """The generations that were collected; what the collector is told is taken back."""
    thresholds, seen = gc.get_threshold(), list[int]()

    def note(phase: str, info: dict[str, int]) -> None:
        if phase == "start":
            seen.append(info["generation"])

    gc.callbacks.append(note)
    yield seen
    gc.callbacks.remove(note)
    gc.set_threshold(*thresholds)
    gc.unfreeze()


def test_no_event_is_searched_for_cycles_while_it_is_parsed(collections: list[int]) -> None:
    """The most that a mapping's event has room for, as empty lists, which count alike; a second event too."""
    event = f"[{','.join(['[]'] * (EVENT_CONTAINERS_MAX - 1000))}]"
    spare_the_collector()
    gc.collect()
    collections.clear()
    for _ in range(2):
        json.loads(event)
    assert collections == []


STARTED = """
import gc
before = gc.isenabled(), gc.get_threshold()
import bridge_lambda
begun = gc.isenabled()
import bridge_lambda.handler
print(begun, gc.isenabled(), gc.get_freeze_count() > 0, (gc.isenabled(), gc.get_threshold()) == before)
"""


@pytest.mark.parametrize(
    ("more", "found"),
    [({"AWS_LAMBDA_RUNTIME_API": "127.0.0.1:9001"}, "False True True False"), ({}, "True True False True")],
)
def test_only_in_lambda_the_start_is_spared_the_search_too(more: dict[str, str], found: str, tmp_path: Path) -> None:
    """Elsewhere - in a command that uses the bridge's code - the process keeps what it has."""
    rules = tmp_path / "rules.json"
    rules.write_text(json.dumps({"format": 1, "tables": {}}), encoding="utf-8")
    names = {"LAKESTREAM_STREAM": "s", "LAKESTREAM_BUCKET": "b", "LAKESTREAM_RULES": str(rules), "AWS_REGION": "r"}
    done = subprocess.run(
        [sys.executable, "-c", STARTED],
        env={**os.environ, "AWS_ACCESS_KEY_ID": "none", "AWS_SECRET_ACCESS_KEY": "none", **names, **more},
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    assert done.stdout.strip() == found

"""A secret is in no text that anybody may see: not in a value's own text, a log line, a traceback, or a refusal."""

import logging
import re
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bridge_lambda.errors import RefusalError
from bridge_lambda.rules import HashKey, table_rules
from config.errors import ConfigurationError
from config.settings import Settings, load_settings
from streaming_job.kinesis.errors import OptionError
from streaming_job.kinesis.options import parse_options
from streaming_job.kinesis.reader import KinesisStreamReader
from streaming_job.logs import JsonLines

SECRET = "hunter2-0123456789abcdef"
GIVEN: dict[str, Any] = {
    "aws": {"region": "us-east-1"},
    "source": {"stream": "s", "options": {"awsAccessKey": "AKID", "awsSecretKey": SECRET}},
    "lake": {"root": "/lake", "checkpoint": "/lake/checkpoint"},
    "tables": ["t"],
    "spark": {"spark.ssl.keyPassword": SECRET},
}
HASHING = {
    "version": 1,
    "key": ["id"],
    "drop": [],
    "hash": [["email"]],
    "secret": {"name": "people", "version": None},
    "keep_old_image": True,
    "filter": None,
    "origin": None,
}


def options() -> Any:
    return parse_options({"streamName": "s", "awsAccessKey": "AKID", "awsSecretKey": SECRET, "awsSessionToken": SECRET})


HOLDERS: dict[str, Callable[[], Any]] = {
    "the hashes' key": lambda: HashKey("v1", SECRET.encode()),
    "a table's rules": lambda: table_rules("t", HASHING, lambda _name, _version: HashKey("v1", SECRET.encode())),
    "the settings": lambda: Settings.model_validate(GIVEN),
    "the source's options": options,
    "the source's reader": lambda: KinesisStreamReader(options()),
}


@pytest.mark.parametrize("holder", HOLDERS)
def test_no_value_shows_the_secret_it_holds(holder: str) -> None:
    held = HOLDERS[holder]()
    for text in (repr(held), str(held), f"{held!s}", repr([held]), repr({"x": held})):
        assert SECRET not in text


@pytest.mark.parametrize("holder", HOLDERS)
def test_no_log_line_and_no_traceback_shows_it_locals_included(holder: str) -> None:
    try:
        _fails(HOLDERS[holder]())
    except LookupError as error:
        shown = "".join(traceback.TracebackException.from_exception(error, capture_locals=True).format())
        exc_info = sys.exc_info()
    assert "held = " in shown
    record = logging.LogRecord("l", logging.ERROR, "f", 1, "failed: %s", (HOLDERS[holder](),), exc_info)
    record.extra_value = HOLDERS[holder]()
    assert SECRET not in _frames_of(shown)
    assert SECRET not in JsonLines().format(record)


def _fails(held: Any) -> None:
    raise LookupError(type(held).__name__)


def _frames_of(shown: str) -> str:
    """Of the frame that holds the value; this file's own names the secret as what is looked for."""
    return shown.split("in _fails")[1]


def test_a_refused_option_or_setting_does_not_repeat_a_secret(tmp_path: Path) -> None:
    with pytest.raises(OptionError) as option:
        parse_options({"streamName": "s", "awsSecretKey": SECRET})
    assert SECRET not in str(option.value)
    path = tmp_path / "t.yaml"
    path.write_text(
        f"aws: {{region: r, secret: {SECRET}}}\nsource: [{SECRET}]\nlake: {SECRET}\nspark: {{a: [{SECRET}]}}\n"
    )
    with pytest.raises(ConfigurationError) as setting:
        load_settings(path)
    chain = "".join(traceback.format_exception(setting.value))
    assert SECRET not in chain


def test_a_secret_that_is_refused_is_not_repeated() -> None:
    def too_short(name: str, _version: str | None) -> HashKey:
        raise RefusalError(f"secret {name} is too short", hint="give it 32 random bytes")

    with pytest.raises(RefusalError) as refusal:
        table_rules("t", HASHING, too_short)
    assert SECRET not in str(refusal.value)


# --- what is pinned ---------------------------------------------------------------------------------------------------

ROOT = Path(__file__).parents[2]
LOCKS = sorted((ROOT / "infra" / "locks").glob("*.txt"))


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: lock.name)
def test_every_package_is_pinned_to_one_version_and_its_hashes(lock: Path) -> None:
    text = lock.read_text(encoding="utf-8").replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line.strip() and not line.strip().startswith("#")]
    assert lines
    loose = [
        line[:80]
        for line in lines
        if not re.match(r"[A-Za-z0-9_.\[\]-]+==\S+( ;.*?)?\s+--hash=sha256:[0-9a-f]{64}", line)
    ]
    assert loose == []


def test_the_tests_node_packages_are_pinned_to_their_hashes() -> None:
    text = (ROOT / "tests" / "node" / "package-lock.json").read_text(encoding="utf-8")
    assert text.count('"integrity": "sha512-') == text.count('"node_modules/')


def test_make_installs_nothing_without_its_hash() -> None:
    """But the package itself, which is here."""
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    installs = [line for line in makefile.splitlines() if "pip install" in line]
    assert [line for line in installs if "--require-hashes" not in line and "--editable ." not in line] == []

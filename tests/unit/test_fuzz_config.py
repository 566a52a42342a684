"""Whatever a configuration file holds, it is understood or refused with its place and a mend."""

import os
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from bridge_lambda.errors import RefusalError
from bridge_lambda.rules import HashKey, load_rules
from config.errors import ConfigurationError
from config.rules import compile_table
from config.settings import load_settings
from config.tables import load_table
from streaming_job.pipeline.changes import SCHEMA
from streaming_job.pipeline.decode import Decoder
from streaming_job.pipeline.flatten import Flattener

EXAMPLES = int(os.environ.get("LAKESTREAM_EXAMPLES", "60"))
CONFIG = Path(__file__).parents[2] / "config"
SHIPPED = [*sorted((CONFIG / "tables").glob("*.yaml")), *sorted(CONFIG.glob("[a-z]*.yaml"))]
TEXTS = [path.read_text(encoding="utf-8") for path in SHIPPED]
LAUGHS = "a: &a [x, x]\n" + "".join(
    f"{b}: &{b} [*{a}, *{a}, *{a}, *{a}]\n" for a, b in zip("abcdefghij", "bcdefghijk", strict=True)
)
scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.dates(),
    st.text(max_size=5),
    st.sampled_from(["{", "a..b", "\\"]),
)
NO_CHANGES = SCHEMA.empty_table()
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=4), inner, max_size=2),
    max_leaves=4,
)


def judged(text: bytes) -> None:
    """By both readers: a file may stand where the other kind belongs. Whoever works by rules that were taken can."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "t.yaml"
        path.write_bytes(text)
        with suppress(ConfigurationError):
            load_settings(path)
        try:
            rules = load_table(path)
        except ConfigurationError:
            return
    compile_table(rules)
    Decoder({rules.table: rules})
    Flattener(rules).rows(NO_CHANGES, None)


@settings(max_examples=EXAMPLES * 4, deadline=None)
@given(
    st.sampled_from(TEXTS),
    st.floats(0, 1),
    st.text(max_size=3) | st.sampled_from([":", "- ", "{", "\n", "*a", "&a ", "!!x "]),
    st.integers(0, 9),
)
@example("", 0, "", 0)
@example("day: 2026-99-99", 0, "", 0)
@example("[" * 3000, 0, "", 0)
@example("a: !!python/object/apply:os.system ['true']", 0, "", 0)
@example("? [a, b]\n: c", 0, "", 0)
@example("table: t\nversion: 1e400\nkey: [{name: id}]\nlake: {name: t}", 0, "", 0)
@example(f"table: t\nversion: {'9' * 5000}\nkey: [{{name: id}}]\nlake: {{name: t}}", 0, "", 0)
@example(LAUGHS, 0, "", 0)
@example("a: &a [*a]", 0, "", 0)
@example("table: &t {t: *t}", 0, "", 0)
@example("table: t\nversion: 1\nkey: [{name: id}]\nlake: {name: t, columns: {a..b: bigint}}", 0, "", 0)
@example("table: t\nversion: 1\nkey: [{name: id, type: N}]\nlake: {name: t, columns: {id: date}}", 0, "", 0)
def test_a_file_that_was_damaged_is_understood_or_refused(text: str, at: float, put_in: str, taken: int) -> None:
    """Aliases that refer to aliases included: what they would unfold to is not unfolded."""
    place = int(at * len(text))
    judged((text[:place] + put_in + text[place + taken :]).encode(errors="surrogatepass"))


@settings(max_examples=EXAMPLES * 4, deadline=None)
@given(st.integers(0, len(TEXTS) - 1), st.lists(st.tuples(st.integers(0, 50), values), min_size=1, max_size=3))
def test_a_file_with_any_value_in_any_place_is_understood_or_refused(
    which: int, changes: list[tuple[int, Any]]
) -> None:
    tree = yaml.safe_load(TEXTS[which])
    for at, value in changes:
        parents = list(containers(tree))
        parent, name = parents[at % len(parents)]
        parent[name] = value
    judged(yaml.safe_dump(tree, allow_unicode=True).encode(errors="surrogatepass"))


def containers(tree: Any) -> list[tuple[Any, Any]]:
    """Every place of the tree, as its container and its name there."""
    found: list[tuple[Any, Any]] = []
    for name, part in list(tree.items() if isinstance(tree, dict) else enumerate(tree)):
        found.append((tree, name))
        if isinstance(part, dict | list):
            found += containers(part)
    return found


@pytest.mark.parametrize("content", [b"\xff\xfe\x00", b"a: \xc3\x28", b"\x00"])
def test_a_file_that_is_no_text_is_refused_by_its_name(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "t.yaml"
    path.write_bytes(content)
    with pytest.raises(ConfigurationError, match=r"t\.yaml is not YAML") as refusal:
        load_table(path)
    assert "\n" not in refusal.value.line


@settings(max_examples=EXAMPLES * 4, deadline=None)
@given(
    st.binary(max_size=40)
    | st.dictionaries(st.sampled_from(["format", "tables", "x"]), values, max_size=3).map(lambda v: repr(v).encode())
)
@example(b'{"format": 1, "tables": {"t": {"version": 1, "key": 5}}}')
@example(b'{"format": 1, "tables": {"t": {"hash": [], "filter": {"path": ["a"], "equals": [1]}, "origin": null}}}')
@example(b'{"format": 1, "tables": []}')
@example(b"[" * 100_000)
def test_compiled_rules_that_were_damaged_refuse_the_bridges_start(content: bytes) -> None:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "rules.json"
        path.write_bytes(content)
        with suppress(RefusalError):
            load_rules(path, lambda _name, _version: HashKey("k", b"0" * 32))

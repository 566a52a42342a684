"""The bridge's side of the contract: from a stream record to the line that goes to Kinesis."""

import json
import os
from pathlib import Path

import jsonschema
import pytest

from bridge_lambda.envelope import Change, encode_change
from bridge_lambda.images import parse, restore
from bridge_lambda.rules import HashKey, TableRules, load_rules
from tests.contract.golden_envelopes import Golden, golden_envelopes

SCHEMA = json.loads((Path(__file__).parents[2] / "config" / "envelope.schema.json").read_text(encoding="utf-8"))
GOLDEN = pytest.mark.parametrize("golden", golden_envelopes(), ids=lambda golden: golden.path.stem)


def written(golden: Golden, folder: Path) -> tuple[Change | None, TableRules]:
    rules = folder / "rules.json"
    rules.write_text(json.dumps(golden.content["rules"]), encoding="utf-8")
    secret = golden.content["secret"]
    tables = load_rules(rules, lambda name, version: HashKey(secret["id"], secret["text"].encode()))
    content = golden.content
    change = encode_change(content["record"], tables, content["bridge_in_ms"], content["claims_bucket"])
    return change, next(iter(tables.values()))


@GOLDEN
def test_the_bridge_writes_the_line_of_record(golden: Golden, tmp_path: Path) -> None:
    """Byte for byte; with LAKESTREAM_GOLDEN=write the files are rewritten instead, for review."""
    change, _ = written(golden, tmp_path)
    outcome = {
        "line": change.line(golden.content["bridge_out_ms"]).decode() if change else None,
        "partition_key": change.partition_key if change else None,
    }
    if os.environ.get("LAKESTREAM_GOLDEN") == "write":
        text = json.dumps({**golden.content, **outcome}, indent=1, ensure_ascii=False) + "\n"
        golden.path.write_text(text, encoding="utf-8")
    else:
        assert outcome == {name: golden.content[name] for name in outcome}


@GOLDEN
def test_every_line_of_record_obeys_the_schema_and_the_two_limits_of_kinesis(golden: Golden) -> None:
    if golden.line is None:
        return
    assert golden.line.endswith(b"}\n")
    assert golden.line.count(b"\n") == 1
    assert 1 <= len(golden.content["partition_key"]) <= 256
    jsonschema.validate(json.loads(golden.line), SCHEMA)


@GOLDEN
def test_both_images_of_a_line_of_record_restore_to_what_the_stream_said(golden: Golden, tmp_path: Path) -> None:
    """As far as the rules let them out: the masked image is what comes back."""
    if golden.line is None:
        return
    _, rules = written(golden, tmp_path)
    envelope = parse(golden.line)
    for field, name in (("new", "NewImage"), ("old", "OldImage")):
        if envelope[field] is not None:
            restored = restore(envelope[field], envelope["types"], f"/{field}")
            assert comparable(restored) == comparable(rules.mask(golden.content["record"]["dynamodb"][name]))


def comparable(typed: object) -> object:
    """A set has no order."""
    if not isinstance(typed, dict):
        return [comparable(element) for element in typed] if isinstance(typed, list) else typed
    return {tag: sorted(v) if tag in ("SS", "NS", "BS") else comparable(v) for tag, v in typed.items()}

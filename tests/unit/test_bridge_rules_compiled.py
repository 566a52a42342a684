"""`python -m config.rules`: a rule that names nothing real, or can't be meant, is found by the build."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from bridge_lambda.rules import HashKey, load_rules
from config.rules import main

ITEM = {
    "id": {"S": "1"},
    "region": {"S": "eu"},
    "gone_at": {"N": "1790000000"},
    "user": {"M": {"id": {"S": "u"}, "e.mail": {"S": "x@example.com"}}},
    "visits": {"L": [{"M": {"ip": {"S": "192.0.2.1"}}}]},
    "meta": {"M": {"at": {"N": "1790000000000"}, "flag": {"BOOL": True}}},
}
RULES: dict[str, Any] = {
    "table": "things",
    "version": 2,
    "key": [{"name": "id", "type": "S"}],
    "bridge": {
        "drop": ["visits.ip"],
        "hash": ["user.id", r"user.e\.mail"],
        "hash_secret": "lakestream/things",
        "filter": {"attribute": "region", "equals": ["eu"]},
        "ttl_attribute": "gone_at",
        "origin": {"attribute": "meta.at"},
    },
    "lake": {"name": "things"},
}


def compiled(folder: Path, rules: dict[str, Any], sample: Any = None) -> tuple[int, Path]:
    tables = folder / "tables"
    tables.mkdir()
    (tables / "things.yaml").write_text(yaml.safe_dump(rules), encoding="utf-8")
    if sample is not None:
        (tables / "things.sample.json").write_text(json.dumps(sample), encoding="utf-8")
    out = folder / "rules.json"
    return main([str(out), "--tables", str(tables)]), out


def test_what_is_compiled_is_what_the_bridge_loads(tmp_path: Path) -> None:
    code, out = compiled(tmp_path, RULES, {"Items": [ITEM]})
    assert code == 0
    table = load_rules(out, lambda name, version: HashKey(f"{name}@{version}", b"0123456789abcdef"))["things"]
    masked = table.mask(ITEM)
    assert table.label == "2:lakestream/things@None"
    assert masked["visits"] == {"L": [{"M": {}}]}
    assert masked["user"]["M"].keys() == {"id", "e.mail"}
    assert masked["user"]["M"]["e.mail"] != ITEM["user"]["M"]["e.mail"]
    assert table.origin_ms(ITEM) == 1_790_000_000_000
    assert table.admits(ITEM)


def bridge(**changed: Any) -> dict[str, Any]:
    return {**RULES, "bridge": {**RULES["bridge"], **changed}}


WRONG = {
    "a dropped name nobody has": (bridge(drop=["visits.ipp"]), "visits.ipp is not in any sample item; there are ip"),
    "a hashed name nobody has": (bridge(hash=["user.idd"]), "user.idd is not in any sample item; there are e.mail, id"),
    "a dot that is of the name": (bridge(hash=["user.e.mail"]), "user.e.mail is not in any sample item"),
    "a path through what is no map": (bridge(drop=["region.code"]), "region.code is not in any sample item"),
    "a filter nobody passes": (bridge(filter={"attribute": "regio", "equals": ["eu"]}), "regio is not in any"),
    "a filter of another type": (
        bridge(filter={"attribute": "region", "equals": [1]}),
        "bridge.filter: region is S in the sample, not N",
    ),
    "a filter through a list": (bridge(filter={"attribute": "visits.ip", "equals": ["a"]}), "visits.ip is not in any"),
    "an origin that is no time": (
        bridge(origin={"attribute": "meta.flag"}),
        "bridge.origin: meta.flag is BOOL in the sample, not N or S",
    ),
    "an origin nobody has": (bridge(origin={"attribute": "meta.when"}), "meta.when is not in any sample item"),
    "a ttl that is no number": (bridge(ttl_attribute="region"), "bridge.ttl_attribute: region is S in the sample"),
    "a ttl below the top": (bridge(ttl_attribute="meta.at"), "by a top-level attribute only"),
    "a dropped key": (bridge(drop=["id"]), "id is of the key"),
    "a key nobody has": ({**RULES, "key": [{"name": "pk"}]}, "key.pk: pk is not in every sample item"),
    "a key of another type": ({**RULES, "key": [{"name": "id", "type": "N"}]}, "key.id: id is S in the sample, not N"),
    "hash without a secret": (bridge(hash_secret=None), "hash and hash_secret go together"),
    "a secret without a hash": (bridge(hash=[]), "hash and hash_secret go together"),
    "dropped and hashed": (bridge(drop=["user"]), "user.id is dropped or hashed twice"),
    "dropped twice": (bridge(drop=["region", "region"]), "region is dropped or hashed twice"),
    "an origin that is dropped": (bridge(drop=["meta"]), "origin would let out a time that the rules drop or hash"),
    "an empty name in a path": (bridge(drop=["user..id"]), "holds an empty name"),
    "a word nobody knows": (bridge(dropp=["user"]), "bridge.dropp: unknown key"),
    "a table of no rules": ({}, "field required"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_rule_that_cannot_be_meant_stops_the_build_with_its_place(
    case: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rules, said = WRONG[case]
    code, out = compiled(tmp_path, rules, {"Items": [ITEM]})
    problem = capsys.readouterr().err
    assert code == 2
    assert said in problem
    assert "things.yaml" in problem
    assert not out.exists()


BAD_SAMPLES = {
    "no sample": None,
    "plain JSON": {"Items": [{"id": "1"}]},
    "no items": {"Items": []},
    "not what scan prints": [ITEM],
}


@pytest.mark.parametrize("case", BAD_SAMPLES)
def test_rules_that_nothing_can_be_checked_against_stop_the_build(
    case: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out = compiled(tmp_path, RULES, BAD_SAMPLES[case])
    assert code == 2
    assert "things.sample.json" in capsys.readouterr().err
    assert not out.exists()


def test_an_attribute_that_only_some_items_have_needs_one_such_item(tmp_path: Path) -> None:
    other = {"id": {"S": "2"}, "user": {"NULL": True}}
    assert compiled(tmp_path, RULES, {"Items": [other, ITEM]})[0] == 0


def test_a_table_without_rules_needs_no_sample(tmp_path: Path) -> None:
    assert compiled(tmp_path, {**RULES, "bridge": {}})[0] == 0


def test_a_folder_without_tables_stops_the_build(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path / "rules.json"), "--tables", str(tmp_path)]) == 2
    assert "holds no rules" in capsys.readouterr().err


def test_the_rules_of_the_repository_compile(tmp_path: Path) -> None:
    assert main([str(tmp_path / "rules.json")]) == 0

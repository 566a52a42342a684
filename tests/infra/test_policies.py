"""Least privilege, held statement by statement.

`policies.json` lists what each statement may say; a statement that says more - or anything else - fails here until
somebody changes both. `LAKESTREAM_REWRITE=1 pytest tests/infra/test_policies.py` writes it anew, to be read in review.
"""

import copy
import json
import os
import re
from collections.abc import Callable, Mapping
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest
from templates import BOOTSTRAP, TEMPLATE, Statement, statements, synthesized

EXPECTED = Path(__file__).parent / "policies.json"
PATHS = (TEMPLATE, BOOTSTRAP)


def wildcards(statement: Mapping[str, Any]) -> bool:
    granted = [statement.get(part) for part in ("Action", "NotAction", "Resource", "NotResource", "Principal")]
    return "*" in json.dumps(granted)


def problems(template: Mapping[str, Any], expected: Mapping[str, Any]) -> list[str]:
    found = []
    names = [statement.name for statement in statements(template)]
    found += [f"{name} stands twice" for name in {name for name in names if names.count(name) > 1}]
    for statement in statements(template):
        reasons = template["Resources"][statement.owner].get("Metadata", {}).get("Wildcards", {})
        reason = str(reasons.get(statement.content.get("Sid"), ""))
        if wildcards(statement.content) and len(reason) < 15:
            found.append(f"{statement.name} has a * and no reason")
        if reason and not wildcards(statement.content):
            found.append(f"{statement.name} has a reason and no *")
        if statement.content != expected.get(statement.name):
            found.append(f"{statement.name} is not what policies.json says")
    return found


def everything() -> dict[str, Any]:
    """Both templates' resources as one; their logical ids differ."""
    merged: dict[str, Any] = {}
    for path in PATHS:
        for logical_id, resource in synthesized(path)["Resources"].items():
            merged[f"{path.stem}:{logical_id}"] = resource
    return {"Resources": merged}


def expected() -> dict[str, Any]:
    if os.environ.get("LAKESTREAM_REWRITE"):
        listed = {statement.name: statement.content for statement in statements(everything())}
        EXPECTED.write_text(json.dumps(listed, indent=1, sort_keys=True) + "\n")
    content: dict[str, Any] = json.loads(EXPECTED.read_text())
    return content


def test_no_statement_says_more_than_is_listed_and_no_wildcard_lacks_its_reason() -> None:
    assert problems(everything(), expected()) == []


def test_nothing_is_listed_that_is_not_there() -> None:
    assert expected().keys() == {statement.name for statement in statements(everything())}


def _more_actions(statement: dict[str, Any]) -> None:
    actions = statement["Action"]
    statement["Action"] = [*([actions] if isinstance(actions, str) else actions), "s3:GetBucketPolicy"]


def _all_of_the_service(statement: dict[str, Any]) -> None:
    actions = statement["Action"]
    first = actions if isinstance(actions, str) else actions[0]
    statement["Action"] = first.split(":")[0] + ":Put*"


def _any_resource(statement: dict[str, Any]) -> None:
    statement["Resource"] = ["*"]


def _no_condition(statement: dict[str, Any]) -> None:
    if statement.pop("Condition", None) is None:
        _more_actions(statement)


def _anybody(statement: dict[str, Any]) -> None:
    statement["Principal"] = {"AWS": "*"}


def _denies_less(statement: dict[str, Any]) -> None:
    statement["Effect"] = "Deny" if statement["Effect"] == "Allow" else "Allow"


WIDENINGS: tuple[Callable[[dict[str, Any]], None], ...] = (
    _more_actions,
    _all_of_the_service,
    _any_resource,
    _no_condition,
    _anybody,
    _denies_less,
)


@pytest.mark.parametrize("widen", WIDENINGS)
def test_any_one_statement_widened_is_found(widen: Callable[[dict[str, Any]], None]) -> None:
    """Each statement in turn, in a copy of the template."""
    template, listed = everything(), expected()
    for position, statement in enumerate(statements(template)):
        wider = copy.deepcopy(template)
        widen(statements(wider)[position].content)
        assert problems(wider, listed), f"{statement.name} could be widened by {widen.__name__}"


def test_a_statement_added_is_found() -> None:
    template = everything()
    role = template["Resources"]["template:BridgePolicy"]["Properties"]["PolicyDocument"]["Statement"]
    role.append({"Sid": "New", "Effect": "Allow", "Action": "s3:GetObject", "Resource": "arn:aws:s3:::b/k"})
    assert problems(template, expected()) == ["template:BridgePolicy.New is not what policies.json says"]


def test_a_wildcard_whose_reason_is_taken_away_is_found() -> None:
    template, listed = everything(), expected()
    del template["Resources"]["template:BridgePolicy"]["Metadata"]["Wildcards"]["Trace"]
    assert problems(template, listed) == ["template:BridgePolicy.Trace has a * and no reason"]


def _readers_of_dead_letters(found: list[Statement]) -> set[str]:
    return {
        statement.name
        for statement in found
        if "kms:Decrypt" in json.dumps(statement.content["Action"])
        and ("DeadLetterKey" in json.dumps(statement.content["Resource"]) or "DeadLetterKey" in statement.owner)
    }


def test_dead_letters_are_readable_by_bridge_and_redrive_alone() -> None:
    assert _readers_of_dead_letters(statements(everything())) == {
        "template:DeadLetterKey.BridgeWrites",
        "template:DeadLetterKey.Redrives",
        "template:BridgePolicy.UseDeadLetterKey",
        "template:RedrivePolicy.UseDeadLetterKey",
    }


def test_no_principal_of_the_account_decrypts_dead_letters_by_the_key_policy() -> None:
    """`kms:*` for the account would let any administrator's policy read them."""
    (administers,) = (
        statement.content
        for statement in statements(everything())
        if statement.name == "template:DeadLetterKey.AccountAdministers"
    )
    crypto = {"kms:Decrypt", "kms:Encrypt", "kms:GenerateDataKey", "kms:ReEncryptFrom", "kms:CreateGrant", "kms:*"}
    assert not crypto & set(administers["Action"])


def _listed(values: Any) -> list[Any]:
    return values if isinstance(values, list) else [values]


def _prefixes_read(found: list[Statement]) -> dict[str, set[str]]:
    """By owner: of the archive's bucket, what its statements let it fetch."""
    read: dict[str, set[str]] = {}
    for statement in found:
        if "s3:GetObject" in _listed(statement.content["Action"]):
            for prefix in re.findall(r"\$\{Name\}/([^\"]+)", json.dumps(statement.content["Resource"])):
                read.setdefault(statement.owner, set()).add(prefix)
    return read


def _prefixes_seen(found: list[Statement]) -> dict[str, set[str]]:
    """By owner: of the archive's bucket, what it may list."""
    seen: dict[str, set[str]] = {}
    for statement in found:
        if "s3:ListBucket" in _listed(statement.content["Action"]) and "${Name}" in str(statement.content["Resource"]):
            condition = statement.content.get("Condition", {})
            anything: dict[str, Any] = {"s3:prefix": ["*"]}
            seen.setdefault(statement.owner, set()).update(condition.get("StringLike", anything)["s3:prefix"])
    return seen


def test_whoever_may_fetch_an_object_is_told_when_it_is_not_there() -> None:
    """Where he may not list, S3 says that he is denied, and a claim check that is gone looks like one to wait for."""
    found = statements(synthesized())
    seen = _prefixes_seen(found)
    assert len(seen) >= 4
    for owner, prefixes in _prefixes_read(found).items():
        unseen = {one for one in prefixes if not any(fnmatch(one, pattern) for pattern in seen[owner])}
        assert unseen == set(), owner

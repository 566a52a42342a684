"""A reference reader of the envelope: one line to a change, or to the reason why it is none.

It shares no code with the job's. A suite holds both to the same verdicts and the same changes.
"""

import json
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Final

_OPERATIONS = frozenset({"INSERT", "MODIFY", "REMOVE", "SNAPSHOT"})
_GENERATION = re.compile(r"[0-9]{17}").fullmatch
_SEQUENCE = re.compile(r"[0-9]{40}").fullmatch
_TEXTS = ("rules", "table", "op", "id", "gen", "seq")
_FLAGS = ("ttl", "filtered")
_TIMES = ("created_ms", "origin_ms", "bridge_in_ms", "bridge_out_ms")
_INT64 = range(-(2**63), 2**63)

KeyTypes = Mapping[str, str]
"""A table's key attributes and their types: S, N or B."""


@dataclass(frozen=True, slots=True)
class Change:
    table: str
    key: str
    """Canonical text."""
    seq: str
    """`<gen>-<seq>`."""
    op: str
    new: Mapping[str, Any] | None
    old: Mapping[str, Any] | None
    """Numbers are int or Decimal, exactly as written."""
    types: Mapping[str, str]
    digest: str | None
    ttl: bool
    filtered: bool
    created_ms: int | None
    ref: Mapping[str, Any] | None
    data: bytes = field(repr=False)
    """The record's own bytes, for a reject that comes late."""


def decode(data: bytes, tables: Mapping[str, KeyTypes]) -> Change | str:
    """The change, or why there is none."""
    envelope = parsed(data)
    if not isinstance(envelope, dict):
        return "malformed JSON"
    if type(envelope.get("v")) is not int or envelope["v"] != 1:
        return f"unknown envelope version {envelope.get('v')}"
    return _unlike_the_schema(envelope) or _unlike_the_table(envelope, tables) or _change(envelope, data)


def parsed(data: bytes) -> Any:
    """None where it is not one JSON value in UTF-8. Numbers keep every digit."""
    try:
        text = data.decode("utf-8")
        value = json.loads(text, parse_float=Decimal, parse_constant=_no_constant)
        text.encode("utf-8")
        json.dumps(value, default=str, ensure_ascii=False).encode("utf-8")  # an escaped half of a surrogate pair fails
    except (ValueError, RecursionError):
        return None
    return value


def _no_constant(name: str) -> None:
    raise ValueError(name)


def _unlike_the_schema(envelope: Mapping[str, Any]) -> str | None:
    """The first rule that the envelope breaks."""
    return next((reason for is_kept, reason in _RULES if not is_kept(envelope)), None)


def _is_time(value: Any) -> bool:
    return value is None or (type(value) is int and value in _INT64)


def _is_types(value: Any) -> bool:
    return value is None or (isinstance(value, dict) and all(isinstance(tag, str) for tag in value.values()))


_RULES: Final[tuple[tuple[Callable[[Mapping[str, Any]], bool], str], ...]] = (
    (lambda e: all(isinstance(e.get(name), str) for name in _TEXTS), "a text is missing"),
    (lambda e: all(isinstance(e.get(name), bool) for name in _FLAGS), "a flag is missing"),
    (lambda e: all(_is_time(e.get(name)) for name in _TIMES), "a time is none"),
    (lambda e: isinstance(e.get("digest"), str | None), "the digest is no text"),
    (lambda e: _is_types(e.get("types")), "types are no pointers"),
    (lambda e: isinstance(e.get("ref"), dict | None), "ref is no object"),
    (lambda e: e["op"] in _OPERATIONS, "unknown operation"),
    (lambda e: _GENERATION(e["gen"]) is not None, "no generation"),
    (lambda e: _SEQUENCE(e["seq"]) is not None, "no sequence number"),
    (lambda e: all(isinstance(e.get(name), dict | None) for name in ("new", "old")), "an image is no object"),
    (lambda e: e["op"] == "REMOVE" or bool(e.get("new") is not None or e.get("ref")), "no image"),
)


def _unlike_the_table(envelope: Mapping[str, Any], tables: Mapping[str, KeyTypes]) -> str | None:
    key_types = tables.get(envelope["table"])
    if key_types is None:
        return f"no rules file for table {envelope['table']}"
    key, types = envelope.get("key"), envelope.get("types") or {}
    if not isinstance(key, dict) or key.keys() != key_types.keys():
        return "the key has other attributes"
    for name, wanted in key_types.items():
        value = key[name]
        plain = "N" if isinstance(value, int | Decimal) and not isinstance(value, bool) else "S"
        said = types.get("/key/" + name.replace("~", "~0").replace("/", "~1"), plain)
        if said != wanted or isinstance(value, bool) or not isinstance(value, str | int | Decimal):
            return "the key has other types"
    return None


def _change(envelope: Mapping[str, Any], data: bytes) -> Change:
    return Change(
        table=envelope["table"],
        key=key_text(envelope["key"]),
        seq=f"{envelope['gen']}-{envelope['seq']}",
        op=envelope["op"],
        new=envelope.get("new"),
        old=envelope.get("old"),
        types=envelope.get("types") or {},
        digest=envelope.get("digest"),
        ttl=envelope["ttl"],
        filtered=envelope["filtered"],
        created_ms=envelope.get("created_ms"),
        ref=envelope.get("ref"),
        data=data,
    )


def key_text(key: Mapping[str, Any]) -> str:
    """Names sorted, numbers as they are written."""
    return "{" + ",".join(f"{_text(name)}:{_text(key[name])}" for name in sorted(key)) + "}"


def _text(value: str | int | Decimal) -> str:
    return json.dumps(value, ensure_ascii=False) if isinstance(value, str) else str(value)


def with_images(change: Change, body: bytes, tables: Mapping[str, KeyTypes]) -> Change | str:
    """The change with the images of its claim check."""
    envelope, images = parsed(change.data), parsed(body)
    whole: dict[str, Any] = {**envelope, **images, "ref": None}
    whole["types"] = {**(envelope.get("types") or {}), **images["types"]}
    return _unlike_the_schema(whole) or _unlike_the_table(whole, tables) or _change(whole, change.data)


def tables_of(changes: Collection[Change]) -> list[str]:
    """In the order in which they first occur."""
    return list(dict.fromkeys(change.table for change in changes))

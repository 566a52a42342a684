"""A reference reader of the envelope: one line to a change, or to the reason why it is none.

It shares no code with the job's. A suite holds both to the same verdicts and the same changes.
"""

import json
import math
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from decimal import Decimal, InvalidOperation
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
    members = _members(data)
    if members is None:
        return "malformed JSON"
    envelope = {name: value for name, value, _ in members}
    if type(envelope.get("v")) is not int or envelope["v"] != 1:
        return f"unknown envelope version {envelope.get('v')}"
    key = next((text for name, _, text in reversed(members) if name == "key"), "null")
    return _unlike_the_schema(envelope) or _unlike_the_table(envelope, key, tables) or _change(envelope, key, data)


def _members(data: bytes) -> list[tuple[str, Any, str]] | None:
    """Names, values and texts of one JSON object in UTF-8; None where it is none. Numbers keep every digit."""
    try:
        text = data.decode("utf-8")
        if not isinstance(_DECODER.decode(text), dict):
            return None
        members = list(_scanned(text))
        json.dumps([member[:2] for member in members], default=str, ensure_ascii=False).encode("utf-8")
    except (ValueError, RecursionError):
        return None  # an escaped half of a surrogate pair among them
    return members


def _scanned(text: str) -> Iterator[tuple[str, Any, str]]:
    """What is known to be one object, member by member."""
    at = _SPACE.match(text, text.index("{") + 1).end()  # type: ignore[union-attr]
    while text[at] != "}":
        name, at = _DECODER.raw_decode(text, at)
        at = _SPACE.match(text, _SPACE.match(text, at).end() + 1).end()  # type: ignore[union-attr]
        value, end = _DECODER.raw_decode(text, at)
        yield name, value, text[at:end]
        at = _SPACE.match(text, end).end()  # type: ignore[union-attr]
        if text[at] == ",":
            at = _SPACE.match(text, at + 1).end()  # type: ignore[union-attr]


def _no_constant(name: str) -> None:
    raise ValueError(name)


def exact(text: str) -> Decimal:
    """All digits; what is further out than decimals go is no number of DynamoDB's anyway."""
    try:
        return Decimal(text)
    except InvalidOperation:
        return Decimal("Infinity")


_DECODER: Final = json.JSONDecoder(parse_float=exact, parse_constant=_no_constant)
_SPACE: Final = re.compile(r"[ \t\n\r]*")


def _unlike_the_schema(envelope: Mapping[str, Any]) -> str | None:
    """The first rule that the envelope breaks."""
    return next((reason for is_kept, reason in _RULES if not is_kept(envelope)), None)


def _is_time(value: Any) -> bool:
    return value is None or (type(value) is int and value in _INT64)


def _is_types(value: Any) -> bool:
    return value is None or (isinstance(value, dict) and all(isinstance(tag, str) for tag in value.values()))


def _is_ref(value: Any) -> bool:
    if value is None:
        return True
    if not isinstance(value, dict):
        return False
    texts = all(isinstance(value.get(name), str) for name in ("bucket", "key", "sha256"))
    return texts and type(value.get("bytes")) is int and value["bytes"] in _INT64


_RULES: Final[tuple[tuple[Callable[[Mapping[str, Any]], bool], str], ...]] = (
    (lambda e: all(isinstance(e.get(name), str) for name in _TEXTS), "a text is missing"),
    (lambda e: all(isinstance(e.get(name), bool) for name in _FLAGS), "a flag is missing"),
    (lambda e: all(_is_time(e.get(name)) for name in _TIMES), "a time is none"),
    (lambda e: isinstance(e.get("digest"), str | None), "the digest is no text"),
    (lambda e: _is_types(e.get("types")), "types are no pointers"),
    (lambda e: _is_ref(e.get("ref")), "ref names no object"),
    (lambda e: e["op"] in _OPERATIONS, "unknown operation"),
    (lambda e: _GENERATION(e["gen"]) is not None, "no generation"),
    (lambda e: _SEQUENCE(e["seq"]) is not None, "no sequence number"),
    (lambda e: all(isinstance(e.get(name), dict | None) for name in ("new", "old")), "an image is no object"),
    (lambda e: e["op"] == "REMOVE" or bool(e.get("new") is not None or e.get("ref")), "no image"),
)


def _unlike_the_table(envelope: Mapping[str, Any], key_text: str, tables: Mapping[str, KeyTypes]) -> str | None:
    key_types = tables.get(envelope["table"])
    if key_types is None:
        return f"no rules file for table {envelope['table']}"
    if not isinstance(envelope.get("key"), dict):
        return "the key is no object"
    members = list(_scanned(key_text))
    if [name for name, _, _ in members] != sorted(key_types):
        return "the key has other attributes"
    if key_text != "{" + ",".join(f"{_quoted(name)}:{text}" for name, _, text in members) + "}":
        return "the key is not in its canonical form"
    types = envelope.get("types") or {}
    are_right = all(_is_of_type(name, value, key_types[name], types) for name, value, _ in members)
    return None if are_right else "the key has other types"


def _is_of_type(name: str, value: Any, wanted: str, types: Mapping[str, str]) -> bool:
    plain = "N" if type(value) in (int, Decimal) else "S"
    said = types.get("/key/" + name.replace("~", "~0").replace("/", "~1"), plain)
    if said != wanted or type(value) not in (str, int, Decimal):
        return False
    return said != "N" or _fits_a_column(value)


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def _fits_a_column(number: str | int | Decimal) -> bool:
    try:
        return math.isfinite(float(number))
    except (ValueError, OverflowError):
        return False


def _change(envelope: Mapping[str, Any], key_text: str, data: bytes) -> Change:
    return Change(
        table=envelope["table"],
        key=key_text,
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


def with_images(change: Change, body: bytes) -> Change:
    """The change with the images of its claim check."""
    images = {name: value for name, value, _ in _members(body) or ()}
    types = {**change.types, **images["types"]}
    return replace(change, new=images["new"], old=images["old"], types=types, ref=None)


def tables_of(changes: Collection[Change]) -> list[str]:
    """In the order in which they first occur."""
    return list(dict.fromkeys(change.table for change in changes))

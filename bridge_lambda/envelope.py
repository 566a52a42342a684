"""A stream record to the envelope of version 1, ready for Kinesis but for the time of sending.

`bridge_out_ms` is the last field and always 13 characters long, so that a record is serialised once, packed by its true
size, and stamped each time it is sent.
"""

from collections.abc import Callable, Mapping
from functools import lru_cache
from hashlib import sha256
from typing import Any, Final, NamedTuple

from orjson import Fragment, dumps

from bridge_lambda.errors import PoisonRecordError
from bridge_lambda.images import MALFORMED, canonical, encode, rooted
from bridge_lambda.rules import TableRules
from bridge_lambda.walk import Image
from config.limits import (
    GENERATION_DIGITS,
    KINESIS_PARTITION_KEY_CHARS_MAX,
    KINESIS_RECORD_BYTES_MAX,
    SEQUENCE_DIGITS,
)

VERSION: Final = 1
_OUT: Final = b',"bridge_out_ms":'
_STAMP_BYTES: Final = len(b"1700000000000}\n")
_TTL_PRINCIPAL: Final = "dynamodb.amazonaws.com"
_OPERATIONS: Final = frozenset(("INSERT", "MODIFY", "REMOVE"))


class Parked(NamedTuple):
    """An object for S3: a claim check, a dead letter or a mark."""

    name: str
    body: bytes
    secret: bool
    """Raw, before any rule: only redrive may read it."""


class Change(NamedTuple):
    partition_key: str
    head: bytes
    """The envelope up to its last field."""
    cost: int
    """What Kinesis counts: the whole line and the partition key, in bytes."""
    claim: Parked | None
    """Images that do not fit into a Kinesis record, named by table, key and sequence: to be written before it goes."""

    def line(self, bridge_out_ms: int) -> bytes:
        return b"%b%b%13d}\n" % (self.head, _OUT, bridge_out_ms)


class Origin(NamedTuple):
    table: str
    generation: str


def encode_change(
    record: Mapping[str, Any],
    tables: Mapping[str, TableRules],
    bridge_in_ms: int,
    claims_bucket: str,
) -> Change | None:
    """The change to send; None where the rules' filter keeps it back; PoisonRecordError where it can't be one."""
    try:
        return _encode_change(record, tables, bridge_in_ms, claims_bucket)
    except MALFORMED as error:
        raise _malformed(error) from None


def _encode_change(
    record: Mapping[str, Any],
    tables: Mapping[str, TableRules],
    bridge_in_ms: int,
    claims_bucket: str,
) -> Change | None:
    rules, generation = _rules_of(record, tables)
    change = _part(record, "dynamodb", dict)
    operation = _operation(record)
    keys, new, old = _images(change, operation, rules)
    origin_ms = rules.origin_ms(new) if new is not None else None
    filtered = False
    if rules.filter is not None:
        # An INSERT says that there was no item before: nothing that left the filter, nothing to remove.
        was_in = operation != "INSERT" and (old is None or rules.admits(old))
        if old is not None and not was_in:
            old = None
        if new is not None and not rules.admits(new):
            if not was_in:
                return None
            operation, new, filtered = "REMOVE", None, True
    return _seal(
        rules,
        {
            "op": operation,
            "id": _part(record, "eventID", str),
            "gen": generation,
            "seq": _sequence(change),
            "ttl": operation == "REMOVE" and not filtered and _expired(record),
            "filtered": filtered,
            "created_ms": _created_ms(change),
            "origin_ms": origin_ms,
            "bridge_in_ms": bridge_in_ms,
        },
        keys,
        _encoded(new, old if rules.keep_old_image else None, rules),
        claims_bucket,
    )


class Reading(NamedTuple):
    """An item as it was found in the table itself, by an operation and not by the stream."""

    operation: str
    generation: str
    sequence: Callable[[str], str]
    """From the item's digest."""
    created_ms: int | None
    read_ms: int


def encode_item(item: Image, rules: TableRules, reading: Reading, claims_bucket: str) -> Change | None:
    """The change that an item read from the table stands for. None where the rules' filter keeps it back."""
    try:
        if not rules.admits(item):
            return None
        missing = [name for name in rules.key if name not in item]
        if missing:
            raise PoisonRecordError("no-keys", "an item has not the key its rules name", hint=_KEY_HINT)
        images = _encoded(item, None, rules)
        head = _head_of(reading, reading.sequence(images.digest or ""), origin_ms=rules.origin_ms(item))
        return _seal(rules, head, {name: item[name] for name in rules.key}, images, claims_bucket)
    except MALFORMED as error:
        raise _malformed(error) from None


def encode_snapshot(item: Image, rules: TableRules, generation: str, read_ms: int, claims_bucket: str) -> Change | None:
    """An item read from the table itself: 40 zeros for a sequence, so that any change beats it."""
    reading = Reading("SNAPSHOT", generation, lambda _digest: "0" * SEQUENCE_DIGITS, None, read_ms)
    return encode_item(item, rules, reading, claims_bucket)


def encode_absence(keys: Image, rules: TableRules, reading: Reading, *, filtered: bool) -> Change:
    """The removal that an item's absence from the table stands for; `filtered`: it is there, and out of the filter."""
    head = _head_of(reading, reading.sequence(""), filtered=filtered)
    return _seal(rules, head, keys, _encoded(None, None, rules), "")


def _head_of(
    reading: Reading, sequence: str, *, origin_ms: int | None = None, filtered: bool = False
) -> dict[str, Any]:
    return {
        "op": reading.operation,
        "id": "",
        "gen": reading.generation,
        "seq": sequence,
        "ttl": False,
        "filtered": filtered,
        "created_ms": reading.created_ms,
        "origin_ms": origin_ms,
        "bridge_in_ms": reading.read_ms,
    }


def key_text(keys: Image, rules: TableRules) -> str:
    """The masked key's canonical text: what `key` in the envelope and `_key` in the lake are."""
    return canonical(keys, rules)[0].decode()


def partition_key(key: str) -> str:
    """The key's text, or its hash where that is too long. Counted in UTF-16 units, the most any service could count."""
    if len(key) * 2 <= KINESIS_PARTITION_KEY_CHARS_MAX:
        return key
    too_long = len(key.encode("utf-16-le")) // 2 > KINESIS_PARTITION_KEY_CHARS_MAX
    return sha256(key.encode()).hexdigest() if too_long else key


def _malformed(error: Exception) -> PoisonRecordError:
    return PoisonRecordError(
        "bad-image",
        f"an image is not DynamoDB JSON: {type(error).__name__}",
        hint="read the record in the dead letter; mend its writer, then redrive",
    )


# --- sealing ----------------------------------------------------------------------------------------------------------


class _Images(NamedTuple):
    """Both images as JSON, the types of both, the digest of the new one."""

    texts: dict[str, Fragment | None]
    types: dict[str, str]
    digest: str | None


def _seal(rules: TableRules, head: dict[str, Any], keys: Image, images: _Images, claims_bucket: str) -> Change:
    """Masks the key and measures; images that do not fit go into a claim check."""
    key, key_types = canonical(keys, rules)
    key_types = rooted(key_types, "/key") if key_types else key_types
    types = images.types
    envelope: dict[str, Any] = {
        "v": VERSION,
        "rules": rules.label,
        "table": rules.table,
        **head,
        "key": Fragment(key),
        **images.texts,
        "types": types | key_types if key_types else types,
        "digest": images.digest,
        "ref": None,
    }
    partition = partition_key(key.decode())
    change = _measured(envelope, partition, None)
    if change.cost <= KINESIS_RECORD_BYTES_MAX:
        return change
    body = dumps({**images.texts, "types": types})
    name = f"claims/{rules.table}/{sha256(key).hexdigest()}/{head['gen']}-{head['seq']}.json"
    ref = {"bucket": claims_bucket, "key": name, "bytes": len(body), "sha256": sha256(body).hexdigest()}
    envelope |= {"new": None, "old": None, "types": key_types, "ref": ref}
    return _measured(envelope, partition, Parked(name, body, secret=False))


def _encoded(new: Image | None, old: Image | None, rules: TableRules) -> _Images:
    encoded_new = encode(new, rules, digested=True) if new is not None else None
    encoded_old = encode(old, rules) if old is not None else None
    texts: dict[str, Fragment | None] = {"new": None, "old": None}
    types: dict[str, str] = {}
    for name, encoded in (("new", encoded_new), ("old", encoded_old)):
        if encoded is not None:
            texts[name] = Fragment(encoded.text)
            if encoded.types:
                types |= rooted(encoded.types, f"/{name}")
    return _Images(texts, types, encoded_new.digest if encoded_new else None)


def _measured(envelope: dict[str, Any], partition: str, claim: Parked | None) -> Change:
    head = dumps(envelope)[:-1]
    cost = len(head) + len(_OUT) + _STAMP_BYTES + len(partition.encode())
    return Change(partition, head, cost, claim)


# --- reading the record -----------------------------------------------------------------------------------------------

_KEY_HINT: Final = "compare the table's key with `key` in its rules file; compile the rules anew, then redrive"
_RECORD_HINT: Final = "this is no record of a DynamoDB stream: look at what else invokes the function"


def _part(record: Any, name: str, kind: type) -> Any:
    value = record.get(name) if isinstance(record, dict) else None
    if not isinstance(value, kind) or not value:
        raise PoisonRecordError("bad-record", f"a record has no {name}", hint=_RECORD_HINT)
    return value


@lru_cache(maxsize=64)
def origin_of(arn: str) -> Origin:
    """Table and generation from arn:aws:dynamodb:<region>:<account>:table/<table>/stream/<label>."""
    parts = arn.split(":", 5)[-1].split("/")
    digits = "".join(filter(str.isdigit, parts[-1])) if len(parts) == 4 else ""
    if not digits or parts[0] != "table" or parts[2] != "stream" or len(digits) > GENERATION_DIGITS:
        raise PoisonRecordError("bad-record", "a record's eventSourceARN names no stream", hint=_RECORD_HINT)
    return Origin(parts[1], digits.ljust(GENERATION_DIGITS, "0"))


def _rules_of(record: Mapping[str, Any], tables: Mapping[str, TableRules]) -> tuple[TableRules, str]:
    table, generation = origin_of(_part(record, "eventSourceARN", str))
    rules = tables.get(table)
    if rules is None:
        raise PoisonRecordError(
            "unknown-table", f"no rules for table {table}", hint=f"add config/tables/{table}.yaml, deploy, then redrive"
        )
    return rules, generation


def _operation(record: Mapping[str, Any]) -> str:
    operation: str = _part(record, "eventName", str)
    if operation not in _OPERATIONS:
        raise PoisonRecordError("bad-record", "a record's eventName is not of a DynamoDB stream", hint=_RECORD_HINT)
    return operation


def _images(change: Mapping[str, Any], operation: str, rules: TableRules) -> tuple[Image, Image | None, Image | None]:
    keys = change.get("Keys")
    if not isinstance(keys, dict) or len(keys) != len(rules.key) or not all(name in keys for name in rules.key):
        raise PoisonRecordError("no-keys", "a record has not the keys its table's rules name", hint=_KEY_HINT)
    new, old = change.get("NewImage"), change.get("OldImage")
    if operation == "REMOVE":
        return keys, None, old
    if not new:
        raise PoisonRecordError(
            "no-image", "a change has no new image", hint="the stream's view type must be NEW_AND_OLD_IMAGES"
        )
    return keys, new, old


def _sequence(change: Mapping[str, Any]) -> str:
    text: str = _part(change, "SequenceNumber", str)
    if not (text.isascii() and text.isdigit()) or len(text) > SEQUENCE_DIGITS:
        raise PoisonRecordError("bad-record", "a record's SequenceNumber is no number", hint=_RECORD_HINT)
    return text.zfill(SEQUENCE_DIGITS)


def _created_ms(change: Mapping[str, Any]) -> int | None:
    created_s = change.get("ApproximateCreationDateTime")
    return int(created_s * 1000) if isinstance(created_s, int | float) else None


def _expired(record: Mapping[str, Any]) -> bool:
    identity = record.get("userIdentity")
    if not isinstance(identity, dict):
        return False
    # Lambda writes the names in lower case, the stream itself with capitals.
    kind = identity.get("type", identity.get("Type"))
    principal = identity.get("principalId", identity.get("PrincipalId"))
    return kind == "Service" and principal == _TTL_PRINCIPAL

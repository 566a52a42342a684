"""The source's rows become changes; what cannot be one becomes a reject with its reason, beside its bytes. Pure.

The reader's half of the envelope (`config/envelope.schema.json`), strict; it shares no code with the writer. Keys and
images are taken as the text they stand in, number literals and all. A reject has `reject` set and nothing in a change's
columns; its stream, shard, sequence number, arrival and bytes stay.
"""

import re
from collections.abc import Mapping
from typing import Annotated, Any, Final

import msgspec
import pyarrow as pa

from config.limits import GENERATION_DIGITS, SEQUENCE_DIGITS
from config.tables import TableConfig
from streaming_job.pipeline.arrow import pc, values
from streaming_job.pipeline.changes import SCHEMA
from streaming_job.pipeline.exact_json import NotJsonError, parse
from streaming_job.pipeline.keys import KeyReader

_VERSION: Final = 1
_OPERATIONS: Final = frozenset({"INSERT", "MODIFY", "REMOVE", "SNAPSHOT"})
_NEVER_NULL: Final = ("rules", "table", "op", "id", "gen", "seq", "key", "ttl", "filtered")
_SHOWN_CHARS_MAX: Final = 100
"""Of a wrong value, in a reason."""
_HALF_A_PAIR: Final = re.compile(r"\\ud[89a-f]", re.IGNORECASE)

_Long = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]


class _Ref(msgspec.Struct):
    bucket: str
    key: str
    bytes: _Long
    sha256: str


class _Envelope(msgspec.Struct):
    v: int
    rules: str
    table: str
    op: str
    id: str
    gen: str
    seq: str
    ttl: bool
    filtered: bool
    key: msgspec.Raw = msgspec.Raw(b"null")
    new: msgspec.Raw = msgspec.Raw(b"null")
    old: msgspec.Raw = msgspec.Raw(b"null")
    types: dict[str, str] | None = None
    digest: str | None = None
    created_ms: _Long | None = None
    origin_ms: _Long | None = None
    bridge_in_ms: _Long | None = None
    bridge_out_ms: _Long | None = None
    ref: _Ref | None = None


class _RejectedError(Exception):
    """Says why a record is no change."""


_READ: Final = SCHEMA.names[6:]
"""What the envelope says; before it stand the record's position, arrival, bytes and the reason of its rejection."""


class Decoder:
    def __init__(self, tables: Mapping[str, TableConfig]) -> None:
        self._tables = {name: KeyReader(config) for name, config in tables.items()}
        # Of these a change may still become a reject after it was decoded.
        self._keeps_bytes = frozenset(name for name, config in tables.items() if config.lake.strict)
        self._decode = msgspec.json.Decoder(_Envelope).decode

    def changes(self, rows: pa.Table) -> pa.Table:
        """In the order of the rows."""
        rejects: list[str | None] = []
        kept_bytes: list[bytes | None] = []
        read: list[tuple[Any, ...]] = []
        for data in values(rows, "data"):
            try:
                change, reason = self._change(data), None
            except _RejectedError as error:
                change, reason = _NOTHING, str(error)
            table, ref = change[0], change[-1]
            may_reject = reason is not None or ref is not None or table in self._keeps_bytes
            rejects.append(reason)
            kept_bytes.append(data if may_reject else None)
            read.append(change)
        arrival_ms = pc.divide(_micros(rows), 1000)
        positions = [rows["stream"], rows["shardId"], rows["sequenceNumber"], arrival_ms, kept_bytes, rejects]
        columns = [*positions, *(zip(*read, strict=True) if read else ([] for _ in _READ))]
        named = {field.name: _column(column, field.type) for field, column in zip(SCHEMA, columns, strict=True)}
        changes: pa.Table = pa.table(named, schema=SCHEMA)
        return changes

    def _change(self, data: bytes | None) -> tuple[Any, ...]:
        if data is None:
            raise _RejectedError("no data")
        try:
            envelope = self._decode(data)
            key, new, old = (_text(raw) for raw in (envelope.key, envelope.new, envelope.old))
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            raise _RejectedError(_why_unreadable(data)) from None
        return self._checked(envelope, key, new, old)

    def _checked(self, envelope: _Envelope, key: str | None, new: str | None, old: str | None) -> tuple[Any, ...]:
        e, types = envelope, envelope.types or {}
        if e.v != _VERSION:
            raise _RejectedError(f"unknown envelope version {e.v}")
        if key is None:
            raise _RejectedError("key is missing")
        if e.op not in _OPERATIONS:
            raise _RejectedError(f"unknown operation {e.op[:_SHOWN_CHARS_MAX]}")
        if not _is_digits(e.gen, GENERATION_DIGITS):
            raise _RejectedError(f"no generation: {e.gen[:_SHOWN_CHARS_MAX]}")
        if not _is_digits(e.seq, SEQUENCE_DIGITS):
            raise _RejectedError(f"no sequence number: {e.seq[:_SHOWN_CHARS_MAX]}")
        table = self._tables.get(e.table)
        if table is None:
            raise _RejectedError(f"no rules file for table {e.table[:_SHOWN_CHARS_MAX]}")
        if not table.is_key(key, types):
            raise _RejectedError("the key has other attributes or types than the rules say")
        if e.op != "REMOVE" and new is None and e.ref is None:
            raise _RejectedError("no image")
        if (new is not None and new[0] != "{") or (old is not None and old[0] != "{"):
            raise _RejectedError("an image is no object")
        return (
            e.table,
            e.op,
            e.id,
            f"{e.gen}-{e.seq}",
            key,
            new,
            old,
            None if e.types is None else _as_text(types),
            e.digest,
            e.rules,
            e.ttl,
            e.filtered,
            e.created_ms,
            e.origin_ms,
            e.bridge_in_ms,
            e.bridge_out_ms,
            None if e.ref is None else _as_text(e.ref),
        )


_NOTHING: Final = (None,) * len(_READ)


def _micros(rows: pa.Table) -> Any:
    return pc.cast(rows["approximateArrivalTimestamp"].cast(pa.timestamp("us", "UTC")), pa.int64())


def _column(held: Any, of_type: Any) -> Any:
    return held.cast(of_type) if isinstance(held, pa.ChunkedArray | pa.Array) else pa.array(held, of_type)


def _text(raw: msgspec.Raw) -> str | None:
    text = str(raw, "utf-8")
    return None if text == "null" else text


def _as_text(value: Any) -> str:
    return msgspec.json.encode(value).decode() if value else "{}"


def _is_digits(text: str, count: int) -> bool:
    return len(text) == count and text.isascii() and text.isdigit()


def _why_unreadable(data: bytes) -> str:
    """Of a record that is no envelope: the first thing that is wrong with it."""
    try:
        text = data.decode()
    except UnicodeDecodeError:
        return "not UTF-8"
    try:
        fields = parse(text)
    except NotJsonError:
        return "half a surrogate pair" if _HALF_A_PAIR.search(text) and _is_json_but_for_halves(text) else _MALFORMED
    if not isinstance(fields, dict):
        return _MALFORMED
    if fields.get("v") != _VERSION:
        return f"unknown envelope version {str(fields.get('v', '?'))[:_SHOWN_CHARS_MAX]}"
    missing = [name for name in _NEVER_NULL if fields.get(name) is None]
    return f"{missing[0]} is missing" if missing else "a field has another type than the envelope says"


_MALFORMED: Final = "malformed JSON"


def _is_json_but_for_halves(text: str) -> bool:
    """JSON can escape half a character, which UTF-8 cannot hold."""
    try:
        parse(_HALF_A_PAIR.sub(r"\\u00", text))
    except NotJsonError:
        return False
    return True

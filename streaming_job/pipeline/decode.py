"""The source's rows become changes; what cannot be one becomes a reject with its reason, beside its bytes.

The reader's half of the envelope (`config/envelope.schema.json`), strict; it shares no code with the writer. A reject
has `reject` set and nothing in a change's columns; its stream, shard, sequence number, arrival and bytes stay.
"""

from collections.abc import Mapping
from typing import Final

from pyspark.sql import DataFrame

from config.limits import GENERATION_DIGITS, SEQUENCE_DIGITS
from config.tables import TableConfig
from streaming_job.pipeline.columns import key_columns
from streaming_job.pipeline.jsontext import (
    STRICT_OPTIONS,
    has_floats,
    has_lone_surrogate,
    is_in,
    literal,
    mark_floats,
    quote,
    unmark_floats,
)
from streaming_job.pipeline.keys import is_key_of, parsed_key

_VERSION: Final = 1
_OPERATIONS: Final = ("INSERT", "MODIFY", "REMOVE", "SNAPSHOT")
_FIELDS: Final[Mapping[str, str]] = {
    "v": "int",
    "rules": "string",
    "table": "string",
    "op": "string",
    "id": "string",
    "gen": "string",
    "seq": "string",
    "key": "string",
    "new": "string",
    "old": "string",
    "types": "map<string,string>",
    "digest": "string",
    "ttl": "boolean",
    "filtered": "boolean",
    "created_ms": "bigint",
    "origin_ms": "bigint",
    "bridge_in_ms": "bigint",
    "bridge_out_ms": "bigint",
    "ref": "struct<bucket: string, key: string, bytes: bigint, sha256: string>",
}
_NEVER_NULL: Final = ("rules", "table", "op", "id", "gen", "seq", "key", "ttl", "filtered")
_EXACT: Final = frozenset({"key", "new", "old"})
"""Kept as JSON text, number literals and all."""

_ENVELOPE: Final = ", ".join(f"`{name}`: {of_type}" for name, of_type in _FIELDS.items())
_WRAPPED: Final = f"e array<struct<{_ENVELOPE}>>, z bigint, misfit string"
_SHOWN_CHARS_MAX: Final = 100
"""Of a wrong value, in a reason."""


def decode(rows: DataFrame, tables: Mapping[str, TableConfig]) -> DataFrame:
    """Columns: stream, shard, kinesis_seq, arrival_ms, data, reject, the envelope's (without `v`), change_seq."""
    text = rows.selectExpr(
        "stream",
        "shardId AS shard",
        "sequenceNumber AS kinesis_seq",
        "unix_millis(approximateArrivalTimestamp) AS arrival_ms",
        "data",
        "CAST(data AS string) AS text",
    )
    floats = text.selectExpr("*", f"{has_floats('text')} AS has_floats")
    parsed = floats.selectExpr("*", f"{_parse()} AS parsed")
    envelope = parsed.selectExpr("*", "get(parsed.e, 0) AS e")
    exact = {name: _exact(name) for name in _EXACT}
    fields = ", ".join(f"{exact.get(name, f'e.`{name}`')} AS `{name}`" for name in _FIELDS)
    read = envelope.selectExpr(*_POSITION, "text", "parsed", f"struct({fields}) AS e")
    judged = read.selectExpr(*_POSITION, f"{_reject(tables)} AS reject", "e")
    kept = judged.selectExpr(*_POSITION, "reject", "CASE WHEN reject IS NULL THEN e END AS e")
    columns = [f"e.`{name}`" for name in _FIELDS if name != "v"]
    return kept.selectExpr(*_POSITION, "reject", *columns, "concat(e.gen, '-', e.seq) AS change_seq")


_POSITION: Final = ("stream", "shard", "kinesis_seq", "arrival_ms", "data")


def _parse() -> str:
    """Between brackets with a hash behind: from_json stops after the first value and would pass over what follows."""
    marked = f"CASE WHEN has_floats THEN {mark_floats('text')} ELSE text END"
    wrapped = f"concat('{{\"e\":[', {marked}, '],\"z\":', xxhash64(text), '}}')"
    return f"from_json({wrapped}, {literal(_WRAPPED)}, {_OPTIONS})"


_OPTIONS: Final = "map(" + ", ".join(map(literal, [*STRICT_OPTIONS, "columnNameOfCorruptRecord", "misfit"])) + ")"


def _exact(name: str) -> str:
    raw = f"e.`{name}`"
    text = f"CASE WHEN has_floats THEN {unmark_floats(raw)} ELSE {raw} END"
    return f"CASE WHEN contains({raw}, {_UNICODE}) THEN {_as_written(text)} ELSE {text} END" if name == "key" else text


def _as_written(key: str) -> str:
    """Where Spark wrote an escape, the text the envelope had: `_key` is that, to the byte.

    Spark escapes characters beyond the basic plane, which the envelope does not, and control characters in capitals.
    """
    value = f"CASE left(m.value, 1) WHEN {_TEXT} THEN {quote('substring(m.value, 2)')} ELSE {_NUMBER} END"
    members = f"transform(map_entries({parsed_key(key)}), m -> concat({quote('substring(m.key, 2)')}, ':', {value}))"
    tokens = f"regexp_extract_all(concat('{{', array_join({members}, ','), '}}'), {literal(_ESCAPES)}, 0)"
    return f"array_join(transform({tokens}, t -> CASE WHEN startswith(t, {_UNICODE}) THEN lower(t) ELSE t END), '')"


_ESCAPES: Final = r"\\u[0-9A-F]{4}|\\.|[^\\]++"
_UNICODE: Final = literal(r"\u")
_TEXT: Final = literal("'")
_NUMBER: Final = "CASE WHEN left(m.value, 1) = '#' THEN substring(m.value, 2) ELSE m.value END"


def _reject(tables: Mapping[str, TableConfig]) -> str:
    """The first reason why this is no change; null when it is one."""
    one = "parsed.z = xxhash64(text) AND size(parsed.e) = 1 AND parsed.e[0] IS NOT NULL"
    reasons = {
        "data IS NULL": "'no data'",
        "NOT is_valid_utf8(text)": "'not UTF-8'",
        f"NOT coalesce({one}, false)": "'malformed JSON'",
        has_lone_surrogate("text"): "'half a surrogate pair'",
        f"coalesce(e.v != {_VERSION}, true)": "concat('unknown envelope version ', coalesce(CAST(e.v AS string), '?'))",
        "parsed.misfit IS NOT NULL": "'a field has another type than the envelope says'",
        **{f"e.`{name}` IS NULL": f"'{name} is missing'" for name in _NEVER_NULL},
        f"NOT {is_in('e.op', _OPERATIONS)}": _shown("unknown operation ", "e.op"),
        f"NOT e.gen RLIKE '^[0-9]{{{GENERATION_DIGITS}}}$'": _shown("no generation: ", "e.gen"),
        f"NOT e.seq RLIKE '^[0-9]{{{SEQUENCE_DIGITS}}}$'": _shown("no sequence number: ", "e.seq"),
        f"NOT {is_in('e.`table`', tables)}": _shown("no rules file for table ", "e.`table`"),
        f"NOT {_is_key(tables)}": "'the key has other attributes or types than the rules say'",
        "e.op != 'REMOVE' AND e.new IS NULL AND e.ref IS NULL": "'no image'",
        "left(e.new, 1) != '{' OR left(e.old, 1) != '{'": "'an image is no object'",
    }
    return "CASE " + " ".join(f"WHEN {condition} THEN {reason}" for condition, reason in reasons.items()) + " END"


def _is_key(tables: Mapping[str, TableConfig]) -> str:
    cases = (
        f"WHEN {literal(name)} THEN {is_key_of(key_columns(config), 'e.key', 'e.types')}"
        for name, config in tables.items()
    )
    return f"CASE e.`table` {' '.join(cases)} ELSE false END"


def _shown(what: str, value: str) -> str:
    return f"concat({literal(what)}, left({value}, {_SHOWN_CHARS_MAX}))"

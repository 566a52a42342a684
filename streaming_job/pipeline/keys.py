"""SQL over a change's `key`, the canonical JSON text of the primary key's attributes."""

import json
import re
from collections.abc import Sequence
from typing import Final

from pyspark.sql.types import DoubleType

from config.tables import ColumnRule
from streaming_job.pipeline.columns import KeyColumn
from streaming_job.pipeline.jsontext import STRING_TOKEN, literal, mark
from streaming_job.pipeline.naming import pointer
from streaming_job.pipeline.values import converted

_LITERAL: Final = r"-?(?:0|[1-9]\d*+)(?:\.\d++)?(?:[eE][+-]?\d++)?"
_QUOTED: Final = 'left({}, 1) = "\'"'


def parsed_key(text: str) -> str:
    return f"from_json({mark(text)}, 'map<string,string>')"


def key_value(key: KeyColumn, parsed: str) -> str:
    """The attribute as its column holds it; null when it does not fit. `parsed` is the SQL of `parsed_key`."""
    value = f"{parsed}[{literal(_marked(key.attribute))}]"
    if key.dynamodb_type == "S":
        return f"substring({value}, 2)"
    if key.dynamodb_type == "B":
        return f"try_to_binary(substring({value}, 2), 'base64')"
    number = f"CASE WHEN left({value}, 1) IN ('#', \"'\") THEN substring({value}, 2) ELSE {value} END"
    if isinstance(key.type, DoubleType):
        return f"try_cast({number} AS double)"
    return converted(ColumnRule(type=key.type.simpleString()), number, "NULL")


def is_key_of(keys: Sequence[KeyColumn], text: str, types: str) -> str:
    """The key holds just these attributes, in canonical order, each of its type, each number within its column."""
    ordered = sorted(keys, key=lambda key: key.attribute)
    members = ",".join(f"{_escaped(key.attribute)}:{_token(key)}" for key in ordered)
    parsed = parsed_key(text)
    conditions = [f"{text} RLIKE {literal('^[{]' + members + '[}]$')}"]
    for key in keys:
        said = f"try_element_at({types}, {literal('/key' + pointer([key.attribute]))})"
        plain = "'S'"
        if key.dynamodb_type == "N":
            plain = f"CASE WHEN {_QUOTED.format(f'{parsed}[{literal(_marked(key.attribute))}]')} THEN 'S' ELSE 'N' END"
        conditions.append(f"coalesce({said}, {plain}) = '{key.dynamodb_type}'")
        if key.dynamodb_type != "S":
            conditions.append(f"{key_value(key, parsed)} IS NOT NULL")
    return "(" + " AND ".join(conditions) + ")"


def _marked(name: str) -> str:
    return "'" + name


def _escaped(name: str) -> str:
    return re.escape(json.dumps(name, ensure_ascii=False))


def _token(key: KeyColumn) -> str:
    return f'(?:{_LITERAL}|"[^"]*+")' if key.dynamodb_type == "N" else STRING_TOKEN

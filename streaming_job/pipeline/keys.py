"""A change's `key`: the canonical JSON text of the primary key's attributes. Pure."""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

import pyarrow as pa
from pyspark.sql.types import StructField, StructType

from config.tables import TableConfig
from streaming_job.pipeline.arrow import Column as Cells
from streaming_job.pipeline.columns import KeyColumn, key_columns
from streaming_job.pipeline.conversion import Convert, declared, natural
from streaming_job.pipeline.exact_json import NotJsonError, Number, is_number, parse
from streaming_job.pipeline.merge_rust import arrow_schema
from streaming_job.pipeline.naming import pointer

_STRING: Final = r'"[^"\\]*+(?:\\.[^"\\]*+)*+"'
_NUMBER: Final = r'(?:-?(?:0|[1-9]\d*+)(?:\.\d++)?(?:[eE][+-]?\d++)?|"[^"]*+")'


class KeyReader:
    """Of one table."""

    def __init__(self, config: TableConfig) -> None:
        self.columns = key_columns(config)
        ordered = sorted(self.columns, key=lambda key: key.attribute)
        members = ",".join(f"{_escaped(key.attribute)}:{_token(key)}" for key in ordered)
        self._canonical = re.compile("{" + members + "}", re.ASCII | re.DOTALL)
        self._converters = {key.attribute: _converter(key) for key in self.columns if key.dynamodb_type != "S"}
        self._places = {key.attribute: "/key" + pointer([key.attribute]) for key in self.columns}

    def is_key(self, text: str, types: Mapping[str, str]) -> bool:
        """Just these attributes, in canonical order, each of its type, each number within its column."""
        if self._canonical.fullmatch(text) is None:
            return False
        if not self._converters and not types:
            return True
        try:
            held = parse(text)
        except NotJsonError:
            # It is JSON, but with a number of more digits than anything takes.
            return False
        return all(self._is_of_its_type(key, held[key.attribute], types) for key in self.columns)

    def arrays(self, keys: Sequence[str]) -> list[Cells]:
        """Of each column its values."""
        held = [parse(text) for text in keys]
        schema = arrow_schema(StructType([StructField(key.name, key.type) for key in self.columns]))
        return [
            pa.array([self._value(key, values[key.attribute]) for values in held], schema.field(key.name).type)
            for key in self.columns
        ]

    def _is_of_its_type(self, key: KeyColumn, value: Any, types: Mapping[str, str]) -> bool:
        is_literal = type(value) in (int, Number)
        if types.get(self._places[key.attribute], "N" if is_literal else "S") != key.dynamodb_type:
            return False
        if key.dynamodb_type == "N" and not is_literal and not is_number(value):
            return False
        return self._value(key, value) is not None

    def _value(self, key: KeyColumn, value: Any) -> Any:
        """As its column holds it; None for what does not fit."""
        convert = self._converters.get(key.attribute)
        return value if convert is None else convert(value, None)


def _converter(key: KeyColumn) -> Convert:
    return natural(key.type) or declared(key.rule)


def _escaped(name: str) -> str:
    return re.escape(json.dumps(name, ensure_ascii=False))


def _token(key: KeyColumn) -> str:
    return _NUMBER if key.dynamodb_type == "N" else _STRING

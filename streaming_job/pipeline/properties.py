"""Values of ours among a table's properties, which are text."""

import json
from collections.abc import Mapping
from typing import Any


def written(value: Mapping[str, Any]) -> str:
    """In hexadecimal: Spark blacks out a property whose text has words like `token` or `secret` in it."""
    return json.dumps(value, sort_keys=True).encode().hex()


def read(text: str | None) -> dict[str, Any] | None:
    value: dict[str, Any] | None = json.loads(bytes.fromhex(text)) if text else None
    return value

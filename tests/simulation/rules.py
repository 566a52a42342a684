"""A table's rules, said twice: compiled for the bridge, and as the model understands them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bridge_lambda.rules import HashKey, TableRules, table_rules

Image = dict[str, Any]

SECRET_WORD = "PRIVATE"
"""In every value that rules drop or hash, and in no other."""
DROPPED = ("private",)
DROPPED_BELOW = ("profile", "token")
HASHED = ("email",)
HOME = "eu"
"""The region that a filter admits."""


@dataclass(frozen=True)
class Rules:
    table: str
    key: Mapping[str, str]
    masks: bool
    keep_old_image: bool
    filters: bool
    purges: bool
    """Tombstones are purged after a window."""

    def for_bridge(self) -> TableRules:
        body: dict[str, Any] = {
            "version": 1,
            "key": list(self.key),
            "drop": [list(DROPPED), list(DROPPED_BELOW)] if self.masks else [],
            "hash": [list(HASHED)] if self.masks else [],
            "secret": {"name": "pepper", "version": None},
            "keep_old_image": self.keep_old_image,
            "filter": {"path": ["region"], "equals": [["S", HOME]]} if self.filters else None,
            "origin": {"path": ["at"], "ms_per_unit": 1},
        }
        return table_rules(self.table, body, lambda _name, _version: HashKey("k1", b"pepper-of-the-simulation"))

    def admits(self, image: Image) -> bool:
        return not self.filters or image.get("region") == {"S": HOME}

    def masked(self, image: Image) -> Image:
        """What may leave the source. What is hashed stands as {"HASHED": the value}: the hash itself is not ours."""
        if not self.masks:
            return image
        left = {name: typed for name, typed in image.items() if name not in DROPPED}
        if "profile" in left:
            below = {name: typed for name, typed in left["profile"]["M"].items() if name != DROPPED_BELOW[1]}
            left["profile"] = {"M": below}
        if HASHED[0] in left:
            left[HASHED[0]] = {"HASHED": str(left[HASHED[0]])}
        return left

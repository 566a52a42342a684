"""A table's items as the lake knows them: by the masked key's text and the masked item's digest."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from bridge_lambda.envelope import key_text
from bridge_lambda.images import encode, parse, restore
from bridge_lambda.rules import TableRules
from config.tables import TableConfig
from streaming_job.operations.comparison import SOURCE_SCHEMA, Suspect
from streaming_job.operations.source_scan import Item, key_read, key_written


@dataclass(frozen=True)
class SourceSide:
    config: TableConfig
    rules: TableRules

    def admitted(self, page: Sequence[Item]) -> list[Item]:
        """Those the rules let into the lake."""
        return [item for item in page if self.rules.admits(item)]

    def rows(self, items: Sequence[Item]) -> pa.Table:
        return pa.table(
            {
                "key": [self.key(item) for item in items],
                "digest": [self.digest(item) for item in items],
                "address": [key_written(self.address(item)) for item in items],
            },
            schema=SOURCE_SCHEMA,
        )

    def key(self, item: Item) -> str:
        return key_text(self.address(item), self.rules)

    def address(self, item: Item) -> dict[str, Any]:
        return {attribute.name: item[attribute.name] for attribute in self.config.key}

    def digest(self, item: Item) -> str | None:
        return encode(self.rules.mask(item), digested=True).digest

    def known_address(self, suspect: Suspect) -> Item | None:
        """Where to find the item again; a row of the lake alone says it only where its key is not masked."""
        if suspect.address is not None:
            return key_read(suspect.address)
        if any(attribute.name in self.rules.masks for attribute in self.config.key):
            return None
        return key_read(key_written(self.masked_key(suspect.key)))

    def masked_key(self, key: str) -> dict[str, Any]:
        """The key as the lake has it, as an image."""
        types = {
            f"/{attribute.name}": "B"
            for attribute in self.config.key
            if attribute.type == "B" and attribute.name not in self.rules.masks
        }
        return restore(parse(key), types)

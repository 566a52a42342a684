"""A table to be pulled: its rules; itself and its index in memory: describe, query, scan and batch get, short pages."""

from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from botocore.exceptions import ClientError

from config.tables import TableConfig

Item = dict[str, Any]
UNITS_A_PAGE = 2.0
NOW_MS = 1_790_000_000_000


def table_config(**pull: Any) -> TableConfig:
    return TableConfig.model_validate(
        {
            "table": "things",
            "version": 1,
            "key": [{"name": "id"}],
            "bridge": {"hash": ["tenant"], "hash_secret": "s"},
            "lake": {"name": "things"},
            "pull": {"index": "by_tenant", "version": "ms", "overlap": 60, **pull},
        }
    )


@dataclass
class IndexInMemory:
    table: str = "things"
    key: str = "id"
    index: str = "by_tenant"
    tenant: str = "tenant"
    version: str = "at"
    version_type: str = "N"
    projection: str = "ALL"
    page: int = 7
    items: dict[str, Item] = field(default_factory=dict)
    queries: list[Mapping[str, Any]] = field(default_factory=list)
    faults: Callable[[str, str], str | None] = lambda _operation, _what: None
    """Operation and tenant to an error's code."""
    description: Mapping[str, Any] = field(default_factory=dict)
    """Laid over what describe_table says of the table."""

    def put(self, key: str, tenant: str | None, version: Any, **more: Any) -> None:
        item: Item = {self.key: {"S": key}, **more}
        if tenant is not None:
            item[self.tenant] = {"S": tenant}
        if version is not None:
            item[self.version] = {self.version_type: str(version)}
        self.items[key] = item

    def describe_table(self, **_: Any) -> Any:
        types = {self.key: "S", self.tenant: "S", self.version: self.version_type}
        entries = len(list(self._entries()))
        table = {
            "KeySchema": [{"AttributeName": self.key, "KeyType": "HASH"}],
            "AttributeDefinitions": [{"AttributeName": n, "AttributeType": t} for n, t in types.items()],
            "ItemCount": len(self.items),
            "GlobalSecondaryIndexes": [
                {
                    "IndexName": self.index,
                    "KeySchema": [
                        {"AttributeName": self.tenant, "KeyType": "HASH"},
                        {"AttributeName": self.version, "KeyType": "RANGE"},
                    ],
                    "Projection": {"ProjectionType": self.projection},
                    "ItemCount": entries,
                }
            ],
        }
        return {"Table": {**table, **self.description}}

    def query(self, **request: Any) -> Any:
        self.queries.append(request)
        values = request["ExpressionAttributeValues"]
        tenant = values[":t"]["S"]
        self._fail("Query", tenant)
        begin = self._order(values[":v"]) if ":v" in values else None
        entries = [
            item
            for item in self._entries()
            if item[self.tenant] == values[":t"] and (begin is None or self._order(item[self.version]) >= begin)
        ]
        entries.sort(key=self._place)
        return self._page(entries, request.get("ExclusiveStartKey"))

    def scan(self, **request: Any) -> Any:
        self._fail("Scan", "")
        entries = list(self._entries()) if "IndexName" in request else list(self.items.values())
        segment, segments = request.get("Segment", 0), request.get("TotalSegments", 1)
        entries = [item for number, item in enumerate(entries) if number % segments == segment]
        return {"Items": [dict(item) for item in entries], "ConsumedCapacity": {"CapacityUnits": UNITS_A_PAGE}}

    def batch_get_item(self, *, RequestItems: Any, **_: Any) -> Any:  # noqa: N803 - AWS's names
        keys = [key[self.key]["S"] for key in RequestItems[self.table]["Keys"]]
        return {"Responses": {self.table: [dict(self.items[key]) for key in keys if key in self.items]}}

    def _page(self, entries: Sequence[Item], after: Item | None) -> Any:
        start = bisect_right(entries, self._place(after), key=self._place) if after is not None else 0
        some = entries[start : start + self.page]
        answer = {
            "Items": [self._projected(item) for item in some],
            "ConsumedCapacity": {"CapacityUnits": UNITS_A_PAGE},
        }
        if start + self.page < len(entries):
            answer["LastEvaluatedKey"] = {name: some[-1][name] for name in (self.key, self.tenant, self.version)}
        return answer

    def _projected(self, item: Item) -> Item:
        names = (self.key, self.tenant, self.version)
        return dict(item) if self.projection == "ALL" else {name: item[name] for name in names}

    def _entries(self) -> Iterator[Item]:
        for item in self.items.values():
            if self.tenant in item and self.version in item:
                yield item

    def _place(self, item: Item) -> Any:
        return self._order(item[self.version]), item[self.key]["S"]

    def _order(self, typed: Mapping[str, Any]) -> Any:
        return Decimal(typed["N"]) if "N" in typed else typed["S"]

    def _fail(self, operation: str, tenant: str) -> None:
        code = self.faults(operation, tenant)
        if code is not None:
            raise ClientError({"Error": {"Code": code, "Message": "no"}}, operation)

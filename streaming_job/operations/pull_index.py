"""The index a table is pulled by: what it holds, checked before the first read, and its pages."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from botocore.exceptions import BotoCoreError, ClientError

from config.errors import ConfigurationError, LakestreamError
from config.tables import TableConfig
from streaming_job.operations.pull_cursors import Cursor
from streaming_job.operations.pull_versions import Typed, Versions
from streaming_job.operations.source_scan import (
    CapacityBudget,
    Item,
    SourceUnreadableError,
    key_read,
    key_written,
    read_consistently,
)

_RIGHTS: Final = "the role needs dynamodb:DescribeTable and BatchGetItem on the table, Query and Scan on its indexes"


class TenantUnreadableError(LakestreamError):
    """One tenant could not be read to its end; its cursor stays where it was."""


@dataclass(frozen=True, slots=True)
class TenantPage:
    items: Sequence[Item]
    gone: int
    """Entries of the index whose item was no longer in the table."""
    after: str | None
    """Where the tenant goes on; None at its end."""


@dataclass(frozen=True)
class Index:
    client: Any
    table: str
    name: str
    tenant: str
    tenant_type: str
    version: str
    key: tuple[str, ...]
    """Of the table."""
    is_whole: bool
    """It projects all attributes; of others only the keys are read, and the items from the table."""
    not_in_it: int
    """Items of the table without an entry, as DynamoDB last counted, some hours ago."""
    budget: CapacityBudget

    @classmethod
    def describe(cls, client: Any, config: TableConfig, versions: Versions, budget: CapacityBudget) -> "Index":
        """ConfigurationError for whatever cannot be pulled by."""
        assert config.pull is not None
        try:
            table = client.describe_table(TableName=config.table)["Table"]
        except (ClientError, BotoCoreError) as error:
            raise ConfigurationError(f"{config.table}: {_said(error)}", hint=_RIGHTS) from error
        index = _index_of(table, config.table, config.pull.index)
        types = {each["AttributeName"]: each["AttributeType"] for each in table["AttributeDefinitions"]}
        keys = {each["KeyType"]: each["AttributeName"] for each in index["KeySchema"]}
        name = f"index {config.pull.index} of {config.table}"
        version = keys.get("RANGE")
        if version is None:
            raise ConfigurationError(
                f"{name} has no sort key", hint="pull needs one that every write moves on: the time of the write"
            )
        if types[version] != versions.attribute_type:
            raise ConfigurationError(
                f"{name} is sorted by {version}, of type {types[version]}; pull.version says {config.pull.version}",
                hint="`iso` goes with S, the others with N",
            )
        if types[keys["HASH"]] not in ("S", "N"):
            raise ConfigurationError(
                f"{name}: tenants are binary ({keys['HASH']})", hint="pull reads tenants that are text or numbers"
            )
        found = {each["AttributeName"] for each in table["KeySchema"]}
        wanted = {attribute.name for attribute in config.key}
        if found != wanted:
            raise ConfigurationError(
                f"the key of {config.table} is {', '.join(sorted(found))}, its rules say {', '.join(sorted(wanted))}"
            )
        return cls(
            client,
            config.table,
            config.pull.index,
            tenant=keys["HASH"],
            tenant_type=types[keys["HASH"]],
            version=version,
            key=tuple(sorted(found)),
            is_whole=index["Projection"]["ProjectionType"] == "ALL",
            # An index that was never counted says 0.
            not_in_it=max(0, table.get("ItemCount", 0) - index["ItemCount"]) if index.get("ItemCount") else 0,
            budget=budget,
        )

    def typed(self, tenant: str) -> Typed:
        """A tenant's text as its attribute's value."""
        kind, _, value = tenant.partition(":")
        return {kind: value}

    def text(self, value: str | int) -> str:
        """A tenant as the configuration names it."""
        return f"{self.tenant_type}:{value}"

    def discover(self) -> set[str]:
        """Every tenant that has an item, by a Scan of the index: what it costs is what the index holds."""
        found: set[str] = set()
        request = {
            "TableName": self.table,
            "IndexName": self.name,
            "ProjectionExpression": "#t",
            "ExpressionAttributeNames": {"#t": self.tenant},
        }
        start: Mapping[str, Any] = {}
        while True:
            try:
                answer = self.client.scan(**request, **start, ReturnConsumedCapacity="TOTAL")
            except (ClientError, BotoCoreError) as error:
                raise LakestreamError(f"index {self.name} cannot be scanned: {_said(error)}", hint=_RIGHTS) from error
            self._spend(answer)
            found |= {self.text(item[self.tenant][self.tenant_type]) for item in answer["Items"]}
            if "LastEvaluatedKey" not in answer:
                return found
            start = {"ExclusiveStartKey": answer["LastEvaluatedKey"]}

    def pages(self, tenant: str, cursor: Cursor) -> Iterator[TenantPage]:
        """From where a pass is to begin, or goes on, to the tenant's end, oldest version first."""
        names, values = {"#t": self.tenant}, {":t": self.typed(tenant)}
        condition = "#t = :t"
        if cursor.begin is not None:
            names["#v"], values[":v"] = self.version, cursor.begin
            condition += " AND #v >= :v"
        request = {
            "TableName": self.table,
            "IndexName": self.name,
            "KeyConditionExpression": condition,
            "ExpressionAttributeNames": names,
            "ExpressionAttributeValues": values,
        }
        after = key_read(cursor.after) if cursor.after is not None else None
        while True:
            start = {"ExclusiveStartKey": after} if after is not None else {}
            try:
                answer = self.client.query(**request, **start, ReturnConsumedCapacity="TOTAL")
                self._spend(answer)
                items = answer["Items"] if self.is_whole else self._whole(answer["Items"])
            except (ClientError, BotoCoreError, SourceUnreadableError) as error:
                raise TenantUnreadableError(_said(error), hint=_RIGHTS) from error
            after = answer.get("LastEvaluatedKey")
            gone = len(answer["Items"]) - len(items)
            yield TenantPage(items, gone, key_written(after) if after is not None else None)
            if after is None:
                return

    def _whole(self, entries: Sequence[Item]) -> list[Item]:
        keys = [{name: entry[name] for name in self.key} for entry in entries]
        return read_consistently(self.client, self.table, keys, self.budget)

    def _spend(self, answer: Mapping[str, Any]) -> None:
        self.budget.spend(answer.get("ConsumedCapacity", {}).get("CapacityUnits", 0.0))


def _index_of(table: Mapping[str, Any], name: str, wanted: str) -> Mapping[str, Any]:
    indexes = {index["IndexName"]: index for index in table.get("GlobalSecondaryIndexes", ())}
    if wanted not in indexes:
        raise ConfigurationError(
            f"{name} has no global index {wanted}", hint=f"it has {', '.join(sorted(indexes)) or 'none'}"
        )
    index: Mapping[str, Any] = indexes[wanted]
    if index.get("IndexStatus", "ACTIVE") not in ("ACTIVE", "UPDATING"):
        raise ConfigurationError(f"index {wanted} of {name} is {index['IndexStatus']}", hint="wait until it is ACTIVE")
    return index


def _said(error: Exception) -> str:
    return " ".join(str(error).split())

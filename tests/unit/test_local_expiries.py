"""The ledger of expiries: what stands in it is the service's deletion, everything else is a user's."""

from pathlib import Path
from typing import Any

from botocore.exceptions import ClientError

from infra.local.expiries.__main__ import Expiries
from infra.local.expiries.ledger import SERVICE_IDENTITY, LedgerReader, LedgerWriter, entry
from infra.local.expiries.settings import ExpiriesSettings

KEY = {"id": {"S": "a"}}


def removal(key: dict[str, Any] = KEY, *, expires: str | None = "100", name: str = "REMOVE") -> dict[str, Any]:
    old = dict(key) if expires is None else key | {"expires": {"N": expires}}
    return {"eventName": name, "dynamodb": {"Keys": key, "OldImage": old}}


def noted(path: Path, *entries: bytes) -> None:
    ledger = LedgerWriter(path)
    ledger.note(list(entries))
    ledger.close()


def is_expiry(reader: LedgerReader, record: dict[str, Any]) -> bool:
    return reader.identified(record).get("userIdentity") == SERVICE_IDENTITY


def test_a_noted_deletion_is_the_services(tmp_path: Path) -> None:
    noted(tmp_path / "state" / "ledger", entry(KEY, "100"))
    assert is_expiry(LedgerReader(tmp_path / "state" / "ledger", "expires"), removal())


def test_every_other_change_is_a_users(tmp_path: Path) -> None:
    """Another key, another time, no time at all, an insert; and where nothing ever expired there is no ledger."""
    noted(tmp_path / "ledger", entry(KEY, "100"))
    reader = LedgerReader(tmp_path / "ledger", "expires")
    others = (removal({"id": {"S": "b"}}), removal(expires="101"), removal(expires=None), removal(name="MODIFY"))
    assert not any(is_expiry(reader, record) for record in others)
    assert not is_expiry(LedgerReader(tmp_path / "none", "expires"), removal())


def test_what_is_noted_later_is_found(tmp_path: Path) -> None:
    reader = LedgerReader(tmp_path / "ledger", "expires")
    for name in "abc":
        key = {"id": {"S": name}}
        assert not is_expiry(reader, removal(key))
        noted(tmp_path / "ledger", entry(key, "100"))
        assert is_expiry(reader, removal(key))


def test_half_a_line_is_not_read(tmp_path: Path) -> None:
    whole = entry(KEY, "100")
    ledger = tmp_path / "ledger"
    ledger.write_bytes(whole[:-3])
    reader = LedgerReader(ledger, "expires")
    assert not is_expiry(reader, removal())
    ledger.write_bytes(whole + b"\n")
    assert is_expiry(reader, removal())


def test_a_binary_key_is_the_same_whoever_names_it(tmp_path: Path) -> None:
    key = {"id": {"B": b"\x00\xff"}}
    noted(tmp_path / "ledger", entry(key, "100"))
    assert is_expiry(LedgerReader(tmp_path / "ledger", "expires"), removal({"id": {"B": "AP8="}}))


class RenewingTable:
    """One item has expired when it is read, and is renewed before it can be deleted."""

    def __init__(self, items: list[dict[str, Any]], renewed: str) -> None:
        self.items, self.deleted, self._renewed = items, [], renewed

    def describe_table(self, *, TableName: str) -> dict[str, Any]:  # noqa: N803 - boto3's names
        return {"Table": {"KeySchema": [{"AttributeName": "id", "KeyType": "HASH"}]}}

    def get_paginator(self, _name: str) -> "RenewingTable":
        return self

    def paginate(self, **_: Any) -> list[dict[str, Any]]:
        return [{"Items": self.items[:1]}, {"Items": self.items[1:]}, {"Items": []}]

    def delete_item(self, *, Key: dict[str, Any], ConditionExpression: str, **_: Any) -> None:  # noqa: N803 - boto3's names
        assert ConditionExpression == "#expires = :seen"
        if Key["id"]["S"] == self._renewed:
            raise ClientError({"Error": {"Code": "ConditionalCheckFailedException", "Message": ""}}, "DeleteItem")
        self.deleted.append(Key["id"]["S"])


def test_an_item_renewed_meanwhile_stays(tmp_path: Path) -> None:
    items = [{"id": {"S": name}, "expires": {"N": "100"}} for name in "abc"]
    table = RenewingTable(items, renewed="b")
    settings = ExpiriesSettings(
        endpoint="http://127.0.0.1:1", region="us-east-1", table="t", attribute="expires", ledger=tmp_path / "ledger"
    )
    ledger = LedgerWriter(settings.ledger)
    assert Expiries(settings, table, ledger).sweep(1_000) == 2
    ledger.close()
    assert table.deleted == ["a", "c"]

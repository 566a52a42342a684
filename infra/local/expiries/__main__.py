"""`python -m infra.local.expiries --settings FILE.json`: deletes what has expired, until SIGTERM.

The emulator's own expiry removes the item and puts nothing in the stream, so that the lake would keep it for ever.
Here an item goes by a conditional deletion: one that was renewed meanwhile stays, as on AWS.
"""

import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from botocore.exceptions import ClientError
from prometheus_client import CollectorRegistry, Counter

from infra.local import worker
from infra.local.expiries.ledger import LedgerWriter, entry
from infra.local.expiries.settings import ExpiriesSettings

_PAST_S_MAX = 5 * 365 * 86_400
"""AWS leaves items alone that expired more than five years ago: probably the attribute is in another unit."""


class Expiries:
    def __init__(self, settings: ExpiriesSettings, client: Any, ledger: LedgerWriter) -> None:
        self._settings, self._client, self._ledger = settings, client, ledger
        self._keys = [
            part["AttributeName"] for part in client.describe_table(TableName=settings.table)["Table"]["KeySchema"]
        ]

    def sweep(self, now_s: int) -> int:
        """How many items went."""
        return sum(self._expire(page) for page in self._expired(now_s))

    def _expired(self, now_s: int) -> Iterator[list[dict[str, Any]]]:
        names = {"#expires": self._settings.attribute, **{f"#k{n}": name for n, name in enumerate(self._keys)}}
        pages = self._client.get_paginator("scan").paginate(
            TableName=self._settings.table,
            FilterExpression="#expires < :now AND #expires > :past",
            ProjectionExpression=", ".join(names),
            ExpressionAttributeNames=names,
            ExpressionAttributeValues={":now": {"N": str(now_s)}, ":past": {"N": str(now_s - _PAST_S_MAX)}},
            ConsistentRead=True,
        )
        for page in pages:
            yield page["Items"]

    def _expire(self, items: list[dict[str, Any]]) -> int:
        if not items:
            return 0
        found = [({name: item[name] for name in self._keys}, item[self._settings.attribute]["N"]) for item in items]
        self._ledger.note([entry(key, expires) for key, expires in found])
        return sum(self._delete(key, expires) for key, expires in found)

    def _delete(self, key: dict[str, Any], expires: str) -> bool:
        try:
            self._client.delete_item(
                TableName=self._settings.table,
                Key=key,
                ConditionExpression="#expires = :seen",
                ExpressionAttributeNames={"#expires": self._settings.attribute},
                ExpressionAttributeValues={":seen": {"N": expires}},
            )
        except ClientError as error:
            if worker.error_code(error) == "ConditionalCheckFailedException":
                return False
            raise
        return True


def run(path: Path, log: worker.Log, stop: threading.Event) -> None:
    settings = worker.load(path, ExpiriesSettings)
    registry = CollectorRegistry()
    expired = Counter("lakestream_expiries_items", "Items deleted because they had expired", registry=registry)
    failures = Counter("lakestream_expiries_failures", "Sweeps broken off, tried again", registry=registry)
    ledger = LedgerWriter(settings.ledger)
    try:
        client = worker.client("dynamodb", endpoint=settings.endpoint, region=settings.region)
        expiries = Expiries(settings, client, ledger)
        port = worker.serve_metrics(registry, settings.metrics_port)
        log.info("started", table=settings.table, attribute=settings.attribute, metrics_port=port)
        while not stop.is_set():
            try:
                expired.inc(expiries.sweep(int(time.time())))
            except worker.ServiceError as error:
                failures.inc()
                log.warning("sweep_failed", error=worker.one_line(error))
            stop.wait(settings.every_s)
    finally:
        ledger.close()


if __name__ == "__main__":
    sys.exit(worker.main("expiries", run))

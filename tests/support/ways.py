"""One source, three ways into three lakes: the stack without its job, a table with an index, and changes to write."""

import json
import random
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from config.rules import TABLES
from config.settings import Settings
from config.tables import TableConfig, load_tables
from infra.local.telemetry import telemetry_item, to_dynamodb
from tests.support.local_stack import clients_of, local, metric

TABLE = "chargeminder-car-telemetry"
INDEX = "by_fleet"
FLEETS = 8


@dataclass(frozen=True)
class Ways:
    home: Path
    stack: Mapping[str, Any]
    tables_dir: Path

    @property
    def dynamodb(self) -> Any:
        return clients_of(self.stack)("dynamodb")

    @property
    def table(self) -> TableConfig:
        return load_tables(self.tables_dir)[TABLE]

    def settings(self, way: str, **source: Any) -> Settings:
        return Settings.model_validate(self.configuration(way, **source))

    def configuration(self, way: str, **source: Any) -> dict[str, Any]:
        """Of one way: a lake and a checkpoint of its own."""
        return {
            "aws": {"region": self.stack["region"], "endpoint": self.stack["aws_endpoint"]},
            "source": {"stream": self.stack["stream"], **source},
            "lake": {"root": str(self.home / way / "lake"), "checkpoint": str(self.home / way / "checkpoint")},
            "bucket": {"name": self.stack["bucket"]},
            "tables": [TABLE],
            "tables_dir": str(self.tables_dir),
        }

    def bridged(self) -> int:
        """Changes of the table that are in Kinesis."""
        return round(metric(self.home / "stack", "mapping", "lakestream_mapping_records_done_total"))

    def archived(self) -> int:
        return round(metric(self.home / "stack", "delivery", "lakestream_delivery_records_total"))


@contextmanager
def source_of_all(folder: Path) -> Iterator[Ways]:
    """The stack, and in its table an index by fleet and time of writing, which the rules for pulling name."""
    up = local("up", "--no-job", "--dir", folder / "stack", "--json")
    assert up.code == 0, up.err
    try:
        rules = folder / "tables"
        rules.mkdir()
        for suffix in (".yaml", ".sample.json"):
            shutil.copy(TABLES / f"{TABLE}{suffix}", rules)
        file = rules / f"{TABLE}.yaml"
        pull = {"pull": {"index": INDEX, "version": "ms", "overlap": 60}}
        file.write_text(yaml.safe_dump(yaml.safe_load(file.read_text()) | pull))
        ways = Ways(folder, up.json, rules)
        keys = {"event_id": "S", "fleet": "S", "written_ms": "N"}
        create = {
            "IndexName": INDEX,
            "KeySchema": [
                {"AttributeName": "fleet", "KeyType": "HASH"},
                {"AttributeName": "written_ms", "KeyType": "RANGE"},
            ],
            "Projection": {"ProjectionType": "ALL"},
        }
        ways.dynamodb.update_table(
            TableName=TABLE,
            AttributeDefinitions=[{"AttributeName": name, "AttributeType": kind} for name, kind in keys.items()],
            GlobalSecondaryIndexUpdates=[{"Create": create}],
        )
        yield ways
    finally:
        local("down", "--dir", folder / "stack")


def item(number: int, rng: random.Random) -> dict[str, Any]:
    """Telemetry of one fleet, with the time of its writing."""
    now_ms = time.time_ns() // 1_000_000
    telemetry = telemetry_item(rng, now_ms, event_id=f"event-{number}")
    return to_dynamodb({**telemetry, "fleet": f"fleet-{number % FLEETS}", "written_ms": now_ms})


def write_changes(ways: Ways, count: int, seed: int) -> set[str]:
    """Inserts, updates and deletes, in batches of different keys; the keys of items that are gone in the end."""
    rng = random.Random(seed)
    dynamodb = ways.dynamodb
    made = 0
    gone: set[int] = set()
    written = 0
    while written < count:
        batch: dict[int, dict[str, Any]] = {}
        while len(batch) < min(25, count - written):
            known, roll = rng.randrange(made) if made else 0, rng.random()
            if roll >= 0.3 or not made:
                known, made = made, made + 1
            elif known in batch or known in gone:
                continue
            if roll < 0.1 and known not in batch and known < made - 25:
                batch[known] = {"DeleteRequest": {"Key": {"event_id": {"S": f"event-{known}"}}}}
                gone.add(known)
            else:
                batch[known] = {"PutRequest": {"Item": item(known, rng)}}
        answer = dynamodb.batch_write_item(RequestItems={TABLE: list(batch.values())})
        assert not answer.get("UnprocessedItems")
        written += len(batch)
    return {json.dumps({"event_id": f"event-{number}"}, separators=(",", ":")) for number in gone}

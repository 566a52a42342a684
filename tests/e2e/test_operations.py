"""A table's life by its commands: first load under writes, replay, a late dead letter, rebuild and promotion, repair.

As a user runs them, on the stack's real parts. LAKESTREAM_OPERATIONS_ITEMS sets how many items the first load meets:
20000 is the size it is made for.
"""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import yaml
from deltalake import DeltaTable, QueryBuilder
from deltalake.exceptions import CommitFailedError, TableNotFoundError

from bridge_lambda.dead_letters import dead_letter
from bridge_lambda.errors import PoisonRecordError
from config.rules import TABLES
from config.settings import load_settings
from config.tables import load_tables
from infra.local.emulator import Clients
from infra.local.telemetry import telemetry_item, to_dynamodb
from streaming_job.operations.maintain import Maintenance
from streaming_job.pipeline.batch import now_ms
from streaming_job.pipeline.opening import Tables
from tests.support.local_stack import clients_of

pytestmark = [pytest.mark.stack, pytest.mark.spark, pytest.mark.timeout(1_800)]

LAKESTREAM = Path(sys.executable).parent / "lakestream"
TABLE = "chargeminder-car-telemetry"
ITEMS = int(os.environ.get("LAKESTREAM_OPERATIONS_ITEMS", "800"))
RATE = 20
PATIENCE_S = 240
HOUR_MS = 3_600_000


def lakestream(*arguments: str | Path, exit_code: int = 0) -> Any:
    done = subprocess.run([LAKESTREAM, *arguments, "--json"], capture_output=True, text=True, check=False, timeout=900)
    assert done.returncode == exit_code, f"{arguments} ended with {done.returncode}: {done.stderr[-2000:]}"
    return json.loads(done.stdout)


def wait_for(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, f"after {PATIENCE_S} s: {what}"
        time.sleep(0.2)


@dataclass
class Lake:
    """The stack without its job, the job's own configuration, and what stands in the tables."""

    home: Path
    clients: Clients
    bucket: str
    jobs: "list[subprocess.Popen[bytes]]" = field(default_factory=list)

    @property
    def config(self) -> Path:
        return self.home / "job.yaml"

    def command(self, *arguments: str, exit_code: int = 0) -> Any:
        return lakestream(*arguments, "--config", self.config, exit_code=exit_code)

    def table(self, part: str) -> DeltaTable:
        return DeltaTable(str(self.home / "lake" / "car_telemetry" / part))

    def select(self, part: str, sql: str) -> list[dict[str, Any]]:
        found = QueryBuilder().register("t", self.table(part)).execute(sql).read_all()
        rows: list[dict[str, Any]] = pa.table(found).to_pylist()
        return rows

    def changes(self) -> int:
        """In history, of the stream."""
        try:
            (row,) = self.select("history", "SELECT count(*) AS n FROM t WHERE _op <> 'SNAPSHOT'")
        except TableNotFoundError:
            return 0
        return int(row["n"])

    def fingerprint(self) -> dict[str, str]:
        """Of all rows' versions and digests."""
        wanted = {"current": "_key, _seq, _digest, _row_digest, _deleted", "history": "_key, _seq, _digest, _new"}
        rows = {part: self.select(part, f"SELECT {names} FROM t ORDER BY _key, _seq") for part, names in wanted.items()}  # noqa: S608 - a test's
        return {part: sha256(json.dumps(found).encode()).hexdigest() for part, found in rows.items()}

    def verify(self, *, exit_code: int = 0) -> dict[str, Any]:
        report: dict[str, Any] = self.command("verify", exit_code=exit_code)[TABLE]
        return report

    @contextmanager
    def load(self, seconds: int) -> Iterator[list[int]]:
        """Writes under way meanwhile; afterwards, how many they were."""
        arguments = ["--dir", self.home, "--rate", str(RATE), "--seconds", str(seconds), "--json"]
        running = subprocess.Popen([LAKESTREAM, "local", "load", *arguments], stdout=subprocess.PIPE, text=True)
        sent: list[int] = []
        try:
            yield sent
        finally:
            running.send_signal(signal.SIGINT)
            output, _ = running.communicate(timeout=60)
        summary = json.loads(output)
        assert summary["errors"] == 0
        sent.append(summary["sent_total"])

    def start_job(self) -> "subprocess.Popen[bytes]":
        log = (self.home / "job.log").open("ab")
        self.jobs.append(subprocess.Popen([LAKESTREAM, "run", "--config", self.config], stdout=log, stderr=log))
        return self.jobs[-1]


@pytest.fixture
def lake(tmp_path: Path) -> Iterator[Lake]:
    """Deletes are purged an hour after their commit."""
    facts = lakestream("local", "up", "--no-job", "--dir", tmp_path)
    try:
        rules = tmp_path / "tables"
        rules.mkdir()
        said = yaml.safe_load((TABLES / f"{TABLE}.yaml").read_text())
        said["lake"]["deletes"] = {"policy": "hard", "window_h": 1}
        (rules / f"{TABLE}.yaml").write_text(yaml.safe_dump(said))
        shutil.copy(TABLES / f"{TABLE}.sample.json", rules)
        content = {
            "aws": {"region": facts["region"], "endpoint": facts["aws_endpoint"]},
            "source": {"stream": facts["stream"]},
            "lake": {"root": str(tmp_path / "lake"), "checkpoint": str(tmp_path / "checkpoint")},
            "bucket": {"name": facts["bucket"], "archive_prefix": facts["archive_prefix"]},
            "tables": [TABLE],
            "tables_dir": str(rules),
            "intake": {"look_every_s": 1},
        }
        (tmp_path / "job.yaml").write_text(yaml.safe_dump(content))
        lake = Lake(tmp_path, clients_of(facts), facts["bucket"])
        yield lake
        for job in lake.jobs:
            job.kill()
            job.wait()
    finally:
        lakestream("local", "down", "--dir", tmp_path)


def write_items(clients: Clients, count: int) -> None:
    dynamodb, rng = clients("dynamodb"), random.Random(5)
    for start in range(0, count, 25):
        items = [telemetry_item(rng, now_ms(), event_id=f"first-{n:06d}") for n in range(start, min(start + 25, count))]
        requests = [{"PutRequest": {"Item": to_dynamodb(item)}} for item in items]
        answer = dynamodb.batch_write_item(RequestItems={TABLE: requests})
        assert not answer.get("UnprocessedItems")


def test_a_table_is_loaded_replayed_rebuilt_promoted_repaired_and_never_brings_back_what_was_purged(
    lake: Lake,
) -> None:
    write_items(lake.clients, ITEMS)
    job = lake.start_job()
    # First load, under writes, while the job catches up with the very items.
    with lake.load(seconds=600) as sent:
        wait_for(lambda: lake.changes() > 0, "no change reached the lake")
        loaded = lake.command("snapshot")
    assert loaded["items"] >= ITEMS
    written = ITEMS + sent[0]
    wait_for(lambda: lake.changes() == written, f"{written} changes were made")

    # The job is killed; everything that the stream keeps comes once more, and changes nothing.
    event, deleted_ms = deleted_item(lake)
    written += 2
    wait_for(lambda: lake.changes() == written, f"{written} changes were made")
    job.kill()
    job.wait()
    before = lake.fingerprint()
    replayed = lake.command("replay", "--from", "trim-horizon")
    assert replayed["replayed"] >= written, "the stream may hold a change more often than once"
    assert replayed["new_in_history"] == 0
    assert lake.fingerprint() == before

    # Its tombstone gone, an event from before the delete comes out of the dead letters, and brings nothing back.
    purge(lake)
    assert rows_of(lake, event) == []
    put_dead_letter(lake, event, deleted_ms)
    job = lake.start_job()
    assert lake.command("redrive")["redriven"] == 1
    written += 1
    wait_for(lambda: lake.changes() == written, "the redriven event did not reach history")
    assert rows_of(lake, event) == []

    # Rebuilt beside the old one and promoted, under writes, by a job that is not stopped for it.
    with lake.load(seconds=900) as more:
        wait_for(lambda: lake.changes() > written, "the job does not go on")
        rebuilt = lake.command("rebuild", TABLE)
        assert rebuilt["verify"]["equal"], rebuilt
        assert rebuilt["written_by"].startswith("job "), rebuilt
        promoted = lake.command("promote")
        assert promoted["promoted"], promoted
    written += more[0]
    wait_for(lambda: lake.changes() == written, f"{written} changes were made")
    assert job.poll() is None
    commits = [entry.get("operationParameters", {}) for entry in lake.table("current").history()]
    assert sum(how.get("mode") == "Overwrite" and "predicate" not in how for how in commits) == 1

    # A column altered by hand is the one difference there is, and is mended.
    key = altered(lake)
    found = lake.verify(exit_code=5)
    counts = {name: found[name] for name in ("missing", "extra", "stale", "different", "unproven")}
    assert counts == {"missing": 0, "extra": 0, "stale": 0, "different": 1, "unproven": 0}
    assert found["examples"]["different"] == [key]
    repaired = lake.command("replay", "--from", "archive", "--repair", key)
    assert repaired["replaced_in_current"] >= 1
    assert lake.verify()["equal"]
    job.terminate()
    assert job.wait(timeout=120) == 0, (lake.home / "job.log").read_text()[-2000:]


def altered(lake: Lake) -> str:
    """Somebody writes to `current` beside the job; the key of the row."""
    (row,) = lake.select("current", "SELECT _key FROM t WHERE _key LIKE '%first-000007%'")

    def is_altered() -> bool:
        """Not where the job's upkeep committed meanwhile."""
        with suppress(CommitFailedError):
            lake.table("current").update(new_values={"vehicle_make": "Trabant"}, predicate=f"_key = '{row['_key']}'")
            return True
        return False

    wait_for(is_altered, "the row cannot be altered")
    return str(row["_key"])


def deleted_item(lake: Lake) -> tuple[str, int]:
    """Written and deleted again: its name, and when."""
    dynamodb, event = lake.clients("dynamodb"), "purged-item"
    item = to_dynamodb(telemetry_item(random.Random(1), now_ms(), event_id=event))
    dynamodb.put_item(TableName=TABLE, Item=item)
    dynamodb.delete_item(TableName=TABLE, Key={"event_id": {"S": event}})
    deleted_ms = now_ms()
    wait_for(lambda: [row["_deleted"] for row in rows_of(lake, event)] == [True], "no tombstone")
    return event, deleted_ms


def purge(lake: Lake) -> None:
    """Upkeep as if hours had gone by, while no job runs."""
    settings = load_settings(lake.config)
    config = load_tables(settings.tables_dir)[TABLE]

    def no_spark() -> Any:
        raise AssertionError("engine rust by path needs none")

    later = Maintenance(settings, Tables(settings, no_spark), clock=lambda: now_ms() + 3 * HOUR_MS, wait_s=0)
    list(later.run([config]))


def rows_of(lake: Lake, event: str) -> list[dict[str, Any]]:
    return lake.select("current", f'SELECT _key, _deleted FROM t WHERE _key = \'{{"event_id":"{event}"}}\'')  # noqa: S608 - a test's


def put_dead_letter(lake: Lake, event: str, deleted_ms: int) -> None:
    """As the bridge leaves it: the item's first version, which it could not send at the time."""
    arn = lake.clients("dynamodb").describe_table(TableName=TABLE)["Table"]["LatestStreamArn"]
    image = to_dynamodb(telemetry_item(random.Random(1), now_ms(), event_id=event))
    record = {
        "eventID": "late",
        "eventName": "INSERT",
        "eventSourceARN": arn,
        "dynamodb": {
            "ApproximateCreationDateTime": deleted_ms // 1000 - 5,
            "Keys": {"event_id": {"S": event}},
            "NewImage": image,
            "SequenceNumber": "1",
        },
    }
    parked = dead_letter(record, PoisonRecordError("unknown-table", "no rules yet", hint=""), now_ms())
    lake.clients("s3").put_object(Bucket=lake.bucket, Key=parked.name, Body=parked.body)

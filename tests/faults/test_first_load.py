"""A first load of a real table into real tables, while it is written, deleted from and inserted into again.

LAKESTREAM_SNAPSHOT_CHANGES sets how many changes are made meanwhile.
"""

import json
import os
import random
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import yaml
from lake_rig import LakeRig, table_config
from local_workers import REGION, Aws, running_emulator
from pyspark.sql import SparkSession

from bridge_lambda.envelope import encode_change
from config.errors import ConfigurationError
from streaming_job.aws import client
from streaming_job.operations.handing_over import Delivery
from streaming_job.operations.lake_past import past_of
from streaming_job.operations.lake_rows import SparkLakeRows
from streaming_job.operations.snapshot import Snapshot, Written
from streaming_job.operations.snapshot_load import Plan, Request, hand_all_over, plan
from streaming_job.operations.snapshot_proof import NotProvenError
from streaming_job.operations.source_rules import source_rules
from streaming_job.operations.source_stream import ShardReader, shards_of
from streaming_job.operations.verify import Options, Report, Verification
from streaming_job.pipeline.intake import Intake
from streaming_job.pipeline.locations import Lake

pytestmark = [pytest.mark.spark, pytest.mark.stack]

ITEMS = 400
CHANGES = int(os.environ.get("LAKESTREAM_SNAPSHOT_CHANGES", "600"))


@pytest.fixture(scope="module")
def aws(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Aws]:
    with running_emulator(tmp_path_factory.mktemp("emulator")) as running:
        running("s3").create_bucket(Bucket="first-load")
        running.stream("changes")
        yield running


class Source:
    """The table, and the bridge's part: its stream as envelopes."""

    def __init__(self, aws: Aws, name: str) -> None:
        self.name = name
        self.dynamodb = aws("dynamodb")
        self.arn = aws.table(name)
        self._streams = aws("dynamodbstreams")
        self._readers: dict[str, ShardReader] = {}

    def put(self, key: str, value: int) -> None:
        self.dynamodb.put_item(TableName=self.name, Item={"id": {"S": key}, "value": {"N": str(value)}})

    def delete(self, key: str) -> None:
        self.dynamodb.delete_item(TableName=self.name, Key={"id": {"S": key}})

    def change(self, rng: random.Random) -> None:
        key = f"k{rng.randrange(ITEMS + 50):05d}"
        if rng.random() < 0.5:
            self.delete(key)
        if rng.random() < 0.7:
            self.put(key, rng.randrange(10**9))

    def new_envelopes(self, rules: Any) -> list[bytes]:
        """What came since the last call."""
        found = []
        for shard in shards_of(self._streams, self.arn):
            reader = self._readers.setdefault(shard, ShardReader(self._streams, self.arn, shard))
            reader.begin_again()
            while not reader.is_at_end:
                for record in reader.read():
                    change = encode_change({**record, "eventSourceARN": self.arn}, {self.name: rules}, 0, "first-load")
                    assert change is not None
                    found.append(change.line(0))
        return found


@pytest.fixture
def source(aws: Aws, request: pytest.FixtureRequest) -> Source:
    return Source(aws, f"things-{abs(hash(request.node.name)) % 10**8}")


@pytest.fixture
def rig(spark: SparkSession, lake: Path, aws: Aws, source: Source, tmp_path: Path) -> LakeRig:
    table = table_config().model_copy(update={"table": source.name})
    rules = tmp_path / "rules"
    rules.mkdir()
    (rules / "things.yaml").write_text(yaml.safe_dump(json.loads(table.model_dump_json(exclude_defaults=True))))
    return LakeRig(
        spark,
        lake,
        table,
        aws={"region": REGION, "endpoint": aws.endpoint},
        source={"stream": "changes"},
        bucket={"name": "first-load"},
        tables_dir=str(rules),
    )


def planned(rig: LakeRig, source: Source, tmp_path: Path, *, is_resumed: bool = False) -> Plan:
    request = Request(segments=3, is_resumed=is_resumed, wait_s=0, state_file=tmp_path / "state.json")
    config = rig.tables[source.name]
    return plan(rig.settings, config, request, past_of(rig.settings, config, ExitStack()))


def verified(rig: LakeRig, source: Source) -> Report:
    config = rig.tables[source.name]
    rows = SparkLakeRows(rig.spark, Lake(rig.settings.lake).of(config))
    rules = source_rules(rig.settings, source.name)
    return Verification(source.dynamodb, config, rules, rows, Options(settle_s=5)).run()


def test_what_is_written_deleted_and_inserted_again_during_a_first_load_ends_right(
    rig: LakeRig, source: Source, tmp_path: Path
) -> None:
    """Changes go on in a thread from before the Scan begins to after it ended. Some of their envelopes are taken in
    before the scanned rows, the others after; the load is cut off once and resumed.
    """
    rules = source_rules(rig.settings, source.name)
    for number in range(ITEMS):
        source.put(f"k{number:05d}", number)
    rig.run(source.new_envelopes(rules)[: ITEMS // 2])
    rng, scanned = random.Random(11), threading.Event()

    def write() -> None:
        made = 0
        while made < CHANGES or not scanned.is_set():
            source.change(rng)
            made += 1

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for cut_off_at in (1, None):
            made = planned(rig, source, tmp_path, is_resumed=cut_off_at is None)
            if load(rig, made, cut_off_at):
                break
    finally:
        scanned.set()
        writer.join()
    rig.run(source.new_envelopes(rules))
    report = verified(rig, source)
    assert report.equal, report
    assert report.source_items > ITEMS // 2


class SmallObjects(Plan):
    def snapshot(self, written: Written) -> Snapshot:
        snapshot = super().snapshot(written)
        snapshot.rows_max = 50
        return snapshot


def load(rig: LakeRig, made: Plan, cut_off_at: int | None) -> bool:
    """Into the tables; False where it was cut off after so many objects."""
    intake, state = Intake.of(rig.settings), made.state
    with Delivery(
        rig.settings, rig.tables, intake, state.id, name="lakestream snapshot", spark=rig.spark, clock=rig.clock
    ) as delivery:

        def handed() -> None:
            if delivery.parts == cut_off_at:
                raise InterruptedError

        try:
            hand_all_over(SmallObjects(**vars(made)), delivery, handed)
        except InterruptedError:
            return False
        delivery.wait()
    return True


def test_a_first_load_waits_for_proof_that_the_stream_is_read(rig: LakeRig, source: Source, tmp_path: Path) -> None:
    """Nothing has reached the lake and nothing reads the stream; then one change has."""
    source.put("a", 1)
    with pytest.raises(NotProvenError, match="no event source mapping or pipe reads the stream"):
        planned(rig, source, tmp_path)
    rig.run(source.new_envelopes(source_rules(rig.settings, source.name)))
    assert planned(rig, source, tmp_path).proof == "a change of the stream has reached the lake"


def test_one_snapshot_at_a_time_and_a_state_of_another_time_is_not_gone_on_with(
    rig: LakeRig, source: Source, tmp_path: Path
) -> None:
    source.put("a", 1)
    rig.run(source.new_envelopes(source_rules(rig.settings, source.name)))
    made = planned(rig, source, tmp_path)
    made.state.keep(tmp_path / "state.json")
    with pytest.raises(ConfigurationError, match="a snapshot was begun and is not done"):
        planned(rig, source, tmp_path)
    made.state.generation = "20200101000000000"
    made.state.keep(tmp_path / "state.json")
    with pytest.raises(ConfigurationError, match="has generation 20200101000000000, now it is"):
        planned(rig, source, tmp_path, is_resumed=True)
    assert (
        client(rig.settings.aws, "s3").list_objects_v2(Bucket="first-load", Prefix=f"snapshot/{made.state.id}")[
            "KeyCount"
        ]
        == 0
    )

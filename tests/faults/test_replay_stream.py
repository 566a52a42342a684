"""A replay from a real stream, by the job's own source, into real tables."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from deltalake import DeltaTable
from envelopes import put, remove
from lake_rig import LakeRig, table_config
from pyspark.sql import SparkSession

from streaming_job.operations.handing_over import Delivery, Total
from streaming_job.operations.replay import Replay, Sieve
from streaming_job.operations.replay_stream import StreamMaterial
from streaming_job.pipeline.intake import Intake
from tests.faults.kinesis_servers import REGION

pytestmark = [pytest.mark.spark, pytest.mark.stack]

CHANGES = [put("a", 1, x=1), put("b", 2, x=1), put("a", 3, x=2), remove("b", 4), put("c", 5, x="text")]


def tables(rig: LakeRig) -> list[list[dict[str, Any]]]:
    """`current` and `history`, but for when they arrived and were written."""
    times = ("_arrival_ms", "_ingest_ts")
    return [
        [{name: value for name, value in row.items() if name not in times} for row in rig.rows(f"things/{part}")]
        for part in ("current", "history")
    ]


@pytest.fixture
def stream(kinesis_endpoint: str, new_stream: Callable[[str, int], str], kinesis: Any) -> str:
    """Two shards of changes, one of them twice, and a record that is no envelope."""
    name = new_stream(kinesis_endpoint, 2)
    records = [(change.key_text, change.line()) for change in [*CHANGES, CHANGES[0]]] + [("junk", b"\xff junk\n")]
    kinesis.put_records(StreamName=name, Records=[{"PartitionKey": key, "Data": data} for key, data in records])
    return name


@pytest.fixture
def rig(spark: SparkSession, lake: Path, kinesis_endpoint: str, stream: str) -> LakeRig:
    return LakeRig(
        spark,
        lake,
        table_config(),
        aws={"region": REGION, "endpoint": kinesis_endpoint},
        source={"stream": stream},
    )


def replayed(rig: LakeRig, number: int) -> Total:
    intake, of_id = Intake.of(rig.settings), f"replay-{number}"
    sieve = Sieve({"things": "1"})
    material = StreamMaterial(rig.spark, rig.settings, intake, of_id, "trim_horizon", lambda *_: None)
    replay = Replay(material, sieve, at_ms=number, gaps_since_ms=0)
    with Delivery(
        rig.settings, rig.tables, intake, of_id, name="lakestream replay", spark=rig.spark, clock=rig.clock
    ) as delivery:
        pieces = replay.pieces(lambda _: {}, {})
        return replay.hand_over(delivery, pieces)


def test_a_replay_of_everything_changes_nothing_and_brings_back_what_is_missing(rig: LakeRig) -> None:
    """Of a whole lake, then of one that lost a key from `history` and `current`."""
    rig.run(CHANGES)
    whole = tables(rig)
    total = replayed(rig, 1)
    assert (total.rows, total.history_inserted, total.current_inserted, total.current_updated) == (6, 0, 0, 0)
    assert tables(rig) == whole
    for part in ("current", "history"):
        DeltaTable(rig.path(f"things/{part}")).delete('_key = \'{"id":"a"}\'')
    total = replayed(rig, 2)
    assert (total.history_inserted, total.current_inserted, total.rejects) == (2, 1, 0)
    assert tables(rig) == whole

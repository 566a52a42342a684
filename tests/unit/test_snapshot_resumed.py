"""A first load that is killed and gone on with, beside a job that takes in what was handed over, all in memory."""

import json
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
import pytest
from first_load import GENERATION, RULES, TABLE, ChangingTable, Store, item
from lake_rig import KilledError, settings_for, table_config

from config.settings import IntakeSettings
from streaming_job.objects import Bucket
from streaming_job.operations.handing_over import Delivery
from streaming_job.operations.snapshot import Part, Snapshot, State, Written
from streaming_job.operations.snapshot_load import Plan, hand_all_over, scanned
from streaming_job.operations.snapshot_proof import Estimate
from streaming_job.operations.source_scan import CapacityBudget
from streaming_job.pipeline.batch import BatchReport
from streaming_job.pipeline.intake import Intake
from streaming_job.pipeline.intake_drain import Drain
from streaming_job.pipeline.intake_store import BucketStore, body_of, split

Keeping = Callable[[Callable[[], None]], None]
"""What happens about the keeping of the state, which it is given."""


@dataclass(frozen=True)
class SmallObjects(Plan):
    keeping: Keeping

    def snapshot(self, written: Written) -> Snapshot:
        snapshot = super().snapshot(written)
        snapshot.rows_max = 10
        keep = snapshot.keep
        snapshot.keep = lambda state: self.keeping(lambda: keep(state))
        return snapshot


@dataclass
class S3InMemory:
    store: Store

    def bucket(self, name: str) -> Bucket:
        return Bucket(self.store, name)

    def get(self, address: str) -> bytes | None:
        name, key = split(address)
        return body_of(self.bucket(name), key)


@dataclass
class FirstLoad:
    """Each run is a process of its own: nothing is left of it but bucket, intake and the file of its state."""

    folder: Path
    table: ChangingTable
    store: Store = field(default_factory=Store)
    keys: set[str] = field(default_factory=set)
    """In the lake."""

    def __post_init__(self) -> None:
        self.intake = Intake(BucketStore("bucket", "intake/", S3InMemory(self.store)))
        self.file = self.folder / "state"
        State("snapshot-1", TABLE, GENERATION, RULES.label, "scan", 1_000, {0: Part()}).keep(self.file)

    def run(self, keeping: Keeping = lambda keep: keep(), handed: Callable[[], None] = lambda: None) -> Delivery:
        state = State.load(self.file)
        made = SmallObjects(
            Bucket(self.store, "bucket"),
            RULES,
            state,
            "proven",
            Estimate(0, 0, 0, 24),
            lambda: scanned(self.table, state, CapacityBudget()),
            self.file,
            keeping,
        )
        delivery = self.delivery()
        hand_all_over(made, delivery, handed)
        return delivery

    def delivery(self) -> Delivery:
        settings = settings_for(self.folder, [TABLE])
        return Delivery(settings, {TABLE: table_config()}, self.intake, "snapshot-1", name="lakestream snapshot")

    def job(self) -> Drain:
        settings = IntakeSettings(slice_rows_max=5, look_every_s=0.001)
        return Drain(self.intake, {TABLE: table_config()}, self._take_in, settings)

    def _take_in(self, rows: pa.Table, *, repair: bool) -> BatchReport:
        assert not repair
        self.keys |= {json.loads(line)["key"]["id"] for line in rows["data"].to_pylist()}
        return BatchReport(-1, rows=rows.num_rows)


@pytest.fixture
def load(tmp_path: Path) -> FirstLoad:
    table = ChangingTable(random.Random(7), {f"k{n:05d}": item(f"k{n:05d}", n) for n in range(45)})
    return FirstLoad(tmp_path, table)


def take_in_all(job: Drain) -> None:
    for _ in range(100):
        job.step(is_quiet=True)


def killed_before(_keep: Callable[[], None]) -> None:
    raise KilledError


def killed_after(keep: Callable[[], None]) -> None:
    keep()
    raise KilledError


@dataclass
class KilledAt:
    """When so many pieces were handed over."""

    left: int

    def __call__(self) -> None:
        self.left -= 1
        if self.left == 0:
            raise KilledError


@pytest.mark.parametrize("killed", [killed_before, killed_after])
def test_killed_about_the_keeping_of_its_state_it_misses_no_item_though_the_table_changes(
    load: FirstLoad, killed: Keeping
) -> None:
    """The job takes in at once what was handed over, and the first item is deleted: read anew, an object of the same
    name holds others. What is written and not handed over is handed over by the next run.
    """
    with pytest.raises(KilledError):
        load.run(killed)
    job = load.job()
    take_in_all(job)
    load.table.delete("k00000")
    delivery = load.run()
    take_in_all(job)
    assert load.keys >= load.table.items.keys()
    assert delivery.standing().taken_in == delivery.standing().handed_over == 5


def test_every_piece_is_taken_in_when_a_load_goes_on_while_the_job_has_one_of_its_pieces_in_hand(
    load: FirstLoad,
) -> None:
    """Killed at the second of five, which the job has half of: what is handed over now must not take its place."""
    with pytest.raises(KilledError):
        load.run(handed=KilledAt(2))
    job = load.job()
    while len(load.keys) < 15:
        job.step(is_quiet=True)
    delivery = load.run()
    take_in_all(job)
    assert delivery.standing().taken_in == delivery.standing().handed_over == 5
    assert load.keys == load.table.items.keys()
    assert load.intake.waiting() == []

"""What a person runs beside the job: redrive of letters and rejects, and a snapshot; the product's own code."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from bridge_lambda.envelope import encode_snapshot
from bridge_lambda.errors import BridgeError
from bridge_lambda.publisher import Entry, publish
from config.errors import LakestreamError
from streaming_job.operations.redrive import Redrive
from streaming_job.operations.redrive_letters import Letters, Place
from streaming_job.operations.redrive_rejects import Receipts, RedriveRejects, Reject
from tests.simulation.bridge import SimBridge
from tests.simulation.clock import MachineClock
from tests.simulation.errors import KilledError
from tests.simulation.lake import Lake
from tests.simulation.model import Model
from tests.simulation.storage import BUCKET, FAILED_BATCHES, SimS3
from tests.simulation.table import SourceTable

_PATIENCE_MS = 60_000


class LakeRejects:
    """The lake's rejects as redrive reads them."""

    def __init__(self, lake: Lake) -> None:
        self._lake = lake

    def rows(self) -> Iterator[Reject]:
        for reject in list(self._lake.rejects.values()):
            yield Reject(reject.sha256, reject.reason, None, reject.record.data)


@dataclass
class Operator:
    """One person's machine."""

    clock: MachineClock
    bridge: SimBridge
    s3: SimS3
    lake: Lake
    model: Model
    letters: type[Letters] = Letters

    def redrive(self) -> int:
        """How many letters are done; an interruption leaves the rest for the next time."""
        run = Redrive(
            letters=self.letters(self.s3, [Place(BUCKET, "dead-letters/"), Place(FAILED_BATCHES, "")]),
            tables={} if self.bridge.rules_are_missing else dict(self.bridge.rules),
            publisher=self.bridge.publisher(self.clock),
            store=self.bridge.store(),
            bucket=BUCKET,
            clock=self.clock,
        )
        try:
            run.run()
        except (LakestreamError, BridgeError, KilledError):
            self.s3.seen_faults["redrive: interrupted"] += 1
        return run.report.redriven

    def redrive_rejects(self, *, again: bool = False) -> int:
        run = RedriveRejects(
            rejects=LakeRejects(self.lake),
            receipts=Receipts(self.s3, BUCKET),
            publisher=self.bridge.publisher(self.clock),
            clock=self.clock,
            again=again,
        )
        try:
            run.run()
        except (LakestreamError, BridgeError, KilledError):
            self.s3.seen_faults["redrive of rejects: interrupted"] += 1
        return run.report.redriven


class Snapshot:
    """A scan, page by page, while the table goes on changing; begun again from its start when it is interrupted."""

    def __init__(self, table: SourceTable, operator: Operator) -> None:
        self._table = table
        self._operator = operator
        self._generation = table.stream.generation
        self._left = sorted(table.items)

    def step(self, count: int) -> bool:
        """Whether there is more to scan."""
        page, self._left = self._left[:count], self._left[count:]
        entries = list(self._entries(page))
        if entries and not self._sent(entries):
            self._left = sorted(self._table.items)
        return bool(self._left)

    def _entries(self, page: list[str]) -> Iterator[Entry]:
        table, operator = self._table, self._operator
        rules = operator.bridge.rules[table.name]
        for index, key in enumerate(page):
            item: Any = table.items.get(key)
            if item is None:
                continue
            operator.model.scan(table.name, self._generation, key, item)
            change = encode_snapshot(item, rules, self._generation, operator.clock.now_ms(), BUCKET)
            if change is not None:
                if change.claim is not None:
                    operator.s3.objects[BUCKET, change.claim.name] = change.claim.body
                yield Entry(index, change)

    def _sent(self, entries: list[Entry]) -> bool:
        clock = self._operator.clock
        deadline_ms = clock.elapsed_ms() + _PATIENCE_MS
        published = publish(
            entries,
            self._operator.bridge.publisher(clock),
            clock=clock,
            remaining_ms=lambda: deadline_ms - clock.elapsed_ms(),
            condemn=lambda _entry, error: _raise(error),
        )
        return published.unsent is None


def _raise(error: BridgeError) -> None:
    raise error

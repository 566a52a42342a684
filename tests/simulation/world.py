"""The whole path in one process: table, mappings, bridge, Kinesis, job, archive, and the person beside them."""

import random
from collections import Counter
from random import Random
from typing import Final

from infra.local.mapping.lane import Policy
from tests.simulation.bridge import SimBridge, listen
from tests.simulation.clock import HOUR_MS, HandClock, MachineClock
from tests.simulation.decoder import Change
from tests.simulation.destination import FailedBatches
from tests.simulation.job import Job
from tests.simulation.lake import Row
from tests.simulation.mapping import Disk, SimMapping, Wiring
from tests.simulation.model import Model
from tests.simulation.observations import Journal, LossAccepted, Merged, Remembered
from tests.simulation.operations import Operator, Snapshot
from tests.simulation.parts import Parts
from tests.simulation.scenario import Scenario
from tests.simulation.source import SteppedReader
from tests.simulation.storage import SimS3
from tests.simulation.table import SourceTable, TableStream

_BEGAN_MS: Final = 1_800_000_000_000
PURGE_WINDOW_MS: Final = 20_000
_MAPPINGS_OF_A_STREAM_MAX: Final = 2


class World:
    def __init__(self, scenario: Scenario, parts: Parts) -> None:
        setup = scenario.setup
        rng = Random(scenario.seed)
        self.setup = setup
        self.parts = parts
        self.journal: Journal = []
        self.clock = HandClock(_BEGAN_MS + rng.randrange(HOUR_MS))
        self.bridge_clock, self.job_clock, self.person_clock = (MachineClock(self.clock) for _ in range(3))
        self.model = Model({rules.table: rules for rules in setup.rules})
        self.faults: Counter[str] = Counter()
        listen(self.journal)
        self.s3 = SimS3(self.journal)
        self.kinesis = parts.kinesis.of(
            setup.kinesis_shards,
            first_sequence=setup.kinesis_first_sequence,
            clock=self.clock,
            page=setup.kinesis_page,
            journal=self.journal,
        )
        self.bridge = SimBridge(
            clock=self.bridge_clock,
            kinesis=self.kinesis,
            s3=self.s3,
            rules={rules.table: parts.change_rules(rules.for_bridge()) for rules in setup.rules},
            journal=self.journal,
            process=parts.process,
            wrap_publisher=parts.wrap_publisher,
            wrap_store=parts.wrap_store,
        )
        keys = {rules.table: rules.key for rules in setup.rules}
        self.lake = parts.lake(keys, self.s3, self.job_clock.now_ms, self)
        self.job = Job(
            self.lake,
            self._open_reader,
            self.journal,
            horizon_ms=self.kinesis.trimmed_before_ms,
            now_ms=self.job_clock.now_ms,
            query=parts.query,
        )
        self.delivery = parts.delivery(self.kinesis, self.journal)
        self.person = Operator(self.person_clock, self.bridge, self.s3, self.lake, self.model, parts.letters)
        self.failed_batches = FailedBatches(self.s3, self.clock, is_kept=parts.discards_are_kept)
        self.mappings: list[SimMapping] = []
        self.snapshots: list[Snapshot] = []
        self.losses_ms: list[int] = []
        """What had arrived before and was unread, a person let go."""
        self.begun_ms: dict[str, int] = {}
        """Of each shard, what arrived before was trimmed when the query first read it."""
        self.tables = [SourceTable(rules, self.clock, self.model, rng) for rules in setup.rules]
        for table in self.tables:
            for number in range(setup.items_before):
                table.seed(number)
            self.map(table.stream)

    # --- the parts in motion ------------------------------------------------------------------------------------------

    def map(self, stream: TableStream) -> None:
        setup = self.setup
        wiring = Wiring(
            stream=stream,
            invoke=self.bridge.invoke,
            send=self.failed_batches.send,
            finished=self.model.finish,
            trimmed=self.model.trim,
            policy=Policy(
                batch_records_max=setup.batch_records,
                window_s=0,
                bisect=setup.bisect,
                retries_max=setup.retries_max,
                age_max_s=-1,
                report_failures=True,
                backoff_first_s=0.5,
                backoff_longest_s=30,
            ),
            parallelization=setup.parallelization,
            clock=self.clock,
            journal=self.journal,
            lane=self.parts.lane,
            checkpoint=self.parts.checkpoint,
        )
        self.mappings.append(SimMapping(len(self.mappings), wiring, Disk()))

    def map_again(self, stream: TableStream) -> None:
        """A second mapping on the same stream: a deployment that overlaps, a mistake."""
        if sum(mapping.wiring.stream is stream for mapping in self.mappings) < _MAPPINGS_OF_A_STREAM_MAX:
            self.faults["two mappings at once"] += 1
            self.map(stream)

    def begin_action(self, rng: Random) -> None:
        """What the product draws for itself - jitter - is drawn from the action's seed too."""
        random.seed(rng.randrange(2**31))

    def pass_time(self, ms: int) -> None:
        self.clock.sleep_ms(ms)

    def accept_loss(self) -> None:
        """A person's answer to a job that refuses: the archive once more, then a new checkpoint."""
        if self.job.refusal is None:
            return
        self.journal.append(LossAccepted())
        self.losses_ms.append(self.kinesis.trimmed_before_ms())
        self.job.refusal = None
        self.job.query.begin_anew()
        self.replay(Random(0))

    def replay(self, rng: Random) -> None:
        lines = [line + b"\n" for lines in self.delivery.objects for line in lines.splitlines()]
        self.job.replay(lines, rng)

    def _open_reader(self) -> SteppedReader:
        given = {**dict(self.setup.source), **self.parts.options}
        reader = self.parts.reader(given, self.kinesis, self.job_clock, Random(self.clock.ms))
        reader.prefetcher = self.parts.prefetcher
        return reader

    # --- what the lake tells ------------------------------------------------------------------------------------------

    def remembered(self, change: Change) -> None:
        self.journal.append(Remembered(change))

    def merged(self, table: str, key: str, before: Row | None, after: Row | None) -> None:
        self.journal.append(Merged(table, key, before, after))

    def is_in_place(self, line: bytes) -> bool:
        """History has the change, and its row is as new; of a removal the row may be purged since."""
        change = self.lake.decode(line)
        if not isinstance(change, Change):
            return False
        table = self.lake.tables[change.table]
        row = table.current.get(change.key)
        is_as_new = change.op == "REMOVE" if row is None else row.seq >= change.seq
        return is_as_new and (change.key, change.seq) in table.known

    def is_rejected(self, line: bytes) -> bool:
        return any(reject.record.data == line for reject in self.lake.rejects.values())

    # --- the end ------------------------------------------------------------------------------------------------------

    def all_faults(self) -> Counter[str]:
        seen = self.faults + self.kinesis.seen_faults + self.s3.seen_faults
        return seen + self.bridge.seen_faults + self.job.seen_faults + self.failed_batches.seen_faults

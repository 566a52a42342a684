"""The parts of the world that a planted bug replaces; by default each is the product's own or the reference."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from bridge_lambda import handler
from bridge_lambda.dead_letters import ObjectStore
from bridge_lambda.publisher import RecordPublisher
from bridge_lambda.rules import TableRules
from infra.local.mapping.checkpoint import Checkpoint
from infra.local.mapping.lane import Lane
from streaming_job.operations.redrive_letters import Letters
from tests.simulation.archive import Delivery
from tests.simulation.bridge import Process
from tests.simulation.kinesis import SimKinesis
from tests.simulation.lake import Lake
from tests.simulation.source import Query, SteppedPrefetcher, SteppedReader


def same_publisher(publisher: RecordPublisher) -> RecordPublisher:
    return publisher


def same_store(store: ObjectStore) -> ObjectStore:
    return store


def same_rules(rules: TableRules) -> TableRules:
    return rules


@dataclass(frozen=True)
class Parts:
    process: Process = handler.process
    wrap_publisher: Callable[[RecordPublisher], RecordPublisher] = same_publisher
    wrap_store: Callable[[ObjectStore], ObjectStore] = same_store
    change_rules: Callable[[TableRules], TableRules] = same_rules
    lane: type[Lane] = Lane
    checkpoint: type[Checkpoint] = Checkpoint
    discards_are_kept: bool = True
    kinesis: type[SimKinesis] = SimKinesis
    reader: type[SteppedReader] = SteppedReader
    prefetcher: type[SteppedPrefetcher] = SteppedPrefetcher
    options: Mapping[str, str] = field(default_factory=dict)
    query: type[Query] = Query
    lake: type[Lake] = Lake
    delivery: type[Delivery] = Delivery
    letters: type[Letters] = Letters

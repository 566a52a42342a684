"""A run as a value: how the world is set up, and what is done to it, step by step. Drawn from a seed, cut by shrinking."""

from dataclasses import dataclass
from random import Random

from tests.simulation.rules import Rules

_STEPS_MIN, _STEPS_MAX = 15, 90


@dataclass(frozen=True, slots=True)
class Action:
    """`kind` names one of `actions.KINDS`; `seed` draws whatever else it needs, so that no action disturbs another."""

    kind: str
    seed: int

    def __str__(self) -> str:
        return f"{self.kind} ({self.seed})"


@dataclass(frozen=True)
class Setup:
    rules: tuple[Rules, ...]
    keys: int
    items_before: int
    """Items from before there was a stream."""
    kinesis_shards: int
    kinesis_page: int
    kinesis_first_sequence: int
    batch_records: int
    parallelization: int
    bisect: bool
    retries_max: int
    source: tuple[tuple[str, str], ...]
    """Options of the Kinesis source."""


@dataclass(frozen=True)
class Scenario:
    seed: int
    setup: Setup
    steps: tuple[Action, ...]


def draw(seed: int, weights: dict[str, float]) -> Scenario:
    """Each run leaves some kinds of actions out and has much of others: rare meetings become likely somewhere."""
    rng = Random(seed)
    setup = _setup(rng)
    swarm = {kind: weight * rng.choice((0, 0.3, 1, 1, 3)) for kind, weight in weights.items()}
    for workload in ("put", "pump", "trigger"):
        swarm[workload] = max(swarm[workload], weights[workload])
    kinds = rng.choices(list(swarm), list(swarm.values()), k=rng.randrange(_STEPS_MIN, _STEPS_MAX))
    return Scenario(seed, setup, tuple(Action(kind, rng.randrange(2**31)) for kind in kinds))


def _setup(rng: Random) -> Setup:
    names = ("cars", "chargers")[: rng.choice((1, 1, 2))]
    return Setup(
        rules=tuple(_rules(rng, name) for name in names),
        keys=rng.choice((1, 2, 4, 8)),
        items_before=rng.choice((0, 0, 3)),
        kinesis_shards=rng.choice((1, 2, 3)),
        kinesis_page=rng.choice((2, 5, 10_000)),
        kinesis_first_sequence=10 ** rng.choice((20, 55)) - rng.randrange(1, 400),
        batch_records=rng.choice((1, 3, 10, 100)),
        parallelization=rng.choice((1, 1, 3)),
        bisect=rng.random() < 0.5,
        retries_max=rng.choice((-1, -1, 0, 3)),
        source=_source(rng),
    )


def _rules(rng: Random, table: str) -> Rules:
    return Rules(
        table=table,
        key={"id": "S", "sort": "N"} if rng.random() < 0.3 else {"id": "S"},
        masks=rng.random() < 0.5,
        keep_old_image=rng.random() < 0.7,
        filters=rng.random() < 0.3,
        purges=rng.random() < 0.5,
    )


def _source(rng: Random) -> tuple[tuple[str, str], ...]:
    given = {
        "maxRecordsPerTrigger": rng.choice(("1", "3", "20", "100000")),
        "maxBytesPerTrigger": rng.choice(("1kb", "8kb", "128mb")),
        "catchUpThreshold": rng.choice(("1s", "30s", "5m")),
        "shardFetchInterval": rng.choice(("1s", "10s", "60s")),
        "shardsPerTask": rng.choice(("1", "5")),
        "maxRetryDuration": rng.choice(("1s", "60s")),
    }
    if rng.random() < 0.2:
        given |= {"consumerMode": "efo", "registeredConsumerId": "job"}
    return tuple(sorted(given.items()))

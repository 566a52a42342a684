"""A run as a value: how the world is set up, and what is done to it. Drawn from a seed, cut by shrinking."""

from collections.abc import Mapping
from dataclasses import dataclass
from random import Random
from typing import Final

from tests.simulation.rules import Rules

_STEPS_MIN, _STEPS_MAX = 15, 90

THEMES: Final[Mapping[str, Mapping[str, float]]] = {
    "plain": {},
    "sending": {"put fault": 60, "invocation fault": 20, "late calls land": 15, "cut short": 15},
    "resharding": {"split": 10, "merge": 10, "restart job": 15, "kill job": 25, "read fault": 30},
    "crashing": {"kill job": 40, "older checkpoint": 12, "replay": 6, "kill mapping": 15, "kill delivery": 8},
    "deleting": {"delete": 40, "pump": 90, "trigger": 90, "wait": 30, "purge": 30, "older checkpoint": 8, "replay": 8},
    "claims": {"oversize": 6, "claim checks lost": 10, "s3 down": 6, "s3 up": 8, "redrive rejects": 8},
    "letters": {"poison": 10, "rules missing": 12, "kinesis refuses a key": 6, "redrive": 25, "s3 down": 4, "s3 up": 8},
    "parking": {"table down": 15, "tables up": 15, "kill job": 30, "pump": 90, "trigger": 90},
    "snapshots": {"snapshot": 8, "snapshot page": 25, "delete": 15, "stream anew": 6},
    "outages": {"wait long": 14, "accept loss": 8, "older checkpoint": 6, "restart job": 14, "trigger": 90},
}
"""Meetings that would be rare among everything else that can happen: each run has more of one of them."""


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
    theme: str
    setup: Setup
    steps: tuple[Action, ...]


def draw(seed: int, weights: dict[str, float]) -> Scenario:
    """Each run leaves some kinds of actions out and has much of others: rare meetings become likely somewhere."""
    rng = Random(seed)
    theme = rng.choice(list(THEMES))
    setup = _setup(rng, theme)
    swarm = {kind: weight * rng.choice((0, 0.3, 1, 1, 3)) for kind, weight in weights.items()}
    swarm |= THEMES[theme]
    for workload in ("put", "pump", "trigger"):
        swarm[workload] = max(swarm[workload], weights[workload])
    kinds = rng.choices(list(swarm), list(swarm.values()), k=rng.randrange(_STEPS_MIN, _STEPS_MAX))
    return Scenario(seed, theme, setup, tuple(Action(kind, rng.randrange(2**31)) for kind in kinds))


def _setup(rng: Random, theme: str) -> Setup:
    names = ("cars", "chargers")[: rng.choice((1, 1, 2))]
    return Setup(
        rules=tuple(_rules(rng, name, theme) for name in names),
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


def _rules(rng: Random, table: str, theme: str) -> Rules:
    return Rules(
        table=table,
        key={"id": "S", "sort": "N"} if rng.random() < 0.3 else {"id": "S"},
        masks=rng.random() < 0.5,
        keep_old_image=rng.random() < 0.7,
        filters=rng.random() < 0.3,
        purges=theme == "deleting" or rng.random() < 0.3,
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

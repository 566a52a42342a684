"""What a rate of changes needs, part by part, and which limit is met first: pure arithmetic.

A stack is a stream, a bridge and a job, as the template makes them, for some of the tables. Another one is what a job
that has reached its limit is relieved by: a table has one writer, so that one table stays within one stack.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final, Literal, get_args

from config.limits import (
    DYNAMODB_PARTITION_WRITE_UNITS_S_MAX,
    DYNAMODB_TABLE_WRITE_UNITS_S,
    KINESIS_ON_DEMAND_WRITE_BYTES_S,
    KINESIS_PROVISIONED_SHARDS,
    KINESIS_SHARD_WRITE_BYTES_S_MAX,
    LAMBDA_CONCURRENCY,
)
from streaming_job.operations.cost_forecast import (
    Load,
    StreamMode,
    Way,
    forecast,
    record_ms,
    shards_for,
    table_shards_for,
    write_units,
)
from streaming_job.operations.cost_prices import Prices
from streaming_job.operations.measured import BATCH_MS, BATCH_SPREAD, INVOCATION_MS, JOB_CORE_MS, JOB_SERIAL_MS
from streaming_job.operations.scale_simulation import Flow, Freshness, simulate

Place = Literal["AWS", "Databricks"]
ENGINE: Final[dict[Place, Literal["rust", "spark"]]] = {"AWS": "rust", "Databricks": "spark"}

BUSY_MAX: Final = 0.7
"""Of anything that is planned for: the rest is for bursts, for keys that do not spread, and to catch up."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Of each stack, but for `changes_s`, `stacks` and `usd_month`."""

    changes_s: float
    place: Place
    stacks: int
    table_shards: int
    """Of the table's stream: its partitions."""
    parallelization: int
    """The mapping's: how many invocations a shard may have at once."""
    stream_shards: int
    mode: StreamMode
    """Of the Kinesis stream: the cheaper."""
    cores: int
    """Of the job; with `spark`, of its executors."""
    nodes: int
    """Of the price table's instance; with `spark`, the driver too."""
    freshness: Freshness
    usd_month: float


@dataclass(frozen=True, slots=True)
class Limit:
    what: str
    changes_s: float
    """Where it is met."""
    lifted_by: str


def plan(load: Load, place: Place, prices: Prices) -> Plan:
    """A table a stack: `load.tables` says nothing here."""
    stacks = math.ceil(load.changes_s / job_changes_s())
    part = replace(load, changes_s=load.changes_s / stacks, tables=1)
    table_shards = table_shards_for(part)
    part = replace(part, table_shards=table_shards)
    way = Way(databricks=place == "Databricks")
    parallelization = math.ceil(part.changes_s / table_shards / _lane_changes_s(way))
    cores = max(prices.job.cores, math.ceil(part.changes_s * JOB_CORE_MS / 1000 / BUSY_MAX))
    fresh = simulate(
        Flow(
            changes_s=part.changes_s,
            lanes=table_shards * parallelization,
            invocation_ms=INVOCATION_MS,
            record_ms=record_ms(way.memory_mb),
            batch_ms=BATCH_MS[ENGINE[place]],
            change_ms=max(JOB_SERIAL_MS, JOB_CORE_MS / cores),
            batch_spread=BATCH_SPREAD,
        )
    )
    way = replace(
        way,
        shards=shards_for(replace(part, changes_s=part.changes_s / BUSY_MAX)),
        nodes=math.ceil(cores / prices.job.cores) + (1 if ENGINE[place] == "spark" else 0),
        commits_min=60_000 / fresh.batch_every_ms,
    )
    usd, mode = min((_usd(part, replace(way, mode=mode), prices), mode) for mode in get_args(StreamMode))
    return Plan(
        changes_s=load.changes_s,
        place=place,
        stacks=stacks,
        table_shards=table_shards,
        parallelization=parallelization,
        stream_shards=way.shards,
        mode=mode,
        cores=cores,
        nodes=way.nodes,
        freshness=fresh,
        usd_month=stacks * usd,
    )


def _usd(load: Load, way: Way, prices: Prices) -> float:
    return sum(line.usd for line in forecast(load, way, prices))


def job_changes_s() -> float:
    """What one job is planned to get through, however many cores it has."""
    return BUSY_MAX * 1000 / JOB_SERIAL_MS


def _lane_changes_s(way: Way) -> float:
    """What one invocation after the other is planned to get through."""
    return BUSY_MAX * 1000 / record_ms(way.memory_mb)


def limits(load: Load) -> list[Limit]:
    """In the order in which a growing load meets them; `load.changes_s` does not matter."""
    return sorted(_limits(load), key=lambda limit: limit.changes_s)


def _limits(load: Load) -> Iterator[Limit]:
    units = write_units(load)
    yield Limit(
        f"one key: a partition of the table takes {DYNAMODB_PARTITION_WRITE_UNITS_S_MAX:,} write units a second",
        DYNAMODB_PARTITION_WRITE_UNITS_S_MAX / units,
        "nothing: a key's changes stand in one order. Other keys are not held up by it",
    )
    yield Limit(
        "one job: one process decodes, and flattens with others",
        job_changes_s(),
        "another stack for other tables; one table alone would need more cores, or that work on executors",
    )
    yield Limit(
        f"one table: {DYNAMODB_TABLE_WRITE_UNITS_S:,} write units a second by default",
        DYNAMODB_TABLE_WRITE_UNITS_S / units,
        "Service Quotas",
    )
    yield Limit(
        f"one stream: {KINESIS_ON_DEMAND_WRITE_BYTES_S >> 20} MiB a second on demand by default",
        KINESIS_ON_DEMAND_WRITE_BYTES_S / load.record_bytes,
        "regions that give 10 GB, a request, a provisioned stream, another stack",
    )
    yield Limit(
        f"one account: {KINESIS_PROVISIONED_SHARDS} provisioned shards by default",
        BUSY_MAX * KINESIS_PROVISIONED_SHARDS * KINESIS_SHARD_WRITE_BYTES_S_MAX / load.record_bytes,
        "Service Quotas",
    )
    yield Limit(
        f"one account: {LAMBDA_CONCURRENCY:,} invocations at once by default",
        LAMBDA_CONCURRENCY * min(_lane_changes_s(Way()), DYNAMODB_PARTITION_WRITE_UNITS_S_MAX / units),
        "Service Quotas",
    )

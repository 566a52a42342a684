"""A month of lakestream in dollars: pure arithmetic on a load, a way to run it, and the price table.

Quantities are what the services meter; where they round, so do we. What cannot be known beforehand (how well the
archive compresses, how long an invocation takes) is an assumption with a name.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Literal

from config.errors import ConfigurationError
from config.limits import (
    DYNAMODB_PARTITION_WRITE_UNITS_S_MAX,
    DYNAMODB_WRITE_UNIT_BYTES,
    KINESIS_RETENTION_H_MAX,
    KINESIS_RETENTION_H_MIN,
    KINESIS_SHARD_WRITE_BYTES_S_MAX,
    KINESIS_SHARD_WRITE_RECORDS_S_MAX,
    LAMBDA_MEMORY_MB_PER_CORE,
    MAPPING_POLLS_PER_SHARD_S,
)
from streaming_job.operations.cost_prices import Prices
from streaming_job.operations.measured import BRIDGE_CORE_MS, INVOCATION_MS, JOB_CORE_MS

StreamMode = Literal["ON_DEMAND", "PROVISIONED"]

GB: Final = 10**9
_PUT_UNIT_BYTES: Final = 25 * 1024
_READ_UNIT_BYTES: Final = 4 * 1024
_DAY_H: Final = 24
_WEEK_H: Final = 168
_INFREQUENT_AFTER_DAYS: Final = 30
_MONTH_DAYS: Final = 365 / 12

ENVELOPE_BYTES: Final = 650
"""What an envelope holds besides its images."""
COMPRESSED: Final = 0.15
"""Of the archive's gzip; and about what `history` takes in Parquet."""
LOG_BYTES: Final = 1_500
"""An invocation's metrics and report lines."""
COMMIT_PUTS: Final = 5
"""Of one table's batch: data and log of `current` and `history`, and a share of latency and checkpoint."""
COMMIT_GETS: Final = 10
METRICS: Final = 14
ALARMS: Final = 12
KEYS: Final = 2
RUN_START_MIN: Final = 3.0
"""From the start of a job's compute to its first batch."""
BATCH_ROWS: Final = 20_000
UPDATES: Final = 0.5
"""The share of changes that move an item within an index: each is two writes there, an insert one."""
_PIPE_UNIT_BYTES: Final = 64 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    changes_s: float
    item_bytes: int = 2_500
    old_images: bool = True
    tables: int = 1
    table_shards: int | None = None
    """Of each table's stream: its partitions. What its writes need, where it is not said."""
    items: int = 1_000_000
    """In the source tables, for `verify`."""
    tenants: int = 100
    """Of a table that is pulled."""

    @property
    def record_bytes(self) -> int:
        return self.item_bytes * (2 if self.old_images else 1) + ENVELOPE_BYTES


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """How it is run; defaults are the template's."""

    way: Literal["stream", "files", "pull"] = "stream"
    """What the job reads: the stream, its archive, or the table by an index."""
    by_pipe: bool = False
    """A pipe calls the bridge, in place of a mapping."""
    runs_h: float = 0.0
    """Starts of the job an hour, each until nothing is left to read; 0: it runs on."""
    look_s: float = 5.0
    pull_every_s: float = 60.0
    """Of a pull that runs on."""
    overlap_s: float = 300.0
    own_index: bool = True
    """The index is there for the pull alone."""
    mode: StreamMode = "ON_DEMAND"
    shards: int = 1
    retention_h: int = 168
    fan_out: bool = False
    memory_mb: int = 512
    batch: int = 500
    archive_days: int = 400
    buffer_s: int = 60
    commits_min: float = 60.0
    """The merge cadence: batches a minute, each a commit of every table with changes."""
    verifies_month: float = 30.0
    hashes: bool = False
    nodes: int = 1
    databricks: bool = True

    def check(self, load: Load) -> None:
        if not KINESIS_RETENTION_H_MIN <= self.retention_h <= KINESIS_RETENTION_H_MAX:
            raise ConfigurationError(
                f"Kinesis cannot keep records for {self.retention_h} h",
                hint=f"{KINESIS_RETENTION_H_MIN} to {KINESIS_RETENTION_H_MAX}",
            )
        if self.way == "pull":
            return
        needed = shards_for(load)
        if self.mode == "PROVISIONED" and self.shards < needed:
            raise ConfigurationError(
                f"{self.shards} shards cannot take {load.changes_s:g} records of {load.record_bytes} bytes a second",
                hint=f"{needed} can, if their keys spread evenly",
            )


@dataclass(frozen=True, slots=True)
class Line:
    service: str
    what: str
    quantity: float
    unit: str
    usd: float


def shards_for(load: Load) -> int:
    by_count = load.changes_s / KINESIS_SHARD_WRITE_RECORDS_S_MAX
    return max(1, math.ceil(max(by_count, load.changes_s * load.record_bytes / KINESIS_SHARD_WRITE_BYTES_S_MAX)))


def write_units(load: Load) -> int:
    """Of one change, in the table."""
    return math.ceil(load.item_bytes / DYNAMODB_WRITE_UNIT_BYTES)


def table_shards_for(load: Load) -> int:
    """Of each table; a partition is split once its writes are too many for it."""
    units_s = load.changes_s / load.tables * write_units(load)
    return max(1, math.ceil(units_s / DYNAMODB_PARTITION_WRITE_UNITS_S_MAX))


def record_ms(memory_mb: int) -> float:
    """What one more record adds to an invocation: the function's memory says how much of a core it has."""
    return BRIDGE_CORE_MS / min(1.0, memory_mb / LAMBDA_MEMORY_MB_PER_CORE)


def forecast(load: Load, way: Way, prices: Prices) -> list[Line]:
    way.check(load)
    month = _Month(load, way, prices)
    if way.way == "pull":
        return [*month.pull(), *month.lake(), *month.proof(), *month.job()]
    watch = month.listing() if way.way == "files" else ()
    before = (*month.kinesis(), *month.bridge(), *month.archive(), *watch)
    return [*before, *month.lake(), *month.operations(), *month.proof(), *month.job()]


@dataclass(frozen=True, slots=True)
class _Month:
    load: Load
    way: Way
    prices: Prices

    @property
    def hours(self) -> float:
        return self.prices.month_h

    @property
    def changes(self) -> float:
        return self.load.changes_s * 3600 * self.hours

    def _gb(self, *, rounded_to: int) -> float:
        """Of the stream in a month, each record rounded up."""
        return self.changes * math.ceil(self.load.record_bytes / rounded_to) * rounded_to / GB

    # --- Kinesis ------------------------------------------------------------------------------------------------------

    def kinesis(self) -> Iterator[Line]:
        in_gb = self._gb(rounded_to=1024)
        yield from self._on_demand(in_gb) if self.way.mode == "ON_DEMAND" else self._provisioned(in_gb)
        long_h = max(0, self.way.retention_h - _WEEK_H)
        if long_h:
            kept = in_gb / self.hours * long_h
            price = self.prices.kinesis.long_term_gb_month
            yield Line("Kinesis", "kept past 7 days", kept, "GB-month", kept * price)

    def _on_demand(self, in_gb: float) -> Iterator[Line]:
        price = self.prices.kinesis
        yield Line("Kinesis", "stream", self.hours, "hours", self.hours * price.on_demand_stream_h)
        yield Line("Kinesis", "in", in_gb, "GB", in_gb * price.on_demand_in_gb)
        if self.way.way == "stream":
            job_price = price.on_demand_fan_out_gb if self.way.fan_out else price.on_demand_out_gb
            yield Line("Kinesis", "out to the job", in_gb, "GB", in_gb * job_price)
        yield Line("Kinesis", "out to the archive", in_gb, "GB", in_gb * price.on_demand_out_gb)
        extended_h = max(0, min(self.way.retention_h, _WEEK_H) - _DAY_H)
        if extended_h:
            kept = in_gb / self.hours * extended_h
            yield Line("Kinesis", "kept past 24 hours", kept, "GB-month", kept * price.extended_gb_month)

    def _provisioned(self, in_gb: float) -> Iterator[Line]:
        price = self.prices.kinesis
        shard_h = self.way.shards * self.hours
        units = self.changes * math.ceil(self.load.record_bytes / _PUT_UNIT_BYTES)
        yield Line("Kinesis", "shards", shard_h, "shard-hours", shard_h * price.shard_h)
        yield Line("Kinesis", "in", units, "units of 25 KB", units / 1e6 * price.put_units_million)
        if self.way.fan_out and self.way.way == "stream":
            usd = shard_h * price.fan_out_shard_h + in_gb * price.fan_out_gb
            yield Line("Kinesis", "enhanced fan-out to the job", in_gb, "GB", usd)
        if self.way.retention_h > _DAY_H:
            yield Line("Kinesis", "kept past 24 hours", shard_h, "shard-hours", shard_h * price.extended_shard_h)

    # --- the bridge ---------------------------------------------------------------------------------------------------

    @property
    def invocations(self) -> float:
        """The mapping polls each of the table's shards 4 times a second; full batches come on top."""
        shards = self.load.tables * (self.load.table_shards or table_shards_for(self.load))
        polls_s = MAPPING_POLLS_PER_SHARD_S * shards
        return max(min(self.load.changes_s, polls_s), self.load.changes_s / self.way.batch) * 3600 * self.hours

    def bridge(self) -> Iterator[Line]:
        seconds = (self.invocations * INVOCATION_MS + self.changes * record_ms(self.way.memory_mb)) / 1000
        gb_s = seconds * self.way.memory_mb / 1024
        price = self.prices.lambda_
        yield Line("Lambda", "invocations", self.invocations, "calls", self.invocations / 1e6 * price.requests_million)
        yield Line("Lambda", "duration", gb_s, "GB-seconds", gb_s * price.gb_s)
        if self.way.by_pipe:
            units = self.invocations + self.changes * self.load.record_bytes / _PIPE_UNIT_BYTES
            usd = units / 1e6 * self.prices.pipes.requests_million
            yield Line("EventBridge", "pipe", units, "requests of 64 KB", usd)
        if self.way.hashes:
            yield Line("Secrets Manager", "hash key", 1, "secrets", self.prices.secrets_manager.secret_month)

    # --- archive ------------------------------------------------------------------------------------------------------

    def archive(self) -> Iterator[Line]:
        in_gb = self._gb(rounded_to=5 * 1024)
        yield Line("Firehose", "in", in_gb, "GB", in_gb * self.prices.firehose.in_gb)
        price = self.prices.s3
        objects = min(self.changes, 3600 * self.hours / max(1, self.way.buffer_s))
        yield Line("S3", "archive objects", objects, "PUTs", objects / 1000 * price.put_thousand)
        stored = self.changes * self.load.record_bytes * COMPRESSED / GB
        first_days = min(self.way.archive_days, _INFREQUENT_AFTER_DAYS)
        later_days = self.way.archive_days - first_days
        first, later = (stored * days / _MONTH_DAYS for days in (first_days, later_days))
        yield Line("S3", "archive, first 30 days", first, "GB-month", first * price.standard_gb_month)
        if later_days:
            usd = later * price.infrequent_gb_month + objects / 1000 * price.transition_thousand
            yield Line("S3", f"archive, to day {self.way.archive_days}", later, "GB-month", usd)

    def listing(self) -> Iterator[Line]:
        """The archive as a source: it is listed while the job runs, and each object is read once."""
        price = self.prices.s3
        looks = self.run_h * 3600 / self.way.look_s
        objects = min(self.changes, 3600 * self.hours / max(1, self.way.buffer_s))
        usd = looks / 1000 * price.put_thousand + objects / 1000 * price.get_thousand
        yield Line("S3", "archive, looked at and read", looks + objects, "requests", usd)

    # --- a table pulled by an index -----------------------------------------------------------------------------------

    def pull(self) -> Iterator[Line]:
        """Every pass reads again what its overlap holds; a query of a tenant without news reads half a unit."""
        price = self.prices.dynamodb
        every_s = 3600 / self.way.runs_h if self.way.runs_h else self.way.pull_every_s
        passes = 3600 * self.hours / every_s
        items = self.load.changes_s * (every_s + self.way.overlap_s)
        units = passes * max(self.load.tenants / 2, items * self.load.item_bytes / _READ_UNIT_BYTES / 2)
        yield Line("DynamoDB", "the passes' queries", units, "read units", units / 1e6 * price.read_units_million)
        if self.way.own_index:
            writes = self.changes * math.ceil(self.load.item_bytes / 1024) * (1 + UPDATES)
            yield Line(
                "DynamoDB", "the index's writes", writes, "write units", writes / 1e6 * price.write_units_million
            )
            stored = self.load.items * self.load.item_bytes / GB
            yield Line("DynamoDB", "the index", stored, "GB-month", stored * price.stored_gb_month)

    # --- lake ---------------------------------------------------------------------------------------------------------

    def lake(self) -> Iterator[Line]:
        price = self.prices.s3
        commits = self.commits_h * self.hours * self.load.tables
        puts, gets = commits * COMMIT_PUTS, commits * COMMIT_GETS
        usd = puts / 1000 * price.put_thousand + gets / 1000 * price.get_thousand
        yield Line("S3", "merges' requests", puts + gets, "requests", usd)
        grown = self.changes * self.load.record_bytes * COMPRESSED / GB
        yield Line("S3", "history, each month's growth", grown, "GB-month", grown * price.standard_gb_month)

    @property
    def commits_h(self) -> float:
        """Never more than there are changes."""
        portions_h = self.way.runs_h or {"pull": 3600 / self.way.pull_every_s, "files": 3600 / self.way.buffer_s}.get(
            self.way.way, self.way.commits_min * 60
        )
        rows = self.load.changes_s * 3600 / portions_h
        return min(self.load.changes_s * 3600, portions_h * math.ceil(rows / BATCH_ROWS))

    # --- what watches and proves --------------------------------------------------------------------------------------

    def operations(self) -> Iterator[Line]:
        watch = self.prices.cloudwatch
        metrics = METRICS * self.load.tables
        logs_gb = self.invocations * LOG_BYTES / GB
        yield Line("CloudWatch", "metrics", metrics, "metrics", metrics * watch.metric_month)
        yield Line("CloudWatch", "alarms", ALARMS, "alarms", ALARMS * watch.alarm_month)
        yield Line("CloudWatch", "dashboard", 1, "dashboards", watch.dashboard_month)
        yield Line("CloudWatch", "logs", logs_gb, "GB", logs_gb * watch.logs_gb)
        yield Line("KMS", "keys", KEYS, "keys", KEYS * self.prices.kms.key_month)

    def proof(self) -> Iterator[Line]:
        read_units = self.load.items * self.way.verifies_month * math.ceil(self.load.item_bytes / _READ_UNIT_BYTES) / 2
        price = self.prices.dynamodb.read_units_million
        yield Line("DynamoDB", "verify's scans", read_units, "read units", read_units / 1e6 * price)

    @property
    def run_h(self) -> float:
        """How long the job's compute is up."""
        if not self.way.runs_h:
            return self.hours
        rows = self.load.changes_s * 3600 / self.way.runs_h
        rows_s = max(1, self.way.nodes) * self.prices.job.cores * 1000 / JOB_CORE_MS
        run_min = RUN_START_MIN + rows / rows_s / 60
        return min(self.hours, self.hours * self.way.runs_h * run_min / 60)

    def job(self) -> Iterator[Line]:
        if not self.way.nodes:
            return
        price = self.prices.job
        node_h = self.way.nodes * self.run_h
        yield Line("Job", f"{price.instance}, {self.way.nodes} of them", node_h, "hours", node_h * price.instance_h)
        if self.way.databricks:
            dbu = node_h * price.dbu_per_h
            yield Line("Job", "Databricks units", dbu, "DBU", dbu * price.dbu)

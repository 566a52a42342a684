"""The streaming job's configuration: one frozen object, loaded and checked once, handed to whatever needs it."""

import os
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from config.tables import Frozen
from config.yaml_files import load_model


class AwsSettings(Frozen):
    region: str
    endpoint: str | None = None
    """An emulator's address; None means AWS itself."""
    service_credential: str | None = None
    """Databricks' service credential for all but the stream, where compute has no default one: serverless."""


class FilesSettings(Frozen):
    """How an archive is read as it grows, where `connector` is `files`."""

    prefixes: tuple[Annotated[str, Field(pattern=r"^[^/].*/$")], ...] = ()
    """Where objects land; none named: the bucket's archive prefix."""
    look_every_s: float = Field(default=5.0, ge=0.2)
    late_h: int = Field(default=26, ge=2)
    """How long after its hour an object may still land: Firehose tries for a day."""
    look_for_late_every_s: int = Field(default=300, ge=1)
    objects_max: int = Field(default=1_000, ge=1)
    """Of one batch, beside `batch_bytes_max`."""


class SourceSettings(Frozen):
    connector: Literal["lakestream", "databricks", "files"] = "lakestream"
    stream: str
    starting_position: str = "trim_horizon"
    """`trim_horizon`, `latest`, or an ISO timestamp; only the first start without a checkpoint reads it."""
    consumer_mode: Literal["polling", "efo"] = "polling"
    consumer_name: str | None = None
    batch_rows_max: int = Field(default=20_000, ge=1)
    batch_bytes_max: int = Field(default=64 * 1024 * 1024, ge=1024 * 1024)
    fail_on_data_loss: bool = True
    service_credential: str | None = None
    options: dict[str, str] = Field(default_factory=dict, repr=False)
    """Options of the source laid over ours, by their name there; keys may be among them."""
    files: FilesSettings = FilesSettings()


class LakeSettings(Frozen):
    """Where the tables live: `root` is a path, or `catalog` and `schema_` name a Unity Catalog schema."""

    root: str | None = None
    catalog: str | None = None
    schema_: str | None = Field(default=None, alias="schema")
    checkpoint: str

    @model_validator(mode="after")
    def one_home(self) -> "LakeSettings":
        if (self.root is None) == (self.catalog is None or self.schema_ is None):
            raise ValueError("give either root, or catalog and schema")
        return self


class TriggerSettings(Frozen):
    interval_ms: int = Field(default=0, ge=0)
    """0: the next batch starts when the last one ends."""


class LeaseSettings(Frozen):
    """One writer a table: a crashed writer on another host holds its tables for at most `duration_s`.

    It is renewed between batches, so half of it should be longer than the longest batch.
    """

    duration_s: int = Field(default=120, ge=5)
    wait_s: int = Field(default=0, ge=0)
    """How long a start waits for another writer's lease to end before it gives up."""


class UpkeepSettings(Frozen):
    """Compaction, purge and vacuum between batches; a pause never takes much longer than `budget_ms`."""

    budget_ms: int = Field(default=2_000, ge=0)
    compact_after_files: int = Field(default=50, ge=2)
    compact_step_bytes: int = Field(default=8 * 1024 * 1024, ge=1024 * 1024)
    """Engine rust, between two batches: what is larger is not written again, so that a pause stays short."""
    compact_target_bytes: int = Field(default=128 * 1024 * 1024, ge=1024 * 1024)
    """Engine spark, and `lakestream maintain` with either."""
    checkpoint_after_commits: int = Field(default=100, ge=10)
    purge_every_s: int = Field(default=3_600, ge=1)
    vacuum_every_s: int = Field(default=86_400, ge=1)
    vacuum_retention_h: int = Field(default=168, ge=168)
    """Never less than a week: readers and time travel of a running query need the files."""


_FLATTEN_PROCESSES_MAX = 4
"""More than the rest of a job keeps up with."""


def _spare_cores() -> int:
    return min(_FLATTEN_PROCESSES_MAX, (os.cpu_count() or 1) - 1)


class PipelineSettings(Frozen):
    slice_bytes_max: int = Field(default=128 * 1024 * 1024, ge=1024 * 1024)
    """What the driver holds of one batch at a time; a larger batch is cut by key into slices."""
    parallel_tables: int = Field(default=4, ge=1)
    flatten_processes: int = Field(default_factory=_spare_cores, ge=0, le=64)
    """Beside the job's own, for large batches; started by the first of them, some 250 MB each."""
    park_retry_s_max: int = Field(default=60, ge=1)
    claim_check_attempts: int = Field(default=4, ge=1)


class IntakeSettings(Frozen):
    """What commands hand over to the job, taken in between the stream's batches."""

    slice_rows_max: int = Field(default=2_000, ge=1)
    """So many rows at a time: so long the stream waits."""
    slice_bytes_max: int = Field(default=16 * 1024 * 1024, ge=1024 * 1024)
    share_max: float = Field(default=0.5, gt=0, le=1)
    """Of the time, while the stream has batches; on a quiet stream all of it."""
    look_every_s: float = Field(default=5.0, gt=0)


class BucketSettings(Frozen):
    """The bucket of archive, claim checks and dead letters; prefixes end in a slash."""

    name: str = Field(min_length=3, max_length=63)
    archive_prefix: str = Field(default="archive/", pattern=r"^[^/].*/$")
    failed_batches: str | None = Field(default=None, pattern=r"^s3://[a-z0-9.-]{3,63}/(.*/)?$")
    """Where the mapping puts batches that it gives up: the stack's dead letter bucket."""
    dead_letter_key: str | None = None
    """The KMS key that raw dead letters rest under."""


class HttpSettings(Frozen):
    """The job's /metrics and /healthz."""

    host: str = "127.0.0.1"
    port: int = Field(default=0, ge=0, le=65535)
    unhealthy_after_s: int = Field(default=120, ge=1)


class Settings(Frozen):
    aws: AwsSettings
    source: SourceSettings
    lake: LakeSettings
    tables: tuple[str, ...] = Field(min_length=1)
    """Source tables, each with a rules file in `tables_dir`."""
    tables_dir: Path = Path(__file__).parent / "tables"
    trigger: TriggerSettings = TriggerSettings()
    http: HttpSettings = HttpSettings()
    cloudwatch: bool = False
    """The job's figures to CloudWatch as well, once a minute, namespace `lakestream`, dimension `service=job`."""
    bucket: BucketSettings | None = None
    """Named, `archive` and `redrive` need no options."""
    lease: LeaseSettings = LeaseSettings()
    upkeep: UpkeepSettings = UpkeepSettings()
    pipeline: PipelineSettings = PipelineSettings()
    intake: IntakeSettings = IntakeSettings()
    spark: dict[str, str] = Field(default_factory=dict, repr=False)
    """Spark settings laid over ours, by name; passwords may be among them."""

    @model_validator(mode="after")
    def files_have_a_bucket(self) -> "Settings":
        if self.source.connector == "files" and self.bucket is None:
            raise ValueError("connector files reads objects: name their bucket")
        return self


def load_settings(path: Path) -> Settings:
    return load_model(path, Settings, example="config/README.md")

"""The seam between the pipeline and the two engines that write Delta tables: one Protocol, one description of a merge.

`rust` is delta-rs on the driver: a warm small merge takes a few hundredths of a second, no cluster helps it.
`spark` is Spark's MERGE: seconds for a small batch, and a cluster's worth of room for large ones.
What a merge means is said once, here, in the SQL both speak; `s` is the source, `t` the target.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal, Protocol

import pyarrow as pa
from pyspark.sql.types import StructType

from streaming_job.errors import EngineRefusedError
from streaming_job.pipeline.arrow import Column
from streaming_job.pipeline.locations import Location

Guard = Callable[[], None]
"""Called on a fresh view of the table just before each attempt to commit; raises where we may not write any more."""

Engine = Literal["rust", "spark"]


def no_guard() -> None:
    """For tables that several writers may insert into: their unique keys guard them."""


@dataclass(frozen=True)
class TableSpec:
    """What a table is created as, and what an existing one must have."""

    location: Location
    columns: StructType
    partition_by: tuple[str, ...] = ()
    properties: Mapping[str, str] = field(default_factory=dict)
    found_by: tuple[str, str] | None = None
    """The unique key and the time each row was written at, where an engine may keep an index of them."""
    dated_by: tuple[tuple[str, ...], str] | None = None
    """Of a table that is only inserted into: the unique key, and the time in milliseconds that belongs to a row."""


@dataclass(frozen=True)
class Update:
    """Of a row that is there, `columns` take their values from `s` where that is newer."""

    version: str
    """The column that tells which is newer; texts that order as the versions do."""
    columns: Sequence[str]
    or_equal: bool = False
    """The same version of it, too."""

    @property
    def when(self) -> str:
        return f"s.{self.version} {'>=' if self.or_equal else '>'} t.{self.version}"

    def is_newer(self, ours: str, theirs: str) -> bool:
        """As `when` has it."""
        return ours > theirs or (self.or_equal and ours == theirs)


@dataclass(frozen=True)
class Merge:
    match: Sequence[str]
    """Columns equal in `s` and `t`: the unique key."""
    insert: Sequence[str]
    """Columns of a row that was not there."""
    updates: Sequence[Update] = ()
    within: str | None = None
    """Literal conditions on `t` alone, by which files are skipped. They must hold for every row that can match."""
    is_dated: bool = False
    """A row with the unique key of one of these has its time as well, and every one of them has a time."""

    @property
    def on(self) -> str:
        equal = " AND ".join(f"t.`{name}` = s.`{name}`" for name in self.match)
        return f"{equal} AND ({self.within})" if self.within else equal


@dataclass(frozen=True)
class Merged:
    inserted: int
    updated: int


class LakeTable(Protocol):
    """One Delta table as the pipeline sees it, whoever writes it."""

    @property
    def engine(self) -> Engine: ...

    @property
    def location(self) -> Location: ...

    def refresh(self) -> None:
        """Take in what others committed."""

    def columns(self) -> StructType: ...

    def properties(self) -> dict[str, str]: ...

    def set_properties(self, properties: Mapping[str, str], guard: Guard = no_guard) -> None:
        """A commit of metadata: every other commit in flight on this table then fails. The lease rests on that."""

    def add_columns(self, columns: StructType, guard: Guard = no_guard) -> None: ...

    def merge(self, source: pa.Table, merge: Merge, guard: Guard = no_guard) -> Merged: ...

    def lacks(self, keys: Column) -> Column | None:
        """Of these unique keys which are surely not there; None where it would have to be looked up."""

    def delete(self, where: str, guard: Guard = no_guard) -> int: ...

    def become(self, other: Location, number: int, guard: Guard = no_guard) -> None:
        """Take the other table's columns and rows in place of one's own, in one commit; properties stay.

        A reader sees the old table or the new one, whole; one that began before goes on with the files it began with.
        `number` names the taking: taken once, it is not taken again.
        """

    def newest(self, keys: Sequence[str], where: str = "true") -> dict[str, str]:
        """The highest `_seq` of each of these `_key`s that is there, of the rows meant."""

    def read(self, columns: Sequence[str], where: str | None = None) -> pa.Table: ...

    def count(self, where: str) -> int: ...

    def small_files(self, target_bytes: int) -> int:
        """About how many files `compact` would join."""

    def compact(self, *, target_bytes: int, guard: Guard = no_guard) -> int:
        """Join small files; how many went."""

    def unreferenced_files(self, retention_h: int) -> int:
        """How many `vacuum` would delete."""

    def vacuum(self, retention_h: int) -> int:
        """Delete files that no version of the last hours has; how many, 0 where nobody says."""


FORBIDDEN_TO_RUST: Mapping[str, str] = {
    "deletionVectors": "delta.enableDeletionVectors",
    "columnMapping": "delta.columnMapping.mode",
    "clustering": "CLUSTER BY",
    "rowTracking": "delta.enableRowTracking",
    "inCommitTimestamp": "delta.enableInCommitTimestamps",
    "typeWidening": "delta.enableTypeWidening",
}
"""Table features delta-rs cannot write or would break, and the setting that brings each in."""


def refuse_features(engine: Engine, location: Location, features: Sequence[str], properties: Mapping[str, str]) -> None:
    if properties.get("delta.appendOnly", "false").lower() == "true":
        raise EngineRefusedError(
            f"{location} is append-only (delta.appendOnly): no engine can merge into it",
            hint="set delta.appendOnly to false, or name another table in lake.name",
        )
    if engine != "rust":
        return
    for feature in features:
        base = feature.removesuffix("-preview")
        if base in FORBIDDEN_TO_RUST:
            raise EngineRefusedError(
                f"{location} has the feature {feature} ({FORBIDDEN_TO_RUST[base]}), which engine rust cannot write",
                hint=f"set lake.engine to spark, or ALTER TABLE … DROP FEATURE {feature}",
            )
    if properties.get("delta.columnMapping.mode", "none").lower() != "none":
        raise EngineRefusedError(
            f"{location} uses column mapping (delta.columnMapping.mode), which engine rust cannot write",
            hint="set lake.engine to spark, or rebuild the table without column mapping",
        )


def refuse_foreign(spec: TableSpec, columns: StructType, partition_by: Sequence[str]) -> None:
    """A table somebody else made under our name is not written into."""
    missing = [name for name in spec.columns.names if name not in columns.names]
    if missing:
        raise EngineRefusedError(
            f"{spec.location} is not a table of this service: it has no column {missing[0]}",
            hint="name another table in lake.name, or move this one away",
        )
    if tuple(partition_by) != spec.partition_by:
        raise EngineRefusedError(
            f"{spec.location} is partitioned by {list(partition_by)}, not by {list(spec.partition_by)}",
            hint="rebuild the table",
        )


class Opener(Protocol):
    """How the pipeline comes by its tables; created when they are not there yet."""

    def __call__(self, engine: Engine, spec: TableSpec) -> LakeTable: ...


TAKEN_OVER: Final = "lakestream.rebuild"
"""The application transaction that a taking over is recorded as, in its very commit."""


def first_int(metrics: Mapping[str, Any], *names: str) -> int:
    """The first of these metrics that is given; engines name them differently."""
    return next((int(metrics[name]) for name in names if metrics.get(name) is not None), 0)

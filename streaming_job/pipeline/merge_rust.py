"""Engine `rust`: delta-rs on the driver."""

import json
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Final, TypeVar

import pyarrow as pa
from deltalake import CommitProperties, DeltaTable, Field, QueryBuilder, Schema, Transaction, write_deltalake
from deltalake.exceptions import CommitFailedError, TableNotFoundError
from pyspark.sql.pandas.types import to_arrow_schema
from pyspark.sql.types import StructType

from streaming_job.errors import CommitConflictError, EngineRefusedError
from streaming_job.pipeline import rust_sql
from streaming_job.pipeline.arrow import Column, pc, plain, values
from streaming_job.pipeline.locations import Location
from streaming_job.pipeline.merge import (
    TAKEN_OVER,
    Engine,
    Guard,
    Merge,
    Merged,
    TableSpec,
    first_int,
    no_guard,
    refuse_features,
    refuse_foreign,
)
from streaming_job.pipeline.rust_log import LogFolder, after_commit
from streaming_job.pipeline.rust_memory import memory_of

T = TypeVar("T")
_ATTEMPTS: Final = 5
_COMMITS_OF_A_VACUUM: Final = 2
"""That it begins, and that it ended; none where there is nothing to delete."""


def arrow_schema(columns: StructType) -> pa.Schema:
    return to_arrow_schema(columns, timezone="UTC")


class RustTable:
    engine: Engine = "rust"

    def __init__(self, spec: TableSpec, storage: Mapping[str, str] | None = None) -> None:
        if spec.location.path is None:
            raise EngineRefusedError(
                f"engine rust writes tables by path; {spec.location} is a catalog's table",
                hint="set lake.engine to spark, or lake.root in place of catalog and schema",
            )
        self._location = spec.location
        # Lanes of several tables share some tables, and a handle of delta-rs is used by one thread at a time.
        self._lock = threading.RLock()
        self._storage = dict(storage or {})
        self._table = _open(spec, spec.location.path, self._storage)
        self._log = LogFolder(spec.location.path)
        protocol = self._table.protocol()
        features = [*(protocol.writer_features or ()), *(protocol.reader_features or ())]
        refuse_features("rust", spec.location, features, self.properties())
        refuse_foreign(spec, self.columns(), self._table.metadata().partition_columns)
        self._memory = memory_of(spec, self._storage)
        if self._memory is not None:
            self._memory.follow(self._table)

    @property
    def location(self) -> Location:
        return self._location

    def refresh(self) -> None:
        with self._lock:
            if self._log.may_have_grown(self._table.version()):
                self._table.update_incremental()

    def version(self) -> int:
        return self._table.version()

    def columns(self) -> StructType:
        return StructType.fromJson(json.loads(self._table.schema().to_json()))

    def properties(self) -> dict[str, str]:
        return dict(self._table.metadata().configuration)

    def set_properties(self, properties: Mapping[str, str], guard: Guard = no_guard) -> None:
        # Our own properties are none that Delta knows: it would refuse them without this.
        self._commit(lambda: self._table.alter.set_table_properties(dict(properties), raise_if_not_exists=False), guard)

    def add_columns(self, columns: StructType, guard: Guard = no_guard) -> None:
        fields = [Field.from_json(field.json()) for field in columns.fields]
        self._commit(lambda: self._table.alter.add_columns(fields), guard)

    def merge(self, source: pa.Table, merge: Merge, guard: Guard = no_guard) -> Merged:
        def attempt() -> Merged:
            if self._memory is None:
                return self._merge(source, merge)
            return self._memory.merge(self._table, source, merge, self._merge)

        return self._commit(attempt, guard)

    def lacks(self, keys: Column) -> Column | None:
        with self._lock:
            return None if self._memory is None else self._memory.lacks(self._table, keys)

    def _merge(self, source: pa.Table, merge: Merge) -> Merged:
        merger = self._table.merge(
            source,
            predicate=merge.on,
            source_alias="s",
            target_alias="t",
            post_commithook_properties=after_commit(self._table),
        )
        for update in merge.updates:
            merger = merger.when_matched_update(_assign(update.columns), predicate=update.when)
        metrics = merger.when_not_matched_insert(_assign(merge.insert)).execute()
        return Merged(first_int(metrics, "num_target_rows_inserted"), first_int(metrics, "num_target_rows_updated"))

    def delete(self, where: str, guard: Guard = no_guard) -> int:
        return self._commit(lambda: first_int(self._table.delete(where), "num_deleted_rows"), guard)

    def become(self, other: Location, number: int, guard: Guard = no_guard) -> None:
        def attempt() -> None:
            if (self._table.transaction_version(TAKEN_OVER) or 0) >= number:
                return
            source = DeltaTable(str(other), storage_options=self._storage)
            rows = QueryBuilder().register("t", source).execute("SELECT * FROM t")
            taken = CommitProperties(app_transactions=[Transaction(TAKEN_OVER, number)])
            write_deltalake(self._table, rows, mode="overwrite", schema_mode="overwrite", commit_properties=taken)
            if self._memory is not None:
                self._memory.forget()

        self._commit(attempt, guard)

    def newest(self, keys: Sequence[str], where: str = "true") -> dict[str, str]:
        wanted = f"_key IN ({rust_sql.texts(keys)}) AND {where}"
        found = self._query(f"SELECT _key, max(_seq) AS newest FROM t WHERE {wanted} GROUP BY _key")  # noqa: S608 - quoted
        return dict(zip(values(found, "_key"), values(found, "newest"), strict=True))

    def read(self, columns: Sequence[str], where: str | None = None) -> pa.Table:
        named = ", ".join(f'"{name}"' for name in columns)
        return self._query(f"SELECT {named} FROM t" + (f" WHERE {where}" if where else ""))  # noqa: S608 - our own names

    def count(self, where: str) -> int:
        return int(self._query(f"SELECT count(*) AS n FROM t WHERE {where}")["n"][0].as_py())  # noqa: S608 - our own condition

    def small_files(self, target_bytes: int) -> int:
        """Below half of the target, so that any two of a partition can become one."""
        with self._lock:
            files = pa.table(self._table.get_add_actions(flatten=True))
        small = files.filter(pc.less(files["size_bytes"], target_bytes // 2))
        partition = [name for name in small.column_names if name.startswith("partition.")]
        together = small.group_by(partition).aggregate([([], "count_all")])["count_all"]
        return pc.sum(pc.filter(together, pc.greater(together, 1))).as_py() or 0

    def compact(self, *, target_bytes: int, guard: Guard = no_guard) -> int:
        def attempt() -> int:
            return first_int(self._table.optimize.compact(target_size=target_bytes), "numFilesRemoved")

        return self._commit(attempt, guard)

    def unreferenced_files(self, retention_h: int) -> int:
        return len(self._vacuum(retention_h, dry_run=True))

    def vacuum(self, retention_h: int) -> int:
        gone = self._vacuum(retention_h, dry_run=False)
        with self._lock:
            self._table.cleanup_metadata()
        return len(gone)

    def _vacuum(self, retention_h: int, *, dry_run: bool) -> list[str]:
        """Every old file in the table's folder that no version kept has. Told by the log alone, delta-rs would leave
        what a checkpoint has forgotten, which is all that is old, and what a commit that failed had written.
        """
        with self._lock:
            # Another writer's rows of long ago must not be taken for such files.
            self._table.update_incremental()
            before = self._table.version()
            gone = self._table.vacuum(retention_h, dry_run=dry_run, enforce_retention_duration=True, full=True)
            if self._memory is not None:
                self._memory.committed(before, self._table.version(), ours=_COMMITS_OF_A_VACUUM)
            return gone

    def _query(self, sql: str) -> pa.Table:
        with self._lock:
            return plain(pa.table(QueryBuilder().register("t", self._table).execute(sql).read_all()))

    def _commit(self, attempt: Callable[[], T], guard: Guard) -> T:
        with self._lock:
            for _ in range(_ATTEMPTS):
                self.refresh()
                guard()
                before = self._table.version()
                try:
                    result = attempt()
                except CommitFailedError as error:
                    conflict = error
                    continue
                if self._memory is not None:
                    self._memory.committed(before, self._table.version())
                return result
            self.refresh()
            guard()
        raise CommitConflictError(
            f"{self._location}: {_ATTEMPTS} commits in a row conflicted with another writer's: {conflict}",
            hint="find what else writes to the table (its history says who) and stop it",
        ) from conflict


def _open(spec: TableSpec, path: str, storage: dict[str, str]) -> DeltaTable:
    try:
        return DeltaTable(path, storage_options=storage)
    except TableNotFoundError:
        return DeltaTable.create(
            path,
            schema=Schema.from_json(spec.columns.json()),
            mode="ignore",
            partition_by=list(spec.partition_by),
            configuration=dict(spec.properties),
            storage_options=storage,
            raise_if_key_not_exists=False,
        )


def _assign(columns: Sequence[str]) -> dict[str, str]:
    return {f"t.`{name}`": f"s.`{name}`" for name in columns}

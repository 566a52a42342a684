"""Puts one table's lane together from the configuration: locations, engines, lease, flattener, shared tables."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from functools import cached_property
from threading import Lock
from typing import Final

import pyarrow as pa
from pyspark.sql import SparkSession
from pyspark.sql.types import StructType

from config.settings import Settings
from config.tables import TableConfig
from streaming_job.aws import client
from streaming_job.errors import HalfATableError
from streaming_job.pipeline import current, history, parking, rejects, schema_log
from streaming_job.pipeline.changes import as_source_rows
from streaming_job.pipeline.claims import Resolver, S3Objects
from streaming_job.pipeline.decode import Decoder
from streaming_job.pipeline.flatten_workers import SharedFlattener, Workers
from streaming_job.pipeline.lane import TableLane
from streaming_job.pipeline.lease import Clock, Lease, Owner
from streaming_job.pipeline.locations import Lake, Location, TableLocations, live_sql
from streaming_job.pipeline.merge import Engine, Guard, LakeTable, TableSpec
from streaming_job.pipeline.opening import Tables, current_properties, log_properties, shared_engine
from streaming_job.pipeline.order import Order
from streaming_job.pipeline.properties import written
from streaming_job.pipeline.rebuild import Rebuild, take_over
from streaming_job.pipeline.requests import MAINTAINED
from streaming_job.pipeline.schema_log import SchemaLog
from streaming_job.pipeline.steps import AfterStep
from streaming_job.pipeline.table_lanes import TableLanes
from streaming_job.pipeline.upkeep import (
    VACUUMED_PROPERTY,
    Outcome,
    Upkeep,
    attempt,
    compaction,
    shared_upkeep,
    upkeep_of,
)
from streaming_job.pipeline.writer import TableParts, TableWriter

_LOOK_FOR_LATENCY_EVERY_MS: Final = 60_000


class Assembly:
    def __init__(
        self,
        spark: SparkSession,
        settings: Settings,
        tables: Mapping[str, TableConfig],
        *,
        owner: Owner,
        clock: Clock,
        after_step: AfterStep,
    ) -> None:
        self._spark = spark
        self._settings = settings
        self._owner = owner
        self._clock = clock
        self._after_step = after_step
        self.lake = Lake(settings.lake)
        self._tables = Tables(settings, lambda: spark)
        self._looks_after_latency = False
        self._look_for_latency_ms = 0
        self._workers = Workers(settings.pipeline.flatten_processes)
        self._configs = dict(tables)
        self._beside: dict[str, TableConfig] = {}
        self._rules_change = Lock()
        self._histories: dict[tuple[Engine, Location], LakeTable] = {}
        self.decoder = Decoder(tables)
        self.upkeep = Upkeep(settings.upkeep, clock)

    def lanes(self, config: TableConfig) -> TableLanes:
        return TableLanes(config, self, self._clock)

    def lane(self, config: TableConfig, *, is_rebuilt: bool) -> TableLane:
        # Read now, for a table that cannot be opened parks too; and again once the table is ours.
        parked = parking.Parking(self._parked, config.table)

        def writer() -> TableWriter:
            places = self.lake.of(config)
            if not is_rebuilt:
                self._refuse_half_a_table(config.lake.engine, places)
            with self._writer(config, places.current, parked) as opened:
                if places.live is not None:
                    self._spark.sql(
                        f"CREATE VIEW IF NOT EXISTS {places.live} WITH SCHEMA EVOLUTION AS {live_sql(places.current)}"
                    )
                self._readmit(opened)
            parts = opened.parts
            self.upkeep.take_on(
                upkeep_of(
                    parts.current,
                    parts.history,
                    config.lake,
                    self._settings.upkeep,
                    self._clock,
                    guard=parts.lease.check,
                ),
                config.table,
            )
            return opened

        return self._lane(config.table, writer, parked)

    def lane_beside(self, config: TableConfig) -> TableLane:
        parked = parking.Parking(self._rebuild_parked, config.table)
        with self._new_rules():
            self._beside[config.table] = config

        def writer() -> TableWriter:
            with self._writer(config, self.lake.of(config).rebuilt, parked) as opened:
                guard = opened.parts.lease.check
            self.upkeep.take_on([compaction(opened.parts.current, self._settings.upkeep, self._clock, guard)])
            return opened

        return self._lane(f"{config.table}, rebuilt", writer, parked)

    def _lane(self, name: str, open_writer: Callable[[], TableWriter], parked: parking.Parking) -> TableLane:
        return TableLane(
            name,
            open_writer,
            parked,
            write_rejects=self.write_rejects,
            clock=self._clock,
            retry_s_max=self._settings.pipeline.park_retry_s_max,
            after_step=self._after_step,
        )

    def write_rejects(self, rejected: pa.Table) -> int:
        return rejects.write(self._rejects, rejected, self._clock()) if rejected.num_rows else 0

    @contextmanager
    def _writer(self, config: TableConfig, place: Location, parked: parking.Parking) -> Iterator[TableWriter]:
        """Of `current`, or of the new one beside it; `history` is the same.

        What stands in tables and may change while somebody else writes them is read once the lease is held. Where the
        table cannot be opened after all, no lease is left behind: the next attempt would find it held, by this very
        process, which stops the job.
        """
        rules, settings = config.lake, self._settings
        vacuumed = {VACUUMED_PROPERTY: str(self._clock())}
        feed = {"delta.enableChangeDataFeed": "true"} if rules.change_data_feed else {}
        properties = current_properties(rules.engine, settings) | vacuumed | feed
        table = self._tables.open(rules.engine, current.spec(place, StructType(), properties))
        log = log_properties(rules.engine, settings) | vacuumed
        past = self._history(rules.engine, history.spec(self.lake.of(config).history, log))
        lease = self._lease(table)
        lease.acquire(wait_ms=settings.lease.wait_s * 1000)
        try:
            parked.look_again()
            _apply(feed, table, lease.check)
            yield TableWriter(
                config,
                TableParts(
                    current=table,
                    history=past,
                    lease=lease,
                    flattener=SharedFlattener(config, self._workers),
                    schema_log=SchemaLog(self._schema_changes, config.table),
                    resolver=Resolver(self._objects, self._decode_again),
                    order=Order(table, rules, lease.check, self._clock),
                    refused=parking.Parking(self._refused, config.table),
                    clock=self._clock,
                ),
            )
        except Exception:
            lease.release()
            raise

    def _history(self, engine: Engine, spec: TableSpec) -> LakeTable:
        """One for both lanes of a table: a handle knows what it wrote itself, and reads anew what another one did."""
        held = self._histories.get((engine, spec.location))
        if held is None or not self._tables.exists(engine, spec.location):
            held = self._histories[engine, spec.location] = self._tables.open(engine, spec)
        return held

    def _lease(self, table: LakeTable) -> Lease:
        return Lease(table, self._owner, duration_ms=self._settings.lease.duration_s * 1000, clock=self._clock)

    def _readmit(self, writer: TableWriter) -> None:
        for done in writer.readmit():
            for rejected in done.late_rejects:
                self.write_rejects(rejected)

    def close(self) -> None:
        self._workers.end()

    @property
    def decoded_by(self) -> dict[str, TableConfig]:
        """The rules records are decoded by: where a rebuild in hand is strict, its own, for it may reject a change."""
        return self._configs | {table: config for table, config in self._beside.items() if config.lake.strict}

    @contextmanager
    def _new_rules(self) -> Iterator[None]:
        """Tables are opened side by side, and one decoder serves them all."""
        with self._rules_change:
            yield
            self.decoder = Decoder(self.decoded_by)

    # --- rebuilds -----------------------------------------------------------------------------------------------------

    def rebuild_of(self, config: TableConfig) -> Rebuild | None:
        return Rebuild.of(self._tables.properties(self.lake.of(config).rebuilt))

    def is_lost(self, config: TableConfig) -> bool:
        return not self._tables.exists(config.lake.engine, self.lake.of(config).current)

    def promote(self, config: TableConfig, rebuild: Rebuild, new: LakeTable, old: TableLane | None) -> None:
        engine, place = config.lake.engine, self.lake.of(config).current
        # Where the table was lost it is made here.
        made_with = current_properties(engine, self._settings)
        table = self._tables.open(engine, TableSpec(place, current.SYSTEM, properties=made_with))
        if old is not None and old.writer is not None:
            take_over(table, new, rebuild.number, old.writer.parts.lease.verified)
        else:
            lease = self._lease(table)
            lease.acquire(wait_ms=self._settings.lease.wait_s * 1000)
            try:
                take_over(table, new, rebuild.number, lease.check)
            finally:
                lease.release()
        with self._new_rules():
            self._configs[config.table] = config

    def let_go(self, config: TableConfig, *, beside: bool) -> None:
        if beside:
            with self._new_rules():
                self._beside.pop(config.table, None)
        places = self.lake.of(config)
        for place in (places.rebuilt,) if beside else (places.current, places.history):
            self.upkeep.let_go(place)

    def maintain(self, table: str, answer: LakeTable, asked_ms: int) -> None:
        def tell(outcomes: Sequence[Outcome]) -> None:
            said = {"asked_ms": asked_ms, "by": str(self._owner), "tasks": [asdict(outcome) for outcome in outcomes]}
            answer.set_properties({MAINTAINED: written(said)})

        self.upkeep.ask(table, tell)

    def _refuse_half_a_table(self, engine: Engine, places: TableLocations) -> None:
        there = {place: self._tables.exists(engine, place) for place in (places.current, places.history)}
        if len(set(there.values())) == 1:
            return
        lost, held = sorted(there, key=there.__getitem__)
        kept = self._tables.open(engine, TableSpec(held, StructType(), partition_of(held, places))).read(["_seq"])
        if kept.num_rows:
            raise HalfATableError(
                f"{lost} is not there, but {held} holds {kept.num_rows} rows; nothing was created in its place",
                hint="put it back, or run `lakestream rebuild`; to begin anew, move both and the checkpoint away",
            )

    def tend(self) -> None:
        """One piece of upkeep. The table `latency`, which others make, is looked for until it is there."""
        if not self._looks_after_latency and self._clock() >= self._look_for_latency_ms:
            self._look_for_latency_ms = self._clock() + _LOOK_FOR_LATENCY_EVERY_MS
            attempt("look", "latency", self._look_for_latency)
        self.upkeep.run_one()

    def _look_for_latency(self) -> None:
        place = self.lake.shared("latency")
        if self._tables.exists(shared_engine(self.lake), place):
            self._looked_after(TableSpec(place, StructType()))
            self._looks_after_latency = True

    @cached_property
    def _rejects(self) -> LakeTable:
        return self._looked_after(rejects.spec(self.lake.shared("rejects")))

    @cached_property
    def _parked(self) -> LakeTable:
        return self._looked_after(parking.spec(self.lake.shared("parked")))

    @cached_property
    def _refused(self) -> LakeTable:
        return self._looked_after(parking.spec(self.lake.shared("refused")))

    @cached_property
    def _rebuild_parked(self) -> LakeTable:
        return self._looked_after(parking.spec(self.lake.shared("rebuild_parked")))

    @cached_property
    def _schema_changes(self) -> LakeTable:
        return self._looked_after(schema_log.spec(self.lake.shared("schema_changes")))

    def _looked_after(self, spec: TableSpec) -> LakeTable:
        """A table that all source tables share."""
        table = self._tables.open(shared_engine(self.lake), spec)
        self.upkeep.take_on(shared_upkeep(table, self._settings.upkeep, self._clock))
        return table

    @cached_property
    def _objects(self) -> S3Objects:
        aws = self._settings.aws
        attempts = self._settings.pipeline.claim_check_attempts
        return S3Objects(client(aws, "s3", attempts=attempts))

    def _decode_again(self, changes: pa.Table) -> pa.Table:
        return self.decoder.changes(as_source_rows(changes))


def partition_of(place: Location, places: TableLocations) -> tuple[str, ...]:
    return ("_day",) if place == places.history else ()


def _apply(properties: Mapping[str, str], table: LakeTable, guard: Guard) -> None:
    """What the rules ask of a table that was there before them."""
    present = table.properties()
    if any(present.get(name) != value for name, value in properties.items()):
        table.set_properties(properties, guard)

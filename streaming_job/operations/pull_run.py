"""A pull's passes, made from the job's configuration: what is read goes to the one writer, then the cursors move."""

import gzip
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from pyspark.sql import SparkSession

from bridge_lambda.envelope import Parked
from config.errors import ConfigurationError
from config.settings import Settings
from config.tables import PullRules, TableConfig
from streaming_job.aws import client
from streaming_job.objects import Bucket
from streaming_job.operations.handing_over import Delivery, Standing, Total
from streaming_job.operations.lake_past import past_of
from streaming_job.operations.lake_rows import lake_rows
from streaming_job.operations.pull import GENERATION, Counts, Pull
from streaming_job.operations.pull_cursors import Cursor, Cursors
from streaming_job.operations.pull_index import Index
from streaming_job.operations.pull_reconcile import Mended, Reconcile
from streaming_job.operations.pull_versions import Versions
from streaming_job.operations.source_rules import source_rules
from streaming_job.operations.source_scan import CapacityBudget
from streaming_job.operations.source_side import SourceSide
from streaming_job.pipeline.intake import HandOver, Intake, Piece
from streaming_job.pipeline.locations import Lake
from streaming_job.spark import spark_session

_ROUND_ROWS: Final = 100_000
"""So many are handed over before the lake is waited for: what a cut costs at most."""
_PACKING: Final = 3
_NAME_CHARS_MAX: Final = 100

Say = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Request:
    tenants: tuple[str, ...] = ()
    read_capacity_units_per_s: float | None = None
    segments: int = 4
    state_file: Path


@dataclass
class Outcome:
    """Of one pass."""

    not_in_index: int
    counts: Counts = field(default_factory=Counts)
    mended: Mended | None = None
    totals: list[Total] = field(default_factory=list)
    seconds: float = 0.0

    def as_dict(self) -> dict[str, Any]:
        names = ("rejects", "history_inserted", "current_inserted", "current_updated")
        return {
            **self.counts.as_dict(),
            "not_in_index": self.not_in_index,
            "reconciled": self.mended.as_dict() if self.mended is not None else None,
            "lake": {name: sum(getattr(total, name) for total in self.totals) for name in names},
            "seconds": round(self.seconds, 3),
        }


@dataclass
class PullRun:
    settings: Settings
    config: TableConfig
    rules: PullRules
    request: Request
    pull: Pull
    intake: Intake
    say: Say
    spark: SparkSession | None = None
    """A session there is already; without one, one is started where it is needed."""

    def once(self, delivery: Delivery) -> Outcome:
        """One pass."""
        began = time.monotonic()
        tenants = self._tenants()
        outcome = Outcome(self.pull.index.not_in_it)
        lines = _Handed(self.config.table, self.intake, delivery, outcome.totals)
        moved: dict[str, Cursor] = {}
        for portion in self.pull.read(tenants):
            self.say(f"{self.pull.counts.read:,} items read, {self.pull.counts.sent:,} of them new")
            lines.hand_over(portion.lines)
            moved |= portion.cursors
            if lines.waiting >= _ROUND_ROWS:
                lines.wait()
                self.pull.cursors.commit(moved)
                moved = {}
        lines.wait()
        self.pull.cursors.commit(moved)
        outcome.counts = self.pull.counts
        outcome.seconds = time.monotonic() - began
        return outcome

    def reconcile(self, outcome: Outcome) -> None:
        """After a pass, and its delivery: the comparison may need a Spark of its own."""
        began = time.monotonic()
        with ExitStack() as cleanup:

            def spark() -> SparkSession:
                return self.spark or cleanup.enter_context(spark_session("lakestream-pull", self.settings.spark))

            self.say("comparing the whole table with the lake")
            lake = lake_rows(self.settings, self.config, Lake(self.settings.lake).of(self.config), spark)
            source = SourceSide(self.config, self.pull.rules)
            work = Reconcile(self.pull, source, lake, self.request.segments)
            mending = list(work.read())
        with self.delivery() as delivery:
            lines = _Handed(self.config.table, self.intake, delivery, outcome.totals)
            for some in mending:
                lines.hand_over(some)
            lines.wait()
        outcome.mended = work.counts
        outcome.seconds += time.monotonic() - began

    def delivery(self) -> Delivery:
        """Under a name of its own. What a run that was killed left waiting goes: its cursors did not move."""
        cursors = self.pull.cursors
        if cursors.handed_over:
            self.intake.withdraw(cursors.handed_over)
            self.intake.forget(cursors.handed_over)
        name = f"pull-{self.config.table[:_NAME_CHARS_MAX]}-{_now_ms()}"
        cursors.handed_over = name
        cursors.keep()
        tables = {self.config.table: self.config}

        def show(standing: Standing) -> None:
            who = standing.writer or "this command"
            self.say(f"{standing.taken_in} of {standing.handed_over} portions in the lake, by {who}")

        return Delivery(self.settings, tables, self.intake, name, name="lakestream pull", show=show, spark=self.spark)

    def _tenants(self) -> Sequence[str]:
        """As named by the command, or the rules; or all that were ever discovered."""
        index, cursors = self.pull.index, self.pull.cursors
        named = self.request.tenants or self.rules.tenants
        if named:
            return [index.text(tenant) for tenant in named]
        now_ms = self.pull.now_ms()
        if not cursors.tenants or now_ms - cursors.discovered_ms >= self.rules.discover_every_s * 1_000:
            self.say("discovering tenants")
            for tenant in index.discover():
                cursors.tenants.setdefault(tenant, Cursor())
            cursors.discovered_ms = now_ms
            cursors.keep()
        return sorted(cursors.tenants)


@dataclass
class _Handed:
    """Portions on their way into the lake."""

    table: str
    intake: Intake
    delivery: Delivery
    totals: list[Total]
    waiting: int = 0
    """Rows handed over and not yet waited for."""

    def hand_over(self, lines: Sequence[bytes]) -> None:
        if not lines:
            return
        number = f"{self.delivery.parts:06d}"
        body = gzip.compress(b"".join(lines), _PACKING, mtime=0)
        address = self.intake.stage(self.delivery.id, number, body)
        piece = Piece(name=number, address=address, form="lines")
        self.delivery.hand_over(
            HandOver(
                id=self.delivery.id,
                what="pull",
                tables=(self.table,),
                stream=f"pull/{self.table}",
                at_ms=_now_ms(),
                part=self.delivery.parts,
                pieces=(piece,),
            )
        )
        self.waiting += len(lines)

    def wait(self) -> None:
        if self.waiting:
            self.totals.append(self.delivery.wait())
            self.waiting = 0


def run_of(
    settings: Settings, table: TableConfig, request: Request, say: Say, spark: SparkSession | None = None
) -> PullRun:
    """ConfigurationError, before anything is read, for whatever stands against it."""
    if table.pull is None:
        raise ConfigurationError(
            f"the rules of {table.table} say nothing of pulling it",
            hint="add `pull: {index: …, version: ms}` to its rules file; config/README.md has the words",
        )
    versions = Versions(table.pull.version, table.pull.overlap)
    budget = CapacityBudget(request.read_capacity_units_per_s)
    index = Index.describe(client(settings.aws, "dynamodb", attempts=8), table, versions, budget)
    cursors = Cursors.load(request.state_file, table.table, table.pull.index)
    with ExitStack() as cleanup:
        if past_of(settings, table, cleanup).has_newer_than(GENERATION):
            raise ConfigurationError(
                f"the lake's rows of {table.table} come from its stream: what is pulled would never replace them",
                hint="let the job read the stream, or pull into another lake (lake.root, or a schema of its own)",
            )
    claims = _Claims(settings)
    return PullRun(
        settings,
        table,
        table.pull,
        request,
        Pull(index, source_rules(settings, table.table), versions, cursors, claims.park, claims.bucket, _now_ms),
        Intake.of(settings),
        say,
        spark,
    )


@dataclass(frozen=True)
class _Claims:
    """Images too large for a line; few tables have any."""

    settings: Settings

    @property
    def bucket(self) -> str:
        return self.settings.bucket.name if self.settings.bucket is not None else ""

    def park(self, claim: Parked) -> None:
        if not self.bucket:
            raise ConfigurationError(
                "an item is too large for a line, and there is no bucket for it", hint="add `bucket: {name: …}`"
            )
        Bucket(client(self.settings.aws, "s3"), self.bucket).put(claim.name, claim.body)


def _now_ms() -> int:
    return time.time_ns() // 1_000_000

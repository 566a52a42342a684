"""Upkeep on a person's word: by the job that holds a table, between its batches, or here where no job runs.

What is done is what the job does by itself when it is due: `pipeline.upkeep` has the tasks. A table has one writer, so
this takes its lease, or asks the one who has it and waits for the answer.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

from pyspark.sql.types import StructType

from config.errors import LakestreamError
from config.settings import Settings
from config.tables import SHARED_TABLES, TableConfig
from streaming_job.errors import LeaseHeldError
from streaming_job.pipeline import history
from streaming_job.pipeline.lease import Clock, Lease, Owner, holder_of
from streaming_job.pipeline.locations import Lake, Location
from streaming_job.pipeline.merge import LakeTable, TableSpec, no_guard
from streaming_job.pipeline.opening import Tables, shared_engine
from streaming_job.pipeline.properties import read
from streaming_job.pipeline.requests import MAINTAIN, MAINTAINED, ask
from streaming_job.pipeline.upkeep import Outcome, Task, perform, shared_upkeep, upkeep_of

NOT_YET: Final = 10
_NAME: Final = "lakestream maintain"
_LOOK_EVERY_S: Final = 1.0

Say = Callable[[str], None]


class NotYetMaintainedError(LakestreamError):
    """The job was asked and has not answered in time; it will do it all the same."""

    exit_code = NOT_YET


@dataclass(frozen=True)
class Maintained:
    """One source table's upkeep, or that of the tables all share."""

    table: str | None
    by: str
    tasks: Sequence[Outcome]

    def as_dict(self) -> dict[str, Any]:
        return {"by": self.by, "tasks": [asdict(task) for task in self.tasks]}

    @property
    def failed(self) -> bool:
        return any(task.failure is not None for task in self.tasks)


class Maintenance:
    def __init__(
        self,
        settings: Settings,
        tables: Tables,
        *,
        clock: Clock,
        wait_s: float,
        say: Say = lambda _: None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._settings = settings
        self._tables = tables
        self._clock = clock
        self._wait_ms = wait_s * 1000
        self._say = say
        self._sleep = sleep
        self._lake = Lake(settings.lake)

    def plan(self, configs: Sequence[TableConfig]) -> Iterator[Maintained]:
        """What there is to do. Nothing is changed, no lease is taken."""
        for config in configs:
            opened = self._opened(config)
            tasks = self._tasks_of(config, *opened, no_guard) if opened else []
            yield Maintained(config.table, "nobody: a dry run", _plans(tasks))
        yield Maintained(None, "nobody: a dry run", _plans(self._shared_tasks()))

    def run(self, configs: Sequence[TableConfig]) -> Iterator[Maintained]:
        is_shared_done = False
        for config in configs:
            opened = self._opened(config)
            if opened is None:
                yield Maintained(config.table, "nobody: there is no table yet", ())
                continue
            done = self._maintain(config, *opened)
            # The job does with any table's upkeep that of the tables all share: it is the one who writes them.
            is_shared_done = is_shared_done or done.by != _NAME
            yield done
        if not is_shared_done:
            yield Maintained(None, _NAME, list(self._performed(self._shared_tasks(), lambda: None)))

    def _maintain(self, config: TableConfig, table: LakeTable, past: LakeTable) -> Maintained:
        lease = Lease(table, Owner.here(_NAME), duration_ms=self._settings.lease.duration_s * 1000, clock=self._clock)
        give_up_ms = self._clock() + self._wait_ms
        while True:
            try:
                lease.acquire()
            except LeaseHeldError as held:
                answered = self._by_its_writer(config.table, table, give_up_ms, held)
                if answered is not None:
                    return answered
                continue
            try:
                tasks = self._tasks_of(config, table, past, lease.check)
                return Maintained(config.table, _NAME, list(self._performed(tasks, lease.renew_when_due)))
            finally:
                lease.release()

    def _by_its_writer(self, name: str, table: LakeTable, give_up_ms: float, held: LeaseHeldError) -> Maintained | None:
        """None: whoever had the table is gone, and has not answered."""
        asked_ms = self._clock()
        ask(table, MAINTAIN, asked_ms)
        while True:
            table.refresh()
            properties = table.properties()
            answer = read(properties.get(MAINTAINED))
            if answer is not None and answer["asked_ms"] >= asked_ms:
                return Maintained(name, answer["by"], [Outcome(**task) for task in answer["tasks"]])
            holder = holder_of(properties, self._clock())
            if holder is None:
                return None
            if self._clock() >= give_up_ms:
                raise NotYetMaintainedError(
                    f"{name}: {holder} has the table, was asked, and has not answered in {self._wait_ms / 1000:.0f} s",
                    hint="it will do it in a pause between two batches; its log says what; --wait waits longer",
                ) from held
            self._say(f"{name}: {holder} does it between its batches")
            self._sleep(_LOOK_EVERY_S)

    def _performed(self, tasks: Sequence[Task], between: Callable[[], None]) -> Iterator[Outcome]:
        for task in tasks:
            self._say(f"{task.name} of {task.location}")
            yield perform(task)
            between()

    def _opened(self, config: TableConfig) -> tuple[LakeTable, LakeTable] | None:
        """None where one of the two is not there: the job makes them, or says which half is lost."""
        places, engine = self._lake.of(config), config.lake.engine
        if not all(self._tables.exists(engine, place) for place in (places.current, places.history)):
            return None
        return (
            self._tables.open(engine, TableSpec(places.current, StructType())),
            self._tables.open(engine, history.spec(places.history, {})),
        )

    def _tasks_of(
        self, config: TableConfig, table: LakeTable, past: LakeTable, guard: Callable[[], None]
    ) -> list[Task]:
        return upkeep_of(table, past, config.lake, self._settings.upkeep, self._clock, guard=guard)

    def _shared_tasks(self) -> list[Task]:
        engine = shared_engine(self._lake)
        there = [place for place in map(self._lake.shared, SHARED_TABLES) if self._tables.exists(engine, place)]
        return [
            task
            for place in there
            for task in shared_upkeep(self._open_shared(place), self._settings.upkeep, self._clock)
        ]

    def _open_shared(self, place: Location) -> LakeTable:
        return self._tables.open(shared_engine(self._lake), TableSpec(place, StructType()))


def _plans(tasks: Sequence[Task]) -> list[Outcome]:
    return [Outcome(task.name, str(task.location), task.plan()) for task in tasks]

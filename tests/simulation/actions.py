"""What can happen in a run: each kind, how likely it is, what it does. Whatever it needs it draws from its seed."""

from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Final

from tests.simulation.bridge import INVOCATION_FAULTS
from tests.simulation.clock import HOUR_MS, MachineClock
from tests.simulation.errors import KilledError
from tests.simulation.job import DEATHS
from tests.simulation.kinesis import PUT_FAULTS, READ_FAULTS, PutFault
from tests.simulation.operations import Snapshot
from tests.simulation.table import SourceTable
from tests.simulation.world import PURGE_WINDOW_MS, World

Do = Callable[[World, Random], None]
_SKEW_MS_MAX: Final = 25_000
"""Two machines may then disagree by less than the minute the source allows for."""


@dataclass(frozen=True)
class Kind:
    weight: float
    do: Do
    is_fault: bool = False


KINDS: Final[dict[str, Kind]] = {}


def kind(name: str, weight: float, *, fault: bool = False) -> Callable[[Do], Do]:
    def register(do: Do) -> Do:
        KINDS[name] = Kind(weight, do, fault)
        return do

    return register


def some_table(world: World, rng: Random) -> SourceTable:
    return rng.choice(world.tables)


# --- the table's users ------------------------------------------------------------------------------------------------


@kind("put", 30)
def put(world: World, rng: Random) -> None:
    table = some_table(world, rng)
    for _ in range(rng.choice((1, 1, 2, 6))):
        table.put(rng.randrange(world.setup.keys), rng)


@kind("delete", 8)
def delete(world: World, rng: Random) -> None:
    some_table(world, rng).delete(rng.randrange(world.setup.keys), rng)


@kind("expire", 3)
def expire(world: World, rng: Random) -> None:
    some_table(world, rng).delete(rng.randrange(world.setup.keys), rng, by_ttl=True)


@kind("oversize", 0.2)
def oversize(world: World, rng: Random) -> None:
    world.faults["oversize"] += 1
    some_table(world, rng).put(rng.randrange(world.setup.keys), rng, oversize=True)


@kind("poison", 1.5, fault=True)
def poison(world: World, rng: Random) -> None:
    some_table(world, rng).put(rng.randrange(world.setup.keys), rng, readable=False)


# --- time -------------------------------------------------------------------------------------------------------------


@kind("wait", 12)
def wait(world: World, rng: Random) -> None:
    world.pass_time(rng.choice((1, 40, 300, 2_000, 30_000, 600_000)))


@kind("wait long", 1.5, fault=True)
def wait_long(world: World, rng: Random) -> None:
    world.pass_time(rng.choice((1, 3, 9, 15, 22, 23, 26)) * HOUR_MS)


@kind("skew", 2, fault=True)
def skew(world: World, rng: Random) -> None:
    clocks: tuple[MachineClock, ...] = (world.bridge_clock, world.job_clock, world.person_clock)
    rng.choice(clocks).skew_ms = rng.randrange(-_SKEW_MS_MAX, _SKEW_MS_MAX)


# --- stream to bridge -------------------------------------------------------------------------------------------------


@kind("pump", 55)
def pump(world: World, rng: Random) -> None:
    mapping = rng.choice(world.mappings)
    try:
        for _ in range(rng.choice((1, 2, 5, 20))):
            mapping.step(rng)
    except KilledError:
        mapping.crash()


@kind("kill mapping", 3, fault=True)
def kill_mapping(world: World, rng: Random) -> None:
    rng.choice(world.mappings).crash()


@kind("second mapping", 0.5, fault=True)
def second_mapping(world: World, rng: Random) -> None:
    world.map_again(some_table(world, rng).stream)


@kind("roll shards", 2, fault=True)
def roll_shards(world: World, rng: Random) -> None:
    some_table(world, rng).stream.roll()


@kind("stream anew", 0.4, fault=True)
def stream_anew(world: World, rng: Random) -> None:
    """Switched off and on again: another label, other numbers; what the old one holds can still be read."""
    world.map(some_table(world, rng).open_stream())


@kind("expired stream iterator", 1, fault=True)
def expired_stream_iterator(world: World, rng: Random) -> None:
    rng.choice(world.mappings).wiring.stream.iterators_expire += 1


@kind("invocation fault", 5)
def invocation_fault(world: World, rng: Random) -> None:
    world.bridge.faults.append(rng.choice(INVOCATION_FAULTS))


@kind("cut short", 3, fault=True)
def cut_short(world: World, rng: Random) -> None:
    """Some records of the next call are refused, and there is no time for another."""
    world.bridge.faults.appendleft("little time")
    world.kinesis.put_faults.appendleft(PutFault("partial", rng.randrange(2**31)))


@kind("rules missing", 0.8, fault=True)
def rules_missing(world: World, rng: Random) -> None:
    world.bridge.rules_are_missing = rng.random() < 0.6


# --- Kinesis ----------------------------------------------------------------------------------------------------------


@kind("put fault", 14)
def put_fault(world: World, rng: Random) -> None:
    for _ in range(rng.choice((1, 1, 2, 4))):
        world.kinesis.put_faults.append(PutFault(rng.choice(PUT_FAULTS), rng.randrange(2**31)))


@kind("late calls land", 4)
def late_calls_land(world: World, _rng: Random) -> None:
    world.kinesis.land_late()


@kind("kinesis refuses a key", 0.6, fault=True)
def kinesis_refuses(world: World, rng: Random) -> None:
    if rng.random() < 0.6 and world.model.keys:
        world.kinesis.refused_keys.add(rng.choice(list(world.model.keys.values())))
    else:
        world.kinesis.refused_keys.clear()


@kind("split", 2, fault=True)
def split(world: World, rng: Random) -> None:
    world.kinesis.split_at(rng.randrange(100))


@kind("merge", 2, fault=True)
def merge(world: World, rng: Random) -> None:
    world.kinesis.merge_at(rng.randrange(100))


@kind("read fault", 8)
def read_fault(world: World, rng: Random) -> None:
    for _ in range(rng.choice((1, 2, 8))):
        world.kinesis.read_faults.append(rng.choice(READ_FAULTS))


@kind("all iterators expire", 1, fault=True)
def all_iterators_expire(world: World, _rng: Random) -> None:
    world.kinesis.expire_iterators()


# --- S3 ---------------------------------------------------------------------------------------------------------------


@kind("s3 down", 1.5, fault=True)
def s3_down(world: World, _rng: Random) -> None:
    world.s3.is_down = True


@kind("s3 up", 3)
def s3_up(world: World, _rng: Random) -> None:
    world.s3.is_down = False


@kind("claim checks lost", 0.6)
def claims_lost(world: World, _rng: Random) -> None:
    world.s3.lose_claims()


# --- the job ----------------------------------------------------------------------------------------------------------


@kind("trigger", 50)
def trigger(world: World, rng: Random) -> None:
    for _ in range(rng.choice((1, 1, 3))):
        world.job.trigger(everything=rng.random() < 0.1)


@kind("kill job", 8)
def kill_job(world: World, rng: Random) -> None:
    world.job.trigger(rng.choice(DEATHS))


@kind("run to now", 3)
def run_to_now(world: World, _rng: Random) -> None:
    """The job as it runs without streaming: what there is, then the end."""
    world.job.run_to_now()


@kind("restart job", 4, fault=True)
def restart_job(world: World, _rng: Random) -> None:
    world.job.query.stop()


@kind("older checkpoint", 1.5, fault=True)
def older_checkpoint(world: World, rng: Random) -> None:
    world.job.query.restore(rng.randrange(1, 5), uncommitted=rng.random() < 0.5)


@kind("table down", 1, fault=True)
def table_down(world: World, rng: Random) -> None:
    world.lake.tables[some_table(world, rng).name].is_down = True


@kind("tables up", 2)
def tables_up(world: World, _rng: Random) -> None:
    for table in world.lake.tables.values():
        table.is_down = False


@kind("purge", 3)
def purge(world: World, _rng: Random) -> None:
    for table in world.tables:
        if table.rules.purges and world.lake.purge(table.name, PURGE_WINDOW_MS):
            world.faults["tombstones purged"] += 1


# --- the archive, and the person --------------------------------------------------------------------------------------


@kind("deliver", 8)
def deliver(world: World, rng: Random) -> None:
    world.delivery.poll()
    if rng.random() < 0.6:
        world.delivery.deliver()


@kind("kill delivery", 1, fault=True)
def kill_delivery(world: World, rng: Random) -> None:
    if rng.random() < 0.5:
        world.delivery.deliver(dies=True)
    world.delivery.crash()


@kind("replay", 0.7)
def replay(world: World, rng: Random) -> None:
    world.faults["archive replayed"] += 1
    world.replay(rng)


@kind("redrive", 2)
def redrive(world: World, rng: Random) -> None:
    if rng.random() < 0.3:
        world.s3.kill_after_calls = rng.randrange(1, 6)
    world.person.redrive()
    world.s3.kill_after_calls = None


@kind("redrive rejects", 0.7)
def redrive_rejects(world: World, _rng: Random) -> None:
    world.person.redrive_rejects()


@kind("snapshot", 1)
def snapshot(world: World, rng: Random) -> None:
    world.snapshots.append(Snapshot(some_table(world, rng), world.person))


@kind("snapshot page", 3)
def snapshot_page(world: World, rng: Random) -> None:
    if world.snapshots:
        world.faults["snapshot page"] += 1
        if not world.snapshots[0].step(rng.randrange(1, 4)):
            world.snapshots.pop(0)


@kind("accept loss", 2)
def accept_loss(world: World, _rng: Random) -> None:
    world.accept_loss()


WEIGHTS: Final = {name: kind_.weight for name, kind_ in KINDS.items()}


def do(world: World, name: str, seed: int) -> None:
    rng = Random(seed)
    world.begin_action(rng)
    if KINDS[name].is_fault:
        world.faults[name] += 1
    KINDS[name].do(world, rng)

"""The end of a run: every fault mended, everything carried through. What then is missing is lost."""

from random import Random
from typing import Final

from tests.simulation.errors import AT_REST, ViolationError
from tests.simulation.storage import BUCKET
from tests.simulation.world import World

_ROUNDS_MAX: Final = 60
_STEPS_MAX: Final = 3_000


def heal(world: World) -> None:
    world.kinesis.put_faults.clear()
    world.kinesis.read_faults.clear()
    world.kinesis.refused_keys.clear()
    world.kinesis.land_late()
    world.bridge.faults.clear()
    world.bridge.rules_are_missing = False
    world.s3.is_down = False
    world.s3.find_claims()
    for table in world.lake.tables.values():
        table.is_down = False


def drain(world: World) -> None:
    """Until nothing moves any more. What never comes to rest is a violation: a shard is blocked, or a loop runs."""
    rng = Random(world.clock.ms)
    replayed = 0
    for _ in range(_ROUNDS_MAX):
        moved = _pump(world, rng)
        moved += _run_job(world)
        moved += _archive(world)
        moved += world.person.redrive()
        if not moved:
            moved += world.person.redrive_rejects(again=_has_mendable_rejects(world))
        if not moved:
            if (losses := _replayed(world, replayed)) == replayed:
                return
            replayed = losses
    raise ViolationError(AT_REST, f"not after {_ROUNDS_MAX} rounds without a fault")


def _has_mendable_rejects(world: World) -> bool:
    """A claim check that was missing, whose change no other delivery has brought since, not to both tables."""
    return any(
        reject.reason.startswith("the claim check") and not world.is_in_place(reject.record.data)
        for reject in world.lake.rejects.values()
    )


def _replayed(world: World, already: int) -> int:
    """What was archived since a loss was accepted; how many losses that were."""
    if len(world.losses_ms) > already:
        world.replay(Random(0))
    return len(world.losses_ms)


def _pump(world: World, rng: Random) -> int:
    moved = 0
    for mapping in world.mappings:
        while True:
            if mapping.step(rng):
                moved += 1
            elif (wakes_s := mapping.wakes_s) is not None:
                world.pass_time(max(1, int(wakes_s * 1000) - world.clock.ms + 1))
            else:
                break
            if moved > _STEPS_MAX:
                raise ViolationError(AT_REST, "a mapping never comes to the end of its stream")
    return moved


def _run_job(world: World) -> int:
    moved = 0
    idle = 0
    while idle < 2:
        if world.job.refusal is not None:
            world.accept_loss()
            moved += 1
        if world.job.trigger():
            moved, idle = moved + 1, 0
        else:
            idle += 1
            world.pass_time(1_000)
        if moved > _STEPS_MAX:
            raise ViolationError(AT_REST, "the job never comes to the end of the stream")
    return moved


def _archive(world: World) -> int:
    before = len(world.delivery.objects)
    while world.delivery.poll():
        pass
    world.delivery.deliver()
    return len(world.delivery.objects) - before


def letters_left(world: World) -> list[bytes]:
    return [world.s3.objects[BUCKET, name] for name in world.s3.names("dead-letters/")]

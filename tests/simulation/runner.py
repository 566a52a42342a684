"""One run, from a scenario to what came of it; and the shortest history that still comes to the same."""

import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from tests.simulation import actions, scenario
from tests.simulation.checkers import all_checkers
from tests.simulation.errors import ViolationError
from tests.simulation.healing import drain, heal
from tests.simulation.parts import Parts
from tests.simulation.scenario import Action, Scenario
from tests.simulation.world import World

CRASH = "no code of ours fails by itself"


@dataclass(frozen=True)
class Outcome:
    seed: int
    promise: str | None = None
    """The one that was not kept."""
    what: str = ""
    faults: Counter[str] = field(default_factory=Counter)
    changes: int = 0
    trace: int = 0
    """Says whether two runs were the same."""


def draw(seed: int) -> Scenario:
    return scenario.draw(seed, actions.WEIGHTS)


def run(planned: Scenario, parts: Parts | None = None) -> Outcome:
    world = World(planned, parts or Parts())
    checkers = all_checkers(world)
    seen = 0
    trace = 0

    def look() -> None:
        nonlocal seen, trace
        while seen < len(world.journal):
            observation = world.journal[seen]
            seen += 1
            for checker in checkers:
                checker.see(observation)
        trace = hash_of(trace, world)

    promise, what = None, ""
    try:
        for action in planned.steps:
            actions.do(world, action.kind, action.seed)
            look()
        heal(world)
        drain(world)
        look()
        for checker in checkers:
            checker.at_rest()
    except ViolationError as violation:
        promise, what = violation.promise, violation.what
    except Exception as error:  # noqa: BLE001 - whatever the product raises that nobody handles is a finding
        promise, what = CRASH, "".join(traceback.format_exception(error)[-3:])
    return Outcome(planned.seed, promise, what, world.all_faults(), len(world.model.expected), trace)


def hash_of(trace: int, world: World) -> int:
    """Of what is durable; not of texts, whose hash differs from process to process."""
    state = (trace, world.clock.ms, len(world.journal), len(world.kinesis.landed), len(world.s3.objects))
    return hash(state)


def shrink(planned: Scenario, promise: str, parts: Parts | None = None, *, runs_max: int = 1_500) -> Scenario:
    """Leaves out steps, halves first, then smaller portions, as long as the same promise is broken."""
    left = runs_max

    def still_breaks(steps: tuple[Action, ...]) -> bool:
        nonlocal left
        left -= 1
        return left >= 0 and run(replace(planned, steps=steps), parts).promise == promise

    return replace(planned, steps=shortest(planned.steps, still_breaks))


def shortest(steps: tuple[Action, ...], still_breaks: Callable[[tuple[Action, ...]], bool]) -> tuple[Action, ...]:
    portion = max(1, len(steps) // 2)
    while True:
        at, cut = 0, False
        while at < len(steps):
            fewer = steps[:at] + steps[at + portion :]
            if still_breaks(fewer):
                steps, cut = fewer, True
            else:
                at += portion
        if portion == 1 and not cut:
            return steps
        if not cut or portion > 1:
            portion = max(1, portion // 2)

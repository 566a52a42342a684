"""The soak's plan and its memory: what was killed counts once it is proven, and a run broken off goes on as planned."""

from pathlib import Path

from tests.soak.plan import kills
from tests.soak.state import Done, State
from tests.support.whole_proof import Proof
from tests.support.whole_stack import OTHERS, SPARK

NOTHING_WRONG = {
    "lost": 0,
    "invented": 0,
    "twice": 0,
    "stale": 0,
    "not_archived": 0,
    "rejects": 0,
    "verify_differences": 0,
}


def done(victim: str, recovery_s: float) -> Done:
    return Done(victim, is_spark=victim in SPARK, overlaps=False, recovery_s=recovery_s)


def test_a_fifth_of_the_kills_is_sparks_and_every_process_has_its_turn() -> None:
    planned = list(kills(1, 0, 200))
    assert sum(kill.is_spark for kill in planned) == 40
    assert {kill.victim for kill in planned} == {*SPARK, *OTHERS}


def test_a_run_that_goes_on_kills_what_it_would_have_killed() -> None:
    whole = list(kills(3, 0, 50))
    assert [*kills(3, 0, 17), *kills(3, 17, 50)] == whole
    assert list(kills(4, 0, 50)) != whole


def test_kills_count_when_a_proof_has_followed_and_survive_being_broken_off(tmp_path: Path) -> None:
    file = tmp_path / "state.json"
    state = State.load(file, seed=1)
    state.waiting += [done("job", 20.0), done("mapping", 2.0)]
    state.prove(Proof(changes=10, **NOTHING_WRONG))
    state.waiting.append(done("bridge", 1.0))
    state.save(file)

    again = State.load(file, seed=1)
    assert again.kills == 3
    assert again.report()["kills"] == 2
    again.begin_stack()
    assert again.kills == 2, "the third went with its stack, unproven"
    assert State.load(file, seed=2).kills == 0, "another seed is another run"


def test_a_proof_that_does_not_hold_is_reported_and_proves_no_kill() -> None:
    state = State(seed=1, waiting=[done("delivery", 3.0)])
    state.prove(Proof(changes=10, **{**NOTHING_WRONG, "lost": 2, "stale": 1}))
    report = state.report()
    assert (report["kills"], report["lost"], report["stale"], report["twice"]) == (0, 2, 1, 0)
    assert state.failure is not None


def test_the_report_has_kills_and_recoveries_by_process() -> None:
    state = State(seed=1, waiting=[done("job", 20.0), done("job", 30.0), done("mapping", 2.0)])
    state.prove(Proof(changes=10, **NOTHING_WRONG))
    report = state.report()
    assert report["by_process"] == {"job": 2, "mapping": 1}
    assert report["kills_of_spark"] == 2
    assert report["recovery_s"]["job"] == {"p50": 25.0, "max": 30.0}
    assert report["recovery_s"]["all"] == {"p50": 20.0, "max": 30.0}

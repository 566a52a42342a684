"""What a soak has done so far, on disk after each kill; and the report of it."""

import json
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from infra.local.home import write_json
from tests.support.whole_proof import Proof


@dataclass(frozen=True)
class Done:
    """One kill."""

    victim: str
    is_spark: bool
    overlaps: bool
    recovery_s: float
    """From the kill until a change written after it could be queried and every process was ready."""


@dataclass
class State:
    seed: int
    proven: list[Done] = field(default_factory=list)
    """Up to the last proof."""
    waiting: list[Done] = field(default_factory=list)
    """Since then: they count when a proof has followed in the same stack."""
    proofs: list[Proof] = field(default_factory=list)
    failure: Proof | None = None
    """The one that did not hold; the next run begins with another stack."""
    seconds: float = 0.0
    restarts_failed: int = 0
    """`local restart` said that something did not come up: it was killed meanwhile."""

    @classmethod
    def load(cls, file: Path, seed: int) -> "State":
        """As it was left; a run with another seed begins anew."""
        try:
            said: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return cls(seed)
        if said["seed"] != seed:
            return cls(seed)
        proven, waiting = ([Done(**each) for each in said.pop(name)] for name in ("proven", "waiting"))
        proofs = [Proof(**each) for each in said.pop("proofs")]
        failure = said.pop("failure")
        return cls(**said, proven=proven, waiting=waiting, proofs=proofs, failure=Proof(**failure) if failure else None)

    def save(self, file: Path) -> None:
        write_json(file, asdict(self))

    @property
    def kills(self) -> int:
        return len(self.proven) + len(self.waiting)

    def prove(self, proof: Proof) -> None:
        if not proof.holds:
            self.failure = proof
            return
        self.proofs.append(proof)
        self.proven += self.waiting
        self.waiting = []

    def begin_stack(self) -> None:
        """What was not proven went with the old one."""
        self.waiting, self.failure = [], None

    def report(self) -> dict[str, Any]:
        """What `build/soak.json` says."""
        proofs = [*self.proofs, *([self.failure] if self.failure else [])]
        return {
            "kills": len(self.proven),
            "kills_of_spark": sum(done.is_spark for done in self.proven),
            "kills_into_another_s_recovery": sum(done.overlaps for done in self.proven),
            "by_process": dict(sorted(Counter(done.victim for done in self.proven).items())),
            "recovery_s": recoveries(self.proven),
            "lost": sum(proof.lost + proof.not_archived for proof in proofs),
            "stale": sum(proof.stale + proof.verify_differences for proof in proofs),
            "twice": sum(proof.twice + proof.invented for proof in proofs),
            "rejects": sum(proof.rejects for proof in proofs),
            "proofs": [asdict(proof) for proof in proofs],
            "restarts_failed": self.restarts_failed,
            "seed": self.seed,
            "seconds": round(self.seconds),
        }


def recoveries(done: Sequence[Done]) -> Mapping[str, Mapping[str, float]]:
    """Median and longest, by process and of all."""
    taken: defaultdict[str, list[float]] = defaultdict(list)
    for each in done:
        for name in (each.victim, "all"):
            taken[name].append(each.recovery_s)
    return {name: {"p50": round(median(s), 1), "max": round(max(s), 1)} for name, s in sorted(taken.items())}

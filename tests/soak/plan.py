"""Which process is killed when: drawn from a seed, a fifth of the kills Spark's, and the same however often a run is
broken off.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from random import Random
from typing import Final

from tests.support.whole_stack import OTHERS, SPARK

BLOCK: Final = 5
"""Kills of which one is Spark's."""
PAUSE_S_MAX: Final = 3.0
OVERLAP_SHARE: Final = 0.6
OVERLAP_S_MAX: Final = 6.0


@dataclass(frozen=True)
class Kill:
    number: int
    victim: str
    pause_s: float
    """From the recovery of the one before."""
    overlaps: bool
    """It does not wait for that recovery: it falls into a start, or a second process into the first one's absence."""

    @property
    def is_spark(self) -> bool:
        return self.victim in SPARK

    @property
    def rng(self) -> Random:
        """For what is chosen at the moment itself."""
        return Random(self.number)


def kills(seed: int, first: int, count: int) -> Iterator[Kill]:
    """Those from `first` on, up to `count` in all."""
    for number in range(first, count):
        block, place = divmod(number, BLOCK)
        rng = Random(f"{seed}-{block}")
        victims = [rng.choice(SPARK), *(rng.choice(OTHERS) for _ in range(BLOCK - 1))]
        rng.shuffle(victims)
        rng = Random(f"{seed}-{number}-moment")
        overlaps = rng.random() < OVERLAP_SHARE
        yield Kill(number, victims[place], rng.uniform(0, OVERLAP_S_MAX if overlaps else PAUSE_S_MAX), overlaps)

"""What the observations mean: which are new, which came twice or late, and how far each shard has been read. Pure."""

from collections import OrderedDict, deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

from streaming_job.latency.probe.observation import Observation

KEYS_MAX: Final = 200_000
"""Whose newest change is remembered, some 50 MB of them; the keys not heard of for longest are forgotten."""
TIP_LOOKS: Final = 8
"""The library may have fetched an answer before it handed over the four that went before it. So many answers in a row
that end at the tip prove that the tip was reached after the first of them came."""


@dataclass(slots=True)
class Counts:
    records: int = 0
    """Each once, whatever they hold."""
    duplicates: int = 0
    """Changes that came again while they were their key's newest."""
    older_after_newer: int = 0
    """Changes that came after a newer one of their key: sent again, by the bridge's rule of sending."""
    foreign: int = 0
    """Records that are no envelopes."""
    redelivered: int = 0
    """Records that the library handed over again, after a kill or with a lease; they are not counted twice."""
    breaks: int = 0
    """Times that a shard was taken up behind records that a worker of another process had read."""


@dataclass(slots=True)
class ShardState:
    sequence: int = -1
    """The last record taken; of the shard's numbers each is larger than those before it."""
    behind_ms: int = 0
    at_tip_ms: deque[int] = field(default_factory=lambda: deque(maxlen=TIP_LOOKS))
    """When the last answers came, while they ended at the tip."""


@dataclass(slots=True)
class Judge:
    keys_max: int = KEYS_MAX
    counts: Counts = field(default_factory=Counts)
    shards: dict[str, ShardState] = field(default_factory=dict)
    """Those that a worker of ours reads."""
    _known: dict[str, int] = field(default_factory=dict)
    """Shard -> the last record taken, also of shards that are read no more."""
    _newest: OrderedDict[str, str] = field(default_factory=OrderedDict)

    def began(self, shard: str, after: str | None) -> None:
        """A worker reads a shard on from a checkpoint; None: from where the consumer was told to begin."""
        last = self._known.get(shard, -1)
        if after is not None and int(after) > last:
            self.counts.breaks += 1
        self.shards[shard] = ShardState(last)

    def ended(self, shard: str) -> None:
        """Read to its end, or its lease is another's now."""
        self.shards.pop(shard, None)

    def took(
        self, shard: str, observations: Iterable[Observation], behind_ms: int, now_ms: int
    ) -> Sequence[Observation]:
        """The observations that are new."""
        state = self.shards.setdefault(shard, ShardState(self._known.get(shard, -1)))
        new = [observation for observation in observations if self._is_new(state, observation)]
        self._known[shard] = state.sequence
        state.behind_ms = behind_ms
        if behind_ms > 0:
            state.at_tip_ms.clear()
        else:
            state.at_tip_ms.append(now_ms)
        return new

    def read_until_ms(self, shards: Iterable[str]) -> int | None:
        """Everything that had arrived by then has been seen, in all of these shards; None where that is not known."""
        states = [self.shards.get(shard, ShardState()) for shard in shards]
        if not states or any(len(state.at_tip_ms) < TIP_LOOKS for state in states):
            return None
        return min(state.at_tip_ms[0] for state in states)

    def _is_new(self, state: ShardState, observation: Observation) -> bool:
        number = int(observation.sequence)
        if number <= state.sequence:
            self.counts.redelivered += 1
            return False
        state.sequence = number
        self.counts.records += 1
        if not observation.table:
            self.counts.foreign += 1
        else:
            self._order(observation)
        return True

    def _order(self, observation: Observation) -> None:
        newest = self._newest.get(observation.key, "")
        if observation.seq > newest:
            self._newest[observation.key] = observation.seq
        elif observation.seq == newest:
            self.counts.duplicates += 1
        else:
            self.counts.older_after_newer += 1
        self._newest.move_to_end(observation.key)
        if len(self._newest) > self.keys_max:
            self._newest.popitem(last=False)

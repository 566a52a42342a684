"""An event source mapping without threads: the real lanes, checkpoint, positions and answers, one step at a time."""

import json
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from random import Random
from typing import Any
from zlib import crc32

from infra.local.lineage import readable
from infra.local.mapping.checkpoint import Checkpoint
from infra.local.mapping.event import Change, event_of
from infra.local.mapping.lane import Discard, Invoke, Lane, Policy, Wait
from infra.local.mapping.outcome import Outcome
from infra.local.mapping.positions import Positions
from infra.local.mapping.stream import ExpiredError, TrimmedError
from tests.simulation.clock import HandClock
from tests.simulation.model import Identity
from tests.simulation.observations import Delivered, Journal
from tests.simulation.table import TableStream

_PENDING_MAX = 200


class Disk:
    """A document that survives its process."""

    def __init__(self) -> None:
        self.text: str | None = None

    def load(self) -> dict[str, Any] | None:
        return json.loads(self.text) if self.text is not None else None

    def save(self, document: dict[str, Any]) -> None:
        self.text = json.dumps(document)


class DiskPositions(Positions):
    """The mapping's positions, in memory that survives."""

    def __init__(self, disk: Disk) -> None:
        self._document = disk  # type: ignore[assignment]
        self._lock = threading.Lock()
        self._shards = (disk.load() or {}).get("shards", {})


@dataclass(frozen=True)
class Wiring:
    """What a mapping works with; some of it is replaced where a bug is planted."""

    stream: TableStream
    invoke: Callable[[int, bytes], Outcome]
    send: Callable[[Discard, str], None]
    """To the on-failure destination."""
    finished: Callable[[Iterable[Identity]], None]
    trimmed: Callable[[Iterable[Identity]], None]
    policy: Policy
    parallelization: int
    clock: HandClock
    journal: Journal
    lane: type[Lane] = Lane
    checkpoint: type[Checkpoint] = Checkpoint


class ShardState:
    """What the process knows of one shard; gone when it is killed."""

    def __init__(self, wiring: Wiring, after: str | None) -> None:
        self.lanes = [wiring.lane(wiring.policy) for _ in range(wiring.parallelization)]
        self.checkpoint = wiring.checkpoint(after)
        self.read_after = after
        self.is_ended = False


class SimMapping:
    def __init__(self, number: int, wiring: Wiring, disk: Disk) -> None:
        self.number = number
        self.wiring = wiring
        self.disk = disk
        self._begin()

    def _begin(self) -> None:
        self.positions = DiskPositions(self.disk)
        self.shards: dict[str, ShardState] = {}

    def crash(self) -> None:
        """Everything in hand is gone; the positions stand."""
        self._begin()

    def step(self, rng: Random) -> bool:
        """One thing of those it could do now; False when there was nothing to do."""
        self._discover()
        names = list(self.shards)
        rng.shuffle(names)
        for name in names:
            turns = [partial(self._poll, name), *(partial(self._work, name, lane) for lane in self.shards[name].lanes)]
            rng.shuffle(turns)
            if any(turn() for turn in turns):
                return True
        return False

    @property
    def wakes_s(self) -> float | None:
        """When a lane that waits has something to do; None when all are idle."""
        now_s = self._now_s()
        waits = [lane.next(now_s, closing=s.is_ended) for s in self.shards.values() for lane in s.lanes if len(lane)]
        return min((w.until_s for w in waits if isinstance(w, Wait) and w.until_s is not None), default=None)

    # --- shards -------------------------------------------------------------------------------------------------------

    def _discover(self) -> None:
        for name, state in list(self.shards.items()):
            if state.is_ended and not len(state.checkpoint):
                self.positions.finish(name)
                del self.shards[name]
        listed = self.wiring.stream.shards()
        unlisted = set(self.wiring.stream.shards_by_name) - {shard.id for shard in listed} - self.positions.finished
        self.wiring.trimmed(self.wiring.stream.gone(sorted(unlisted)))
        self.positions.keep([shard.id for shard in listed] + list(self.shards))
        for shard in readable(listed, self.positions.finished):
            if shard.id not in self.shards:
                self.shards[shard.id] = ShardState(self.wiring, self.positions.after(shard.id))

    def _poll(self, name: str) -> bool:
        state = self.shards[name]
        if state.is_ended or len(state.checkpoint) > _PENDING_MAX:
            return False
        stream = self.wiring.stream
        try:
            page = stream.page(stream.iterator(name, after=state.read_after, start="TRIM_HORIZON"))
        except ExpiredError:
            return True
        except TrimmedError:
            self.positions.forget(name)
            state.read_after = None
            return True
        self.wiring.trimmed(stream.gone([name]))
        state.is_ended = page.next_iterator is None
        if not page.changes:
            return state.is_ended
        state.read_after = page.changes[-1].sequence
        state.checkpoint.read(page.changes)
        for change in page.changes:
            state.lanes[crc32(change.item) % len(state.lanes)].add([change], self._now_s())
        return True

    # --- lanes --------------------------------------------------------------------------------------------------------

    def _work(self, name: str, lane: Lane) -> bool:
        state = self.shards[name]
        action = lane.next(self._now_s(), closing=state.is_ended)
        match action:
            case Wait():
                return False
            case Invoke(batch):
                self._tell(batch.changes)
                outcome = self.wiring.invoke(self.number, event_of(batch.changes))
                self._finish(name, state, lane.settle(outcome, self._now_s()))
            case Discard(batch):
                self._tell(batch.changes)
                self.wiring.send(action, name)
                self._finish(name, state, lane.discarded())
        return True

    def _tell(self, changes: Iterable[Change]) -> None:
        self.wiring.journal.extend(Delivered(self.number, identity) for identity in self._identities(changes))

    def _identities(self, changes: Iterable[Change]) -> list[Identity]:
        stream = self.wiring.stream
        return [(stream.table, stream.generation, int(change.sequence)) for change in changes]

    def _finish(self, name: str, state: ShardState, done: Sequence[Change]) -> None:
        self.wiring.finished(self._identities(done))
        if done and state.checkpoint.done(done) and state.checkpoint.after is not None:
            self.positions.move(name, state.checkpoint.after)

    def _now_s(self) -> float:
        return self.wiring.clock.ms / 1000

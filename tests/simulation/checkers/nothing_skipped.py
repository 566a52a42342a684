"""Up to where the job's position stands, every record of Kinesis was brought to the tables, or its loss was said."""

from collections import defaultdict
from collections.abc import Mapping
from typing import Any, Final

from streaming_job.kinesis.reader import START_MS_MAX
from tests.simulation.checkers.base import Checker
from tests.simulation.observations import Committed, LossAccepted, Observation, RanToNow, Sunk
from tests.simulation.world import World

_CLOCKS_APART_MS: Final = 60_000


class NothingSkipped(Checker):
    promise = "1: what can no longer be read stops the job, it is never skipped"

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self._brought: set[tuple[str, str]] = set()
        self._checked: defaultdict[str, int] = defaultdict(int)
        """Of each shard, how many of its records were found brought."""
        self._is_new = True
        """A new query asks for all there is: what was trimmed before it could read a shard was not asked for."""

    def see(self, observation: Observation) -> None:
        match observation:
            case Sunk(records):
                self._brought |= set(records)
            case LossAccepted():
                self._is_new = True
            case RanToNow(began_ms):
                self._check_all(began_ms)
            case Committed(offset, horizon_ms):
                positions = offset["streams"][self.world.kinesis.stream]["shards"]
                if self._is_new:
                    self.world.begun_ms |= dict.fromkeys(self.world.kinesis.shards, horizon_ms + START_MS_MAX)
                    self._is_new = False
                for shard, position in positions.items():
                    self._check(shard, position)

    def _check_all(self, began_ms: int) -> None:
        """By the job's clock, so less what two clocks may be apart."""
        for shard, state in self.world.kinesis.shards.items():
            gone_ms = self.let_go_ms(shard)
            for record in state.records:
                is_due = gone_ms <= record.arrival_ms < began_ms - _CLOCKS_APART_MS
                if is_due and (shard, str(record.sequence)) not in self._brought:
                    self.broken(f"a run to {began_ms} ended without {record.sequence} of {shard}")

    def _check(self, shard: str, position: Mapping[str, Any]) -> None:
        kept = self.world.kinesis.shards[shard].records
        reached = int(position.get("after") or position.get("closed") or 0)
        gone_ms = self.let_go_ms(shard)
        at = self._checked[shard]
        while at < len(kept) and (kept[at].sequence <= reached or "closed" in position):
            record = kept[at]
            if (shard, str(record.sequence)) not in self._brought and record.arrival_ms >= gone_ms:
                self.broken(f"the job stands at {position} of {shard} and has not brought {record.sequence}")
            at += 1
        self._checked[shard] = at

"""The job: a query and the lake it writes, with a place to die after each of its steps."""

from collections import Counter
from collections.abc import Callable, Sequence
from random import Random
from typing import Final

from config.errors import LakestreamError
from streaming_job.kinesis.errors import DataLossError
from streaming_job.pipeline.steps import AfterStep, Step, go_on
from tests.simulation.errors import AT_REST, KilledError, ViolationError
from tests.simulation.lake import Lake, Record
from tests.simulation.observations import Committed, Journal, RanToNow, Sunk
from tests.simulation.source import Query, SteppedReader

DEATHS: Final = ("planned", "logged", "sunk", *(str(step) for step in Step))
"""Where a process may end, in a batch."""
_BATCHES_MAX: Final = 2_000


class DiesAfter:
    def __init__(self, step: str) -> None:
        self._step = step

    def __call__(self, step: Step) -> None:
        if str(step) == self._step:
            raise KilledError


class Job:
    def __init__(
        self,
        lake: Lake,
        open_reader: Callable[[], SteppedReader],
        journal: Journal,
        *,
        horizon_ms: Callable[[], int],
        now_ms: Callable[[], int],
        query: type[Query] = Query,
    ) -> None:
        self.lake = lake
        self.query = query(open_reader, self._sink)
        self.refusal: DataLossError | None = None
        """Why it stopped, until a person has decided."""
        self.seen_faults: Counter[str] = Counter()
        self._journal = journal
        self._horizon_ms = horizon_ms
        self._now_ms = now_ms
        self._after_step: AfterStep = go_on

    def trigger(self, die_at: str = "", *, everything: bool = False) -> bool:
        """Whether there was anything to do. A process that dies is started again by the next trigger."""
        if self.refusal is not None:
            return False
        self._after_step = DiesAfter(die_at) if die_at else go_on
        try:
            if not self.query.trigger(die_at, everything=everything):
                self.lake.between_batches(self._after_step)
                return False
        except KilledError:
            self.seen_faults[f"job: killed, {die_at}"] += 1
            self.query.stop()
        except DataLossError as error:
            self.seen_faults["job: refused to pass over a loss"] += 1
            self.refusal = error
            self.query.stop()
        except LakestreamError:
            self.seen_faults["job: gave up on Kinesis"] += 1
            self.query.stop()
        else:
            self._journal.append(Committed(self.query.offset or {}, self._horizon_ms()))
        return True

    def run_to_now(self) -> None:
        """Everything that had arrived when it began, then the end; as far as nothing comes between."""
        self.query.stop()
        self.query.ends_by_itself = True
        began_ms, troubles = self._now_ms(), sum(self.seen_faults.values())
        batches = 0
        while self.trigger() and sum(self.seen_faults.values()) == troubles:
            batches += 1
            if batches > _BATCHES_MAX:
                raise ViolationError(AT_REST, "a run to now never ends")
        if self.refusal is None and sum(self.seen_faults.values()) == troubles:
            self._journal.append(RanToNow(began_ms))
        self.query.ends_by_itself = False
        self.query.stop()

    def replay(self, lines: Sequence[bytes], rng: Random) -> None:
        """Archived lines once more through the same path, in any portions."""
        self._after_step = go_on
        left = [Record("archive", f"{at}", line) for at, line in enumerate(lines)]
        while left:
            count = rng.randrange(1, len(left) + 1)
            self.lake.process_batch(left[:count])
            left = left[count:]

    def _sink(self, records: list[Record], number: int) -> None:
        self.lake.process_batch(records, self._after_step, number=number)
        self._journal.append(Sunk([(record.shard, record.sequence) for record in records]))

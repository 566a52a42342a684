"""Kinesis as it may behave, for the bridge's publisher: each fake is named for what it does."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from bridge_lambda.errors import CallInvalidError, PublishError, StreamGoneError, TryAgainError
from config.limits import KINESIS_PUT_BYTES_MAX, KINESIS_PUT_RECORDS_MAX

Record = tuple[bytes, str]


@dataclass(frozen=True)
class Landed:
    """A record that the stream holds."""

    key: str
    data: bytes
    sequence: int
    acknowledged: bool


@dataclass
class ManualClock:
    """Time passes only when somebody sleeps or calls; an invocation has so much of it."""

    now: float = 1_790_000_000_000.0
    budget_ms: float = 60_000.0
    slept_ms: list[float] = field(default_factory=list)

    def now_ms(self) -> int:
        return int(self.now)

    def elapsed_ms(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        assert seconds >= 0
        self.slept_ms.append(seconds * 1000)
        self.pass_ms(seconds * 1000)

    def pass_ms(self, milliseconds: float) -> None:
        self.now += milliseconds
        self.budget_ms -= milliseconds

    def remaining_ms(self) -> float:
        return self.budget_ms


@dataclass(frozen=True)
class Fault:
    """What one call does: `failing` of its records are refused, or the whole call ends in `error`.

    With `lands` a call that ended in an error was carried out all the same. `backwards` gives the records of the call
    sequence numbers in reverse: Kinesis promises no order within a call.
    """

    failing: frozenset[int] = frozenset()
    error: str | None = None
    lands: bool = False
    backwards: bool = False


ERRORS: dict[str, Callable[[], PublishError]] = {
    "throttled": lambda: TryAgainError("ProvisionedThroughputExceededException", hint="more shards"),
    "timed out": lambda: TryAgainError("ReadTimeoutError", hint="the network"),
    "500": lambda: TryAgainError("InternalFailure", hint="trouble in Kinesis"),
    "gone": lambda: StreamGoneError("ResourceNotFoundException", hint="create the stream"),
}


@dataclass
class FaultyKinesis:
    """Holds to the service's limits, refuses calls with a `poison` key, and fails as the faults say, then no more."""

    clock: ManualClock
    faults: Iterator[Fault] = field(default_factory=lambda: iter(()))
    poison: frozenset[str] = frozenset()
    call_ms: float = 20.0
    calls: list[list[Record]] = field(default_factory=list)
    stream: list[Landed] = field(default_factory=list)

    def put(self, records: Sequence[Record]) -> list[str | None]:
        assert 1 <= len(records) <= KINESIS_PUT_RECORDS_MAX
        assert sum(len(data) + len(key.encode()) for data, key in records) <= KINESIS_PUT_BYTES_MAX
        self.calls.append(list(records))
        self.clock.pass_ms(self.call_ms)
        if any(key in self.poison for _, key in records):
            raise CallInvalidError("InvalidArgumentException", hint="see the dead letter")
        fault = next(self.faults, Fault())
        if fault.error is not None:
            if fault.lands:
                self._land(records, range(len(records)), fault, acknowledged=False)
            error = ERRORS[fault.error]()
            raise error
        accepted = [index for index in range(len(records)) if index not in fault.failing]
        sequences = self._land(records, accepted, fault, acknowledged=True)
        return [sequences.get(index) for index in range(len(records))]

    def _land(
        self, records: Sequence[Record], accepted: Sequence[int], fault: Fault, *, acknowledged: bool
    ) -> dict[int, str]:
        base = len(self.stream)
        order = list(reversed(accepted)) if fault.backwards else list(accepted)
        for place, index in enumerate(order):
            data, key = records[index]
            self.stream.append(Landed(key, data, base + place, acknowledged))
        return {index: str(base + place) for place, index in enumerate(order)}

    def acknowledged(self) -> list[Landed]:
        return [landed for landed in self.stream if landed.acknowledged]

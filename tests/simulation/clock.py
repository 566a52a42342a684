"""Time that moves only when the world moves it, and each machine's own view of it."""

from dataclasses import dataclass

from tests.unit.kinesis_memory import DAY_MS, HOUR_MS, HandClock

__all__ = ["DAY_MS", "HOUR_MS", "HandClock", "MachineClock"]


@dataclass
class MachineClock:
    """The world's clock, so far off. It is both the bridge's kind of clock and the source's."""

    world: HandClock
    skew_ms: int = 0

    def now_ms(self) -> int:
        return self.world.ms + self.skew_ms

    def elapsed_ms(self) -> float:
        return float(self.world.ms)

    def sleep_ms(self, ms: int) -> None:
        self.world.sleep_ms(ms)

    def sleep(self, seconds: float) -> None:
        self.world.sleep_ms(int(seconds * 1000))

"""What is read and not yet written, and when it is time to write it. Pure: no clock, no network."""

from dataclasses import dataclass
from datetime import datetime

from infra.local.delivery.framing import Framed


@dataclass(frozen=True, slots=True)
class Load:
    """One delivery: the objects' contents, and what of the stream they are."""

    lines: bytes
    errors: bytes
    spans: dict[str, tuple[str, str]]
    """For each shard, the first and the last record."""
    oldest: datetime
    records: int


class Buffer:
    """Due when it holds enough, or its first record has waited long enough: whichever comes first."""

    def __init__(self, *, bytes_max: int, wait_s: float) -> None:
        self._bytes_max = bytes_max
        self._wait_s = wait_s
        self._framed: list[tuple[str, Framed]] = []
        self._since_s = 0.0
        self.size = 0

    def __len__(self) -> int:
        return len(self._framed)

    def add(self, shard: str, framed: Framed, now_s: float) -> None:
        if not self._framed:
            self._since_s = now_s
        self._framed.append((shard, framed))
        self.size += framed.size

    @property
    def is_full(self) -> bool:
        return self.size >= self._bytes_max

    def due_in_s(self, now_s: float) -> float | None:
        """0: now. None: never, it is empty."""
        if not self._framed:
            return None
        return 0.0 if self.is_full else max(0.0, self._since_s + self._wait_s - now_s)

    @property
    def oldest(self) -> datetime | None:
        return min((framed.record.arrival for _, framed in self._framed), default=None)

    def _spans(self) -> dict[str, tuple[str, str]]:
        spans: dict[str, tuple[str, str]] = {}
        for shard, framed in self._framed:
            sequence = framed.record.sequence
            spans[shard] = (spans.get(shard, (sequence, sequence))[0], sequence)
        return spans

    def take(self) -> Load:
        framed = self._framed
        load = Load(
            lines=b"".join(each.lines for _, each in framed),
            errors=b"".join(each.errors for _, each in framed),
            spans=self._spans(),
            oldest=min(each.record.arrival for _, each in framed),
            records=len(framed),
        )
        self._framed = []
        self.size = 0
        return load

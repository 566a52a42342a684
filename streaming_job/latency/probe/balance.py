"""What the bridge says it sent against what was seen. Nothing that may still be on its way is called a gap. Pure.

The bridge counts a record once Kinesis has acknowledged it, and says so when its invocation ends: what it has counted
by some time had arrived by then. So where every shard has been read up to that time, as many records must have been
seen. How the two counts are set off against each other is known from the beginning of both, or from a quiet moment,
when nothing is on its way.
"""

from collections import Counter, deque
from dataclasses import dataclass, field
from typing import Final

QUIET_S: Final = 120
"""Nothing sent and nothing seen for longer than an invocation of the bridge may last: none is at work."""
CLOCKS_S: Final = 2
"""The bridge's clock and ours may differ by this much."""
_SAMPLES_MAX: Final = 600


@dataclass(frozen=True, slots=True)
class Said:
    at_s: int
    total: int


@dataclass(slots=True)
class Balance:
    gaps: int = 0
    """Records that the bridge counts as sent and that never came."""
    settled_s: int = 0
    """Up to when that is known; 0 while nothing is."""
    _offset: int | None = None
    """Seen less sent, while nothing is missing and nothing on its way; None while that is not known."""
    _said: deque[Said] = field(default_factory=lambda: deque(maxlen=_SAMPLES_MAX))
    _seen: Counter[int] = field(default_factory=Counter)
    """Changes by the second they were sent in."""
    _seen_before: int = 0
    """And those of the seconds before."""
    _settled_before: int = 0

    def saw(self, sent_ms: int) -> None:
        sent_s = sent_ms // 1000
        if sent_s < self._settled_before:
            self._seen_before += 1
        else:
            self._seen[sent_s] += 1

    def said(self, total: int, now_s: int) -> None:
        """The bridge's count, which only grows: whoever asks it puts together what it counted before it began anew."""
        if self._offset is None and total == 0 and not self._seen and not self._seen_before:
            self._offset = 0
        if not self._said or now_s > self._said[-1].at_s:
            self._said.append(Said(now_s, total))

    def broken(self) -> None:
        """Records went by that were not seen here: what was known of the two counts holds no longer."""
        self._offset = None
        self.settled_s = 0

    def settle(self, read_until_s: int) -> None:
        """Judge the last count that the bridge gave before everything was read."""
        judged = next((said for said in reversed(self._said) if said.at_s <= read_until_s), None)
        if judged is None:
            return
        seen = self._seen_until(judged.at_s + CLOCKS_S)
        if self._is_quiet(judged):
            if self._offset is not None:
                self.gaps += max(0, self._offset - (seen - judged.total))
            self._offset = seen - judged.total
        elif self._offset is not None:
            missing = max(0, self._offset - (seen - judged.total))
            self.gaps += missing
            self._offset -= missing
        if self._offset is not None:
            self.settled_s = judged.at_s
        self._forget_before(judged.at_s - QUIET_S - CLOCKS_S)

    def _seen_until(self, second: int) -> int:
        return self._seen_before + sum(count for sent_s, count in self._seen.items() if sent_s <= second)

    def _is_quiet(self, judged: Said) -> bool:
        since_s = judged.at_s - QUIET_S
        before = next((said for said in reversed(self._said) if said.at_s <= since_s), None)
        if before is None or before.total != judged.total:
            return False
        return not any(sent_s >= since_s - CLOCKS_S for sent_s in self._seen)

    def _forget_before(self, second: int) -> None:
        while self._said and self._said[0].at_s < second and len(self._said) > 1 and self._said[1].at_s <= second:
            self._said.popleft()
        for sent_s in [sent_s for sent_s in self._seen if sent_s < second]:
            self._seen_before += self._seen.pop(sent_s)
        self._settled_before = max(self._settled_before, second)

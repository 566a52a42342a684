"""What has been read or scouted of a shard but not yet planned, in order. Pure values, no threads, no AWS."""

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from streaming_job.kinesis.offsets import Position, ShardRef
from streaming_job.kinesis.rows import Rows


@dataclass
class Segment:
    """Part of a shard up to `end`: its rows, or - for an executor to read - only how many there may be."""

    end: Position
    rows: Rows | None
    count: int
    size: int

    @property
    def held_bytes(self) -> int:
        return self.size if self.rows is not None else 0


@dataclass
class Backlog:
    """The segments of one shard that follow `start`. Those planned stay until the batch is committed."""

    start: Position
    segments: deque[Segment] = field(default_factory=deque)
    tip_ms: int = 0
    """When everything that had arrived was in the segments; 0 when the last answer was not at the tip."""

    @property
    def end(self) -> Position:
        return self.segments[-1].end if self.segments else self.start

    @property
    def held_bytes(self) -> int:
        return sum(segment.held_bytes for segment in self.segments)

    @property
    def spans(self) -> int:
        """How many segments are left to executors."""
        return sum(1 for segment in self.segments if segment.rows is None)

    @property
    def read_until_ms(self) -> int:
        """Nothing that arrived before then is still to be committed; 0 while nobody knows."""
        if not self.segments:
            return self.tip_ms or (0 if self.start.is_unread else self.start.seen_ms)
        oldest = self.segments[0].rows
        return oldest.arrivals_ms[0] if oldest else self.start.seen_ms

    def add(self, rows: Rows, end: Position) -> None:
        self.segments.append(Segment(end, rows, len(rows), rows.size))

    def add_span(self, count: int, size: int, end: Position) -> None:
        self.segments.append(Segment(end, None, count, size))

    def forget_through(self, position: Position) -> bool:
        """Drop what lies before a position; False when the position is none of ours."""
        if position.same_place(self.start):
            return True
        for index, segment in enumerate(self.segments):
            if position.same_place(segment.end):
                for _ in range(index + 1):
                    self.segments.popleft()
                self.start = position
                return True
        return False

    def between(self, start: Position, end: Position) -> list[Segment] | None:
        """The segments of (start, end], or None when they are not all here."""
        found: list[Segment] | None = [] if start.same_place(self.start) else None
        for segment in self.segments:
            if found is not None:
                found.append(segment)
                if segment.end.same_place(end):
                    return found
            elif segment.end.same_place(start):
                found = []
        return None

    def shed(self) -> None:
        """Let the rows go and keep the bounds: an executor reads them again."""
        for segment in self.segments:
            segment.rows = None

    @property
    def available(self) -> tuple[int, int]:
        return sum(s.count for s in self.segments), sum(s.size for s in self.segments)

    def take(self, rows_max: int, bytes_max: int) -> Position:
        """The furthest end within both limits, from `start`; a buffered segment is cut there."""
        reached = self.start
        for index, segment in enumerate(self.segments):
            # A span's figures are estimates of what was planned to fit: the first is taken, or it would never be.
            fits = segment.count <= rows_max and segment.size <= bytes_max
            if fits or (index == 0 and segment.rows is None and rows_max > 0):
                rows_max = max(0, rows_max - segment.count)
                bytes_max = max(0, bytes_max - segment.size)
                reached = segment.end
                continue
            cut = segment.rows.boundary(rows_max, bytes_max) if segment.rows else 0
            return self._cut(index, cut) if cut else reached
        return reached if reached.is_closed else reached.seen(self.tip_ms)

    def marked(self, end: Position) -> Position:
        """`end`, with the batch's first record where it began at none."""
        segments = self.between(self.start, end) or [] if self.start.is_unread else []
        first = next((segment.rows.sequences[0] for segment in segments if segment.rows), "")
        return replace(end, first=first) if first else end

    def take_least(self) -> Position:
        """The smallest step forward: one Kinesis record, or one span."""
        first = self.segments[0]
        if first.rows is None or not first.rows:
            return first.end
        cut = first.rows.first_record()
        return first.end if cut == len(first.rows) else self._cut(0, cut)

    def _cut(self, index: int, count: int) -> Position:
        segment = self.segments[index]
        if segment.rows is None:
            raise AssertionError("only buffered rows can be cut")
        head, tail = segment.rows.slice(0, count), segment.rows.slice(count, len(segment.rows))
        middle = Position.after(head.sequences[-1], seen_ms=head.arrivals_ms[-1])
        self.segments[index] = Segment(middle, head, len(head), head.size)
        self.segments.insert(index + 1, Segment(segment.end, tail, len(tail), tail.size))
        return middle


def share(wanted: Mapping[ShardRef, int], limit: int) -> dict[ShardRef, int]:
    """Divide a limit fairly: who wants less than an even part leaves the rest to the others."""
    shares: dict[ShardRef, int] = {}
    left = limit
    for index, (ref, want) in enumerate(sorted(wanted.items(), key=lambda item: (item[1], item[0]))):
        shares[ref] = min(want, left // (len(wanted) - index))
        left -= shares[ref]
    return shares


def take_all(backlogs: Mapping[ShardRef, Backlog], rows_max: int, bytes_max: int) -> dict[ShardRef, Position]:
    """Where a batch within the limits ends in each shard; at least one record where there is any.

    The record that has waited longest is in it, even if it exceeds its shard's share: the others divide what it leaves.
    While they moved it would never be its turn.
    """
    ends = _shared(backlogs, rows_max, bytes_max)
    waiting = [ref for ref, backlog in backlogs.items() if backlog.segments]
    if waiting:
        oldest = min(waiting, key=lambda ref: (backlogs[ref].read_until_ms, ref))
        if ends[oldest].same_place(backlogs[oldest].start):
            end = backlogs[oldest].take_least()
            step = backlogs[oldest].segments[0]
            others = {ref: backlog for ref, backlog in backlogs.items() if ref != oldest}
            left = _shared(others, max(0, rows_max - step.count), max(0, bytes_max - step.size))
            ends = left | {oldest: end}
    return {ref: backlog.marked(ends[ref]) for ref, backlog in backlogs.items()}


def _shared(backlogs: Mapping[ShardRef, Backlog], rows_max: int, bytes_max: int) -> dict[ShardRef, Position]:
    rows = share({ref: backlog.available[0] for ref, backlog in backlogs.items()}, rows_max)
    size = share({ref: backlog.available[1] for ref, backlog in backlogs.items()}, bytes_max)
    return {ref: backlog.take(rows[ref], size[ref]) for ref, backlog in backlogs.items()}


def runs(segments: Sequence[Segment]) -> list[list[Segment]]:
    """Neighbours of a kind together: buffered rows in one partition, spans in one range."""
    result: list[list[Segment]] = []
    for segment in segments:
        if result and (result[-1][-1].rows is None) == (segment.rows is None):
            result[-1].append(segment)
        else:
            result.append([segment])
    return result

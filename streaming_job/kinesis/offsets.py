"""Where a query stands in its streams: the value Spark keeps in the checkpoint, its JSON, and its comparisons.

Pure values: no AWS, no Spark, so that a simulation can use them as they are.
Spark compares offsets as text, so the JSON's keys are written in sorted order, and only primitives occur.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

from streaming_job.kinesis.errors import OffsetError

VERSION = 1

_SEQUENCE = re.compile(r"[0-9]{1,128}")
_SEQUENCE_OR_NONE = re.compile(r"[0-9]{0,128}")


class Kind(StrEnum):
    TRIM_HORIZON = "trim_horizon"
    AT_MS = "at_ms"
    AFTER = "after"
    CLOSED = "closed"


@dataclass(frozen=True, slots=True, order=True)
class ShardRef:
    stream: str
    shard: str

    def __str__(self) -> str:
        return f"{self.stream}/{self.shard}"


@dataclass(frozen=True, slots=True)
class Position:
    """How far a shard has been read.

    `seen_ms`: every record that had arrived by then has been read (0: unknown). It tells an idle shard from a trimmed
    one, because Kinesis does not report that records were trimmed.
    """

    kind: Kind
    sequence: str = ""
    """AFTER: the last record read. CLOSED: the shard's last record, empty when it had none."""
    at_ms: int = 0
    seen_ms: int = 0
    first: str = ""
    """The first record of a batch that began where none had been read: run again, it must begin there too, although the
    trim horizon has moved on."""

    @classmethod
    def trim_horizon(cls, *, seen_ms: int = 0) -> "Position":
        return cls(Kind.TRIM_HORIZON, seen_ms=seen_ms)

    @classmethod
    def at(cls, ms: int, *, seen_ms: int = 0) -> "Position":
        return cls(Kind.AT_MS, at_ms=ms, seen_ms=seen_ms)

    @classmethod
    def after(cls, sequence: str, *, seen_ms: int = 0) -> "Position":
        return cls(Kind.AFTER, sequence=sequence, seen_ms=seen_ms)

    @classmethod
    def closed(cls, sequence: str, *, seen_ms: int = 0) -> "Position":
        return cls(Kind.CLOSED, sequence=sequence, seen_ms=seen_ms)

    @property
    def is_closed(self) -> bool:
        return self.kind is Kind.CLOSED

    @property
    def is_unread(self) -> bool:
        """Nothing of the shard has been read; no batch that ends here has rows of it."""
        return self.kind in (Kind.TRIM_HORIZON, Kind.AT_MS)

    def same_place(self, other: "Position") -> bool:
        """Equal but for when the shard was last seen at its tip, and how it was come to."""
        return (self.kind, self.sequence, self.at_ms) == (other.kind, other.sequence, other.at_ms)

    def seen(self, ms: int) -> "Position":
        return replace(self, seen_ms=ms) if ms > self.seen_ms else self

    def __str__(self) -> str:
        if self.kind is Kind.AFTER:
            return f"after sequence number {self.sequence}"
        if self.kind is Kind.AT_MS:
            return f"at {self.at_ms} ms since 1970"
        return "its end" if self.is_closed else "the trim horizon"

    def to_json(self) -> dict[str, Any]:
        # In the order of the names, as Spark compares the text.
        entry: dict[str, Any] = {}
        if self.kind is Kind.AFTER:
            entry["after"] = self.sequence
        elif self.kind is Kind.AT_MS:
            entry["at_ms"] = self.at_ms
        elif self.kind is Kind.CLOSED:
            entry["closed"] = self.sequence
        if self.first:
            entry["first"] = self.first
        entry["seen_ms"] = self.seen_ms
        if self.kind is Kind.TRIM_HORIZON:
            entry["trim_horizon"] = True
        return entry

    @classmethod
    def from_json(cls, entry: Mapping[str, Any]) -> "Position":
        seen_ms, first = int(entry.get("seen_ms", 0)), entry.get("first", "")
        place = set(entry) - {"seen_ms", "first"} if _is_sequence(first, _SEQUENCE_OR_NONE) else set()
        if place == {"after"} and _is_sequence(entry["after"], _SEQUENCE):
            return cls(Kind.AFTER, sequence=entry["after"], seen_ms=seen_ms, first=first)
        if place == {"at_ms"}:
            return cls.at(int(entry["at_ms"]), seen_ms=seen_ms)
        if place == {"closed"} and _is_sequence(entry["closed"], _SEQUENCE_OR_NONE):
            return cls(Kind.CLOSED, sequence=entry["closed"], seen_ms=seen_ms, first=first)
        if place == {"trim_horizon"}:
            return cls.trim_horizon(seen_ms=seen_ms)
        raise OffsetError(
            f"the checkpoint holds a shard position that is not one of ours: {dict(entry)!r}",
            hint="it was written by another source or damaged; start with a new checkpoint",
        )


def _is_sequence(value: Any, form: re.Pattern[str]) -> bool:
    return isinstance(value, str) and form.fullmatch(value) is not None


def newer(sequence: str, than: str) -> bool:
    """Sequence numbers of one shard compare as numbers: their lengths differ."""
    return (len(sequence), sequence) > (len(than), than)


@dataclass(frozen=True)
class StreamOffset:
    created_ms: int
    """The stream's creation time: a stream made anew under the same name is another stream."""
    shards: Mapping[str, Position] = field(default_factory=dict)
    retention_ms: int = 0
    """What the stream kept when this was written (0: written by a release that did not ask)."""
    trimmed_ms: int = 0
    """What arrived before may have been trimmed under a shorter retention: raised, it brings nothing back."""

    def keeping(self, retention_ms: int, now_ms: int) -> "StreamOffset":
        """With the retention as it is now. When it rose nobody knows: until a moment ago, for all we can tell."""
        if retention_ms == self.retention_ms:
            return self
        is_raised = 0 < self.retention_ms < retention_ms
        trimmed_ms = max(self.trimmed_ms, now_ms - self.retention_ms) if is_raised else self.trimmed_ms
        return replace(self, retention_ms=retention_ms, trimmed_ms=trimmed_ms)


@dataclass(frozen=True)
class Offset:
    streams: Mapping[str, StreamOffset] = field(default_factory=dict)
    fresh: bool = False
    """Made for a query without a checkpoint, and not yet written to one.

    Spark does not keep where its first batch began: it asks for the initial offset again when that batch is run again,
    and `latest` has moved on by then. So the first batch is empty, it only writes the place down.
    """

    def written(self) -> "Offset":
        return replace(self, fresh=False)

    def positions(self) -> dict[ShardRef, Position]:
        return {
            ShardRef(name, shard): position
            for name, stream in self.streams.items()
            for shard, position in stream.shards.items()
        }

    def moved(self, moves: Mapping[ShardRef, Position]) -> "Offset":
        """This offset with some shards' positions replaced or added."""
        streams = dict(self.streams)
        for ref, position in moves.items():
            stream = streams[ref.stream]
            streams[ref.stream] = replace(stream, shards={**stream.shards, ref.shard: position})
        return replace(self, streams=streams)

    def without(self, gone: set[ShardRef]) -> "Offset":
        return Offset(
            {
                name: replace(stream, shards={s: p for s, p in stream.shards.items() if ShardRef(name, s) not in gone})
                for name, stream in self.streams.items()
            },
        )

    def to_json(self) -> dict[str, Any]:
        return {
            **({"fresh": True} if self.fresh else {}),
            "streams": {
                name: {
                    "created_ms": stream.created_ms,
                    **({"retention_ms": stream.retention_ms} if stream.retention_ms else {}),
                    "shards": {shard: stream.shards[shard].to_json() for shard in sorted(stream.shards)},
                    **({"trimmed_ms": stream.trimmed_ms} if stream.trimmed_ms else {}),
                }
                for name, stream in sorted(self.streams.items())
            },
            "version": VERSION,
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "Offset":
        version = value.get("version")
        if version != VERSION:
            raise OffsetError(
                f"the checkpoint's offset has version {version!r}, this source reads version {VERSION}",
                hint="use the release that wrote the checkpoint, or a newer one",
            )
        try:
            return cls(
                {
                    name: StreamOffset(
                        created_ms=int(stream["created_ms"]),
                        shards={shard: Position.from_json(entry) for shard, entry in stream["shards"].items()},
                        retention_ms=int(stream.get("retention_ms", 0)),
                        trimmed_ms=int(stream.get("trimmed_ms", 0)),
                    )
                    for name, stream in value["streams"].items()
                },
                fresh=bool(value.get("fresh", False)),
            )
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            raise OffsetError(
                f"the checkpoint's offset is damaged: {error!r}", hint="restore the checkpoint or start with a new one"
            ) from error

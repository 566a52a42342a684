"""What the probe keeps of a record: when, in what order and how often a change came, and nothing of the item."""

import json
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, Final

from config.limits import GENERATION_DIGITS, SEQUENCE_DIGITS

KEY_HASH_BYTES: Final = 16
_SEQ_CHARS: Final = GENERATION_DIGITS + 1 + SEQUENCE_DIGITS
_SNAPSHOT: Final = "SNAPSHOT"


@dataclass(frozen=True, slots=True)
class Observation:
    sequence: str
    """Kinesis' own, within the shard."""
    arrival_ms: int
    table: str = ""
    """Empty where the record is no envelope."""
    key: str = ""
    """A hash: of the key only sameness matters."""
    seq: str = ""
    """`<gen>-<seq>`: compared as text, within a key."""
    sent_ms: int = 0
    """`bridge_out_ms`."""
    is_change: bool = False
    """A snapshot's rows are sent by no bridge and counted by none."""

    def packed(self) -> list[Any]:
        return [self.sequence, self.arrival_ms, self.table, self.key, self.seq, self.sent_ms, self.is_change]

    @classmethod
    def unpacked(cls, fields: list[Any]) -> "Observation":
        return cls(*fields)


def observe(sequence: str, arrival_ms: int, data: bytes) -> Observation:
    """What is no envelope is a record all the same."""
    try:
        envelope = json.loads(data)
        table, seq, sent_ms = envelope["table"], f"{envelope['gen']}-{envelope['seq']}", envelope["bridge_out_ms"]
        key = json.dumps([table, envelope["key"]], sort_keys=True)
        is_change = envelope["op"] != _SNAPSHOT
    except (ValueError, KeyError, TypeError):
        return Observation(sequence, arrival_ms)
    if (
        not isinstance(table, str)
        or not isinstance(sent_ms, int)
        or len(seq) != GENERATION_DIGITS + 1 + SEQUENCE_DIGITS
    ):
        return Observation(sequence, arrival_ms)
    hashed = blake2b(key.encode(), digest_size=KEY_HASH_BYTES).hexdigest()
    return Observation(sequence, arrival_ms, table, hashed, seq, sent_ms, is_change)

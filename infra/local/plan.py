"""What a load writes, decided ahead of time: a sequence of operations that the seed alone determines."""

import hashlib
import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from config.errors import ConfigurationError

Op = Literal["insert", "update", "delete"]
OPS: tuple[Op, ...] = ("insert", "update", "delete")


@dataclass(frozen=True)
class Mix:
    """Shares of inserts, updates and deletes; they need not add up to 100."""

    insert: int = 80
    update: int = 15
    delete: int = 5

    @classmethod
    def parse(cls, text: str) -> "Mix":
        parts = text.split(",")
        if len(parts) != len(OPS) or not all(part.strip().isdigit() for part in parts) or not int(parts[0]):
            raise ConfigurationError(
                f"--mix {text!r} is not inserts,updates,deletes", hint="three whole numbers, the first above 0: 80,15,5"
            )
        return cls(*(int(part) for part in parts))

    @property
    def weights(self) -> tuple[int, int, int]:
        return (self.insert, self.update, self.delete)


@dataclass(frozen=True)
class Operation:
    index: int
    op: Op
    key_number: int
    """Counts the load's keys from 0; the same number is the same key."""
    event_id: str
    content_seed: str
    """The item's content comes from this and the time of the write."""


def operations(seed: int, run: str, mix: Mix, count: int) -> Iterator[Operation]:
    """Updates and deletes go to keys that live at that point; with none left, an insert takes their place."""
    rng = random.Random(f"{seed}:operations")
    live: list[int] = []
    keys = 0
    for index in range(count):
        op = rng.choices(OPS, mix.weights)[0] if live else "insert"
        if op == "insert":
            key, keys = keys, keys + 1
            live.append(key)
        else:
            place = rng.randrange(len(live))
            key = live[place]
            if op == "delete":
                live[place] = live[-1]
                live.pop()
        yield Operation(index, op, key, event_id(seed, run, key), f"{seed}:{index}")


def event_id(seed: int, run: str, key_number: int) -> str:
    """Differs between runs, so that a load never meets the items of an earlier one."""
    return hashlib.sha256(f"{seed}:{run}:{key_number}".encode()).hexdigest()[:32]

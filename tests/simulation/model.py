"""What must be true: of each change of the source, what the lake has to hold of it. Shares no code with the product."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from tests.simulation import meaning
from tests.simulation.meaning import Meaning
from tests.simulation.rules import Image, Rules

Identity = tuple[str, str, int]
"""Table, generation, sequence number: names one change of the source."""


@dataclass(frozen=True)
class Fact:
    """One change, as the source made it."""

    table: str
    generation: str
    sequence: int
    key: str
    """Canonical text."""
    op: str
    new: Image | None
    old: Image | None
    ttl: bool
    created_ms: int
    """In whole seconds."""

    @property
    def identity(self) -> Identity:
        return self.table, self.generation, self.sequence


@dataclass(frozen=True)
class Expected:
    """What `history` has to say of a change."""

    fact: Fact
    op: str
    new: Meaning | None
    old: Meaning | None
    ttl: bool
    filtered: bool


@dataclass(frozen=True)
class Scanned:
    """An item that a snapshot sent."""

    table: str
    generation: str
    key: str
    item: Meaning


@dataclass
class Model:
    rules: Mapping[str, Rules]
    expected: dict[Identity, Expected] = field(default_factory=dict)
    kept_back: set[Identity] = field(default_factory=set)
    """By the filter: these must not leave the source."""
    lives: dict[tuple[str, str, str], list[int]] = field(default_factory=dict)
    """Of each key (table, generation, key), its changes in order."""
    keys: dict[Identity, str] = field(default_factory=dict)
    scanned: list[Scanned] = field(default_factory=list)
    unreadable: set[Identity] = field(default_factory=set)
    """Their image is none of DynamoDB's: they end as dead letters, for good."""
    trimmed: set[Identity] = field(default_factory=set)
    """Gone from the table's stream while some mapping had still to read them."""
    expired: set[Identity] = field(default_factory=set)
    """Of those, what no mapping was done with; an alarm says so."""
    done: set[Identity] = field(default_factory=set)
    """A mapping was told so, or gave the change up."""

    def changed(self, fact: Fact, *, readable: bool = True) -> None:
        expected = self._expect(fact)
        self.keys[fact.identity] = fact.key
        self.lives.setdefault((fact.table, fact.generation, fact.key), []).append(fact.sequence)
        if expected is None:
            self.kept_back.add(fact.identity)
        elif expected.new is not None and not readable:
            self.unreadable.add(fact.identity)
        else:
            self.expected[fact.identity] = expected

    def scan(self, table: str, generation: str, key: str, item: Image) -> None:
        rules = self.rules[table]
        if rules.admits(item):
            self.scanned.append(Scanned(table, generation, key, meaning.of_image(rules.masked(item))))

    def trim(self, gone: Iterable[Identity]) -> None:
        self.trimmed |= set(gone)
        self.expired = self.trimmed - self.done

    def finish(self, done: Iterable[Identity]) -> None:
        self.done |= set(done)
        self.expired -= self.done

    def _expect(self, fact: Fact) -> Expected | None:
        """A change out of the filter is kept back only if what stood before is known to be out too."""
        rules = self.rules[fact.table]
        was_in = fact.op != "INSERT" and (fact.old is None or rules.admits(fact.old))
        op, new, filtered = fact.op, fact.new, False
        if new is not None and not rules.admits(new):
            if not was_in:
                return None
            op, new, filtered = "REMOVE", None, True
        old = fact.old if rules.keep_old_image and was_in else None
        return Expected(
            fact=fact,
            op=op,
            new=self._meaning(rules, new),
            old=self._meaning(rules, old),
            ttl=fact.ttl and not filtered,
            filtered=filtered,
        )

    def _meaning(self, rules: Rules, image: Image | None) -> Meaning | None:
        return None if image is None else meaning.of_image(rules.masked(image))


def identity_of(table: str, seq: str) -> Identity:
    """From the lake's text; numbers here, text there."""
    generation, number = seq.split("-")
    return table, generation, int(number)


def order_of(seq: str) -> tuple[int, int]:
    generation, number = seq.split("-")
    return int(generation), int(number)


def matches(expected: Any, seen: Any, hashes: dict[Any, str]) -> bool:
    """Equal, where equal originals must have equal hashes and different ones different ones."""
    if isinstance(expected, tuple) and len(expected) == 2 and expected[0] == "HASHED":
        if not (isinstance(seen, tuple) and seen[0] == "S" and len(seen[1]) == 64):
            return False
        return bool(hashes.setdefault(expected[1], seen[1]) == seen[1])
    if isinstance(expected, tuple) and isinstance(seen, tuple):
        return len(expected) == len(seen) and all(matches(*pair, hashes) for pair in zip(expected, seen, strict=True))
    return bool(expected == seen)

"""Changes once more into the tables they belong to, in place: from the stream's retention, or from the archive.

1. All of it is read and sieved: which lines are changes of the tables (or keys) that are asked for, by which rules they
   were made, and the newest version of each key that is to be repaired. Nothing is handed over yet.
2. It is refused where it could not end right: other rules, a gap, a key whose version is not in it.
3. It is handed over. The guard lets nothing older replace what is there, so that a replay of everything changes
   nothing; a repair also replaces a row by its own version.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

import orjson

from bridge_lambda.rules import TableRules
from config.errors import ConfigurationError, LakestreamError
from config.tables import TableConfig
from streaming_job.operations.archive_numbers import key_as_written
from streaming_job.operations.handing_over import Delivery, Total
from streaming_job.operations.unproven_marks import Mark
from streaming_job.pipeline.intake import HandOver, Piece
from streaming_job.pipeline.order import Placing

REFUSED: Final = 9
_PIECES_AT_ONCE: Final = 500
_KEYS_SHOWN: Final = 3


class ReplayRefusedError(LakestreamError):
    """It could not end right; nothing was handed over."""

    exit_code = REFUSED


@dataclass
class Sieve:
    """What of the material is asked for, and what it turned out to be."""

    rules: Mapping[str, str]
    """The tables' names, and the label of the rules each has now."""
    keys: frozenset[str] = frozenset()
    """Only changes of these, as canonical text; empty: of all."""
    placings: Mapping[str, Placing] = field(default_factory=dict)
    """Where each table's rules say its streams stand."""
    kept: int = 0
    others: int = 0
    """Of other tables or keys."""
    no_envelopes: int = 0
    other_rules: Counter[tuple[str, str]] = field(default_factory=Counter)
    newest: dict[str, str] = field(default_factory=dict)
    """Of each key that is to be repaired, the newest version there is."""

    def __post_init__(self) -> None:
        self._marks = [f'"key":{key}'.encode() for key in self.keys]

    def keeps(self, line: bytes) -> bool:
        if self._marks and not any(mark in line for mark in self._marks):
            self.others += 1
            return False
        try:
            envelope = orjson.loads(line)
            table, rules = envelope["table"], envelope["rules"]
            version = f"{self._generation(table, envelope)}-{envelope['seq']}"
        except (ValueError, LookupError, TypeError):
            self.no_envelopes += 1
            return False
        if table not in self.rules or not self._is_of_key(line, version):
            self.others += 1
            return False
        if rules != self.rules[table]:
            self.other_rules[table, str(rules)] += 1
        self.kept += 1
        return True

    def _generation(self, table: str, envelope: Mapping[str, Any]) -> str:
        generation = str(envelope["gen"])
        placing = self.placings.get(table)
        return placing.of(generation, envelope.get("created_ms")) if placing is not None else generation

    def _is_of_key(self, line: bytes, version: str) -> bool:
        if not self.keys:
            return True
        key = key_as_written(line.decode())
        if key not in self.keys:
            return False
        self.newest[key] = max(version, self.newest.get(key, ""))
        return True


def sieve_of(
    tables: Mapping[str, TableConfig], rules: Mapping[str, TableRules], keys: frozenset[str] = frozenset()
) -> Sieve:
    """For the changes of these tables; `rules` are those of now."""
    labels = {name: rules[name].label for name in tables}
    return Sieve(labels, keys, {name: Placing(table.lake) for name, table in tables.items()})


class Material(Protocol):
    """Where the changes come from."""

    stream: str
    """Names the lines' positions."""

    def pieces(self, sieve: Sieve) -> Iterator[Piece]:
        """All of it, sieved, staged where it has to be."""


Versions = Callable[[Sequence[str]], Mapping[str, str]]
"""Keys -> the version each has in `current`; absent ones are absent."""


@dataclass(frozen=True)
class Replay:
    material: Material
    sieve: Sieve
    at_ms: int
    gaps_since_ms: int
    """Marks made from then on stand across its way."""

    def pieces(self, versions: Versions, marks: Mapping[str, Sequence[Mark]]) -> list[Piece]:
        """All that is to be handed over. ReplayRefusedError where it could not end right."""
        self._refuse_gaps(marks)
        pieces = list(self.material.pieces(self.sieve))
        self._refuse_other_rules()
        self._refuse_missing_versions(versions)
        return pieces

    def hand_over(self, delivery: Delivery, pieces: Sequence[Piece]) -> Total:
        for start in range(0, len(pieces), _PIECES_AT_ONCE):
            delivery.hand_over(
                HandOver(
                    id=delivery.id,
                    what="replay",
                    tables=tuple(self.sieve.rules),
                    stream=self.material.stream,
                    at_ms=self.at_ms,
                    part=delivery.parts,
                    repair=bool(self.sieve.keys),
                    pieces=tuple(pieces[start : start + _PIECES_AT_ONCE]),
                )
            )
        return delivery.wait()

    def _refuse_gaps(self, marks: Mapping[str, Sequence[Mark]]) -> None:
        """A single row's own change mends it, gap or not."""
        if self.sieve.keys:
            return
        for table, found in marks.items():
            across = [mark for mark in found if mark.marked_ms >= self.gaps_since_ms or not mark.marked_ms]
            if across:
                raise ReplayRefusedError(
                    f"changes of {table} may have been lost ({across[0]}): a replay would not bring them back",
                    hint="`lakestream verify`; where it finds differences, `lakestream rebuild`; then delete the marks",
                )

    def _refuse_other_rules(self) -> None:
        if self.sieve.other_rules:
            (table, rules), count = self.sieve.other_rules.most_common(1)[0]
            raise ReplayRefusedError(
                f"{count:,} changes of {table} were made by rules {rules}, now they are {self.sieve.rules[table]}: "
                "what those left in would come back",
                hint="`lakestream rebuild` applies the rules of now; or replay from a time after they changed",
            )

    def _refuse_missing_versions(self, versions: Versions) -> None:
        if not self.sieve.keys:
            return
        held = versions(sorted(self.sieve.keys))
        missing = [key for key in sorted(self.sieve.keys) if self.sieve.newest.get(key, "") < held.get(key, "0")]
        if missing:
            shown = ", ".join(missing[:_KEYS_SHOWN]) + (" …" if missing[_KEYS_SHOWN:] else "")
            raise ReplayRefusedError(
                f"{len(missing)} of {len(self.sieve.keys)} keys have no change here as new as their row: {shown}",
                hint="replay --from archive, which reaches back to the first load; a key is what `verify` prints",
            )


def canonical_key(text: str) -> str:
    """A key as `verify` prints it, spaces or not; ConfigurationError where it is none."""
    try:
        return key_as_written(f'{{"key":{text}}}')
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise ConfigurationError(
            f"--repair {text!r} is no key", hint="""a JSON object as `verify` prints it: '{"event_id":"…"}'"""
        ) from error

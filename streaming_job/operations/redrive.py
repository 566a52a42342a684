"""`lakestream redrive`: dead letters once more through the bridge's own code into Kinesis, in the order they happened.

A record carries the sequence number it was born with: however late it arrives, the lake's guard lets it replace only
what is older. So sending one twice is harmless, and a letter goes only when its records are in Kinesis.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Final

from bridge_lambda.dead_letters import ObjectStore, dead_letter
from bridge_lambda.envelope import Parked, encode_change
from bridge_lambda.errors import BridgeError, ParkError, PoisonRecordError
from bridge_lambda.publisher import Clock, Entry, Published, RecordPublisher, publish
from bridge_lambda.rules import TableRules
from config.errors import LakestreamError
from streaming_job.operations.redrive_letters import Letter, Letters, NotALetterError, Order, Place, order_of

_READS_AT_ONCE: Final = 8
_LETTERS_AT_ONCE: Final = 200
_RECORDS_AT_ONCE: Final = 2_000
_BYTES_AT_ONCE: Final = 32 * 1024 * 1024
PATIENCE_MS: Final = 60_000.0
"""For one portion to reach Kinesis, throttling included."""
_EXAMPLES_MAX: Final = 5


class RedriveStoppedError(LakestreamError):
    """Kinesis or S3 did not take a record; what was sent before it is marked, a second run goes on from there."""


@dataclass
class Report:
    letters: int = 0
    sent: int = 0
    filtered: int = 0
    """Kept back by the tables' filters, as the bridge would have done."""
    redriven: int = 0
    """Letters that are done; in a dry run, that would be."""
    stay: Counter[str] = field(default_factory=Counter)
    """Letters that cannot be redriven yet, by reason."""
    examples: dict[str, list[str]] = field(default_factory=dict)
    by_table: Counter[str] = field(default_factory=Counter)

    def keep(self, reason: str, name: str, what: str) -> None:
        self.stay[reason] += 1
        known = self.examples.setdefault(reason, [])
        if len(known) < _EXAMPLES_MAX:
            known.append(f"{name}: {what}")

    def as_dict(self) -> dict[str, Any]:
        return {
            "letters": self.letters,
            "redriven": self.redriven,
            "records_sent": self.sent,
            "records_filtered": self.filtered,
            "stay": dict(self.stay),
            "examples": self.examples,
            "by_table": dict(self.by_table),
        }


@dataclass(frozen=True, slots=True)
class _Waiting:
    order: Order
    place: Place
    name: str
    records: int
    bytes: int


@dataclass(slots=True)
class _Record:
    letter: Letter
    raw: Any
    order: Order


@dataclass
class Redrive:
    letters: Letters
    tables: dict[str, TableRules]
    publisher: RecordPublisher
    store: ObjectStore
    bucket: str
    clock: Clock
    show: Callable[[int, int], None] = lambda _done, _all: None
    """Letters done, letters in all."""
    dry_run: bool = False
    report: Report = field(default_factory=Report)

    def run(self) -> Report:
        waiting = sorted(self._look(), key=lambda entry: entry.order)
        self.report.letters += len(waiting)
        done = 0
        for portion in _portions(waiting):
            self.show(done, len(waiting))
            with ThreadPoolExecutor(_READS_AT_ONCE) as pool:
                read = pool.map(lambda entry: self.letters.read(entry.place, entry.name), portion)
                self._send([letter for letter in read if letter is not None])
            done += len(portion)
        self.show(done, len(waiting))
        return self.report

    def _look(self) -> Iterator[_Waiting]:
        """Every letter once, for its place in the order; their bodies are not kept."""
        with ThreadPoolExecutor(_READS_AT_ONCE) as pool:
            for entry in pool.map(lambda found: self._waiting(*found), self.letters.names()):
                if entry is not None:
                    yield entry

    def _waiting(self, place: Place, name: str) -> _Waiting | None:
        try:
            letter = self.letters.read(place, name)
        except NotALetterError as error:
            self.report.letters += 1
            self.report.keep("no-dead-letter", name, error.what)
            return None
        return _Waiting(letter.order, place, name, len(letter.records), letter.bytes) if letter else None

    # --- one portion --------------------------------------------------------------------------------------------------

    def _send(self, letters: Sequence[Letter]) -> None:
        """1 encode, claim checks into S3; 2 publish; 3 letters whose every record is done get a receipt and go.
        Cut off after 1 or 2, nothing is lost: the letters are all still there.
        """
        records = sorted(
            (_Record(letter, raw, order_of(raw)) for letter in letters for raw in letter.records),
            key=lambda record: record.order,
        )
        stay: dict[str, BridgeError] = {}
        filtered: Counter[str] = Counter()
        entries = list(self._encoded(records, stay, filtered))
        published = Published(sent=len(entries)) if self.dry_run else self._published(entries, records, stay)
        self.report.sent += published.sent
        self.report.filtered += sum(filtered.values())
        unsent = (
            {record.letter.name for record in records[published.unsent :]} if published.unsent is not None else set()
        )
        for letter in letters:
            if letter.name in stay:
                error = stay[letter.name]
                self.report.keep(_reason(error), letter.name, f"{error.what}; {error.hint}")
            elif letter.name not in unsent:
                self._finish(letter, filtered[letter.name])
        if published.unsent is not None:
            problem = published.problem
            raise RedriveStoppedError(
                f"after {self.report.redriven} letters: {problem.what if problem else 'no time left'}",
                hint=problem.hint if problem else "run it again",
            )

    def _encoded(
        self, records: Sequence[_Record], stay: dict[str, BridgeError], filtered: Counter[str]
    ) -> Iterator[Entry]:
        for index, record in enumerate(records):
            try:
                change = encode_change(record.raw, self.tables, self.clock.now_ms(), self.bucket)
            except PoisonRecordError as poison:
                self._refuse(record, poison, stay)
                continue
            if change is None:
                filtered[record.letter.name] += 1
                continue
            if change.claim is not None and not self.dry_run:
                self._park(change.claim)
            self.report.by_table[record.order.table] += 1
            yield Entry(index, change)

    def _published(
        self, entries: Sequence[Entry], records: Sequence[_Record], stay: dict[str, BridgeError]
    ) -> Published:
        deadline_ms = self.clock.elapsed_ms() + PATIENCE_MS
        return publish(
            entries,
            self.publisher,
            clock=self.clock,
            remaining_ms=lambda: deadline_ms - self.clock.elapsed_ms(),
            condemn=lambda entry, error: self._refuse(records[entry.index], error, stay),
        )

    def _refuse(self, record: _Record, error: BridgeError, stay: dict[str, BridgeError]) -> None:
        """A letter stays as it is. Of a batch only the culprit does, in a letter of its own."""
        if not record.letter.is_batch:
            stay[record.letter.name] = error
            return
        letter = dead_letter(record.raw, error, self.clock.now_ms())
        self.report.keep(_reason(error), letter.name, f"{error.what}; {error.hint}")
        if not self.dry_run:
            self._park(letter)

    def _park(self, parked: Parked) -> None:
        try:
            self.store.put(parked)
        except ParkError as error:
            raise RedriveStoppedError(error.what, hint=error.hint) from error

    def _finish(self, letter: Letter, filtered: int) -> None:
        self.report.redriven += 1
        if self.dry_run:
            return
        orders = [order_of(record) for record in letter.records]
        self.letters.finish(
            letter,
            {
                "redriven_ms": self.clock.now_ms(),
                "records": len(letter.records),
                "filtered": filtered,
                "table": orders[0].table if orders else "",
                "gen": orders[0].generation if orders else "",
                "first_seq": min((order.sequence for order in orders), default=""),
                "last_seq": max((order.sequence for order in orders), default=""),
            },
        )


def _portions(waiting: Sequence[_Waiting]) -> Iterator[Sequence[_Waiting]]:
    portion: list[_Waiting] = []
    records = size = 0
    for entry in waiting:
        records += entry.records
        size += entry.bytes
        if portion and (len(portion) >= _LETTERS_AT_ONCE or records > _RECORDS_AT_ONCE or size > _BYTES_AT_ONCE):
            yield portion
            portion, records, size = [], entry.records, entry.bytes
        portion.append(entry)
    if portion:
        yield portion


def _reason(error: BridgeError) -> str:
    return error.reason if isinstance(error, PoisonRecordError) else "refused-by-kinesis"

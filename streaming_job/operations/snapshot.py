"""A table's items as envelopes of op SNAPSHOT: objects in the bucket, handed over when the state knows of them.

Every row carries the generation it was read under and 40 zeros, so that any change beats it, whichever comes first.
Each object holds items of one part - a segment of the Scan, a file of the export - and is written before the state
says so, and handed over only then: cut off before, the part is read again from the object before. The table may have
changed, so that the object holds other items; nobody has taken it in yet. Cut off after, the next run hands it over.

The state stays on this machine, in a file only its owner may read: where a Scan goes on is a raw key, which the
table's rules may hash.
"""

import gzip
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

from bridge_lambda.envelope import Change, encode_snapshot
from bridge_lambda.errors import BridgeError
from bridge_lambda.rules import TableRules
from config.errors import ConfigurationError, LakestreamError
from streaming_job.objects import Bucket
from streaming_job.operations.source_scan import Item

PREFIX: Final = "snapshot/"
ENDING: Final = ".ndjson.gz"
_ROWS_MAX: Final = 5_000
_BYTES_MAX: Final = 8 * 1024 * 1024
"""Of one object, before it is packed."""
_PACKING: Final = 3


class BadItemError(LakestreamError):
    """What was read is no item of this table: the rules name another key, or the export is damaged."""


@dataclass
class Part:
    """How far one part of the source was read and written."""

    after: str | None = None
    """Where it goes on, in the source's own words."""
    is_ended: bool = False
    objects: int = 0
    items: int = 0
    rows: int = 0


@dataclass
class State:
    """All that a later run needs to go on."""

    id: str
    table: str
    generation: str
    rules: str
    source: str
    """`scan`, or the export's address."""
    began_ms: int
    parts: dict[int, Part]

    @property
    def is_ended(self) -> bool:
        return all(part.is_ended for part in self.parts.values())

    @property
    def items(self) -> int:
        return sum(part.items for part in self.parts.values())

    @property
    def rows(self) -> int:
        return sum(part.rows for part in self.parts.values())

    @property
    def pieces(self) -> list[str]:
        """Names of the objects, without folder and ending."""
        return [
            piece_name(number, index) for number, part in sorted(self.parts.items()) for index in range(part.objects)
        ]

    def place(self, piece: str) -> int:
        """A number of its own, the same in every run. What is read at about one time stands together."""
        number, index = map(int, piece.split("-"))
        return index * len(self.parts) + number

    def keep(self, file: Path) -> None:
        half = file.with_name(f".{file.name}.half")
        half.touch(mode=0o600)
        half.write_text(json.dumps(asdict(self), indent=1), encoding="utf-8")
        half.replace(file)

    @classmethod
    def load(cls, file: Path) -> "State":
        try:
            held = json.loads(file.read_text(encoding="utf-8"))
            parts = {int(number): Part(**part) for number, part in held.pop("parts").items()}
            return cls(**held, parts=parts)
        except FileNotFoundError:
            raise ConfigurationError(
                f"there is no snapshot to go on with: {file} is not there", hint="leave --resume out to begin one"
            ) from None
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise ConfigurationError(f"{file} is no state of a snapshot", hint="remove it, and begin anew") from error


@dataclass(frozen=True)
class Read:
    """Some items of a part, and where the part goes on behind them."""

    part: int
    items: Sequence[Item]
    after: str | None
    is_last: bool


@dataclass
class _Buffer:
    lines: list[bytes] = field(default_factory=list)
    size: int = 0
    items: int = 0


Written = Callable[[str, str], None]
"""A piece's name, and the address of its object."""


@dataclass
class Snapshot:
    bucket: Bucket
    rules: TableRules
    state: State
    keep: Callable[[State], None]
    written: Written
    now_ms: Callable[[], int]
    rows_max: int = _ROWS_MAX
    """Of one object."""
    _buffers: dict[int, _Buffer] = field(default_factory=dict)

    def take(self, reads: Iterable[Read]) -> None:
        """All of the source into objects. Left early, the state says where to go on."""
        for read in reads:
            buffer = self._buffers.setdefault(read.part, _Buffer())
            self._encode(read.items, buffer)
            if read.is_last or len(buffer.lines) >= self.rows_max or buffer.size >= _BYTES_MAX:
                self._write(read, buffer)
                self._buffers[read.part] = _Buffer()
        self._put("manifest.json", json.dumps(self._manifest(), indent=1).encode())

    def address(self, piece: str) -> str:
        return f"s3://{self.bucket.name}/{self._name(f'{piece}{ENDING}')}"

    def _encode(self, items: Sequence[Item], buffer: _Buffer) -> None:
        for item in items:
            read_ms = self.now_ms()
            row = self._encoded(item, read_ms)
            buffer.items += 1
            if row is None:
                continue
            if row.claim is not None:
                self.bucket.put(row.claim.name, row.claim.body)
            line = row.line(read_ms)
            buffer.lines.append(line)
            buffer.size += len(line)

    def _encoded(self, item: Item, read_ms: int) -> Change | None:
        try:
            return encode_snapshot(item, self.rules, self.state.generation, read_ms, self.bucket.name)
        except BridgeError as error:
            raise BadItemError(f"an item of {self.state.table} can be no row: {error.what}", hint=error.hint) from None

    def _write(self, read: Read, buffer: _Buffer) -> None:
        """1 the object; 2 the state; 3 it is handed over. Cut off before 2 it is written anew, before 3 the next run
        finds it without a receipt, and hands it over.
        """
        part = self.state.parts[read.part]
        piece = None
        if buffer.lines:
            piece = piece_name(read.part, part.objects)
            self._put(f"{piece}{ENDING}", gzip.compress(b"".join(buffer.lines), _PACKING, mtime=0))
            part.objects += 1
        part.items += buffer.items
        part.rows += len(buffer.lines)
        part.after, part.is_ended = read.after, read.is_last
        self.keep(self.state)
        if piece is not None:
            self.written(piece, self.address(piece))

    def _manifest(self) -> dict[str, Any]:
        """Says that the snapshot is whole, and of what: a rebuild may begin with it."""
        state = self.state
        return {
            "v": 1,
            "id": state.id,
            "table": state.table,
            "gen": state.generation,
            "rules": state.rules,
            "source": state.source,
            "began_ms": state.began_ms,
            "ended_ms": self.now_ms(),
            "items": state.items,
            "rows": state.rows,
            "objects": [self._name(f"{piece}{ENDING}") for piece in state.pieces],
        }

    def _put(self, name: str, body: bytes) -> None:
        self.bucket.put(self._name(name), body)

    def _name(self, name: str) -> str:
        return f"{PREFIX}{self.state.id}/{name}"


def piece_name(part: int, number: int) -> str:
    return f"{part:04d}-{number:06d}"

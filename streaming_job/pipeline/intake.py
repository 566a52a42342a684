"""Work for the one writer of the tables: what a command hands over, and how the writer answers.

A table has one writer, and while a job runs that is the job. So a command that has changes to write - a first load, a
replay, a pull - hands them over: pieces, and one manifest that names them, whose writing is the moment of handing over.
The job takes waiting pieces between its batches through the same `Pipeline.process_batch`, a slice at a time and for no
more than its share of the time (`intake_drain`). Where no job holds the tables the command does that itself
(`operations.handing_over.Delivery`, which waits, tells how far it is, and answers Ctrl-C).

    intake = Intake.of(settings)      # <lake.root>/intake; where a catalog holds the lake, a prefix of the bucket
    with Delivery(settings, tables, intake, "pull-7", name="lakestream pull", show=show) as delivery:
        address = intake.stage("pull-7", "000001", encoded_rows(rows))  # or any object there is: s3://bucket/key
        piece = Piece(name="000001", address=address, form="rows")      # "lines": envelopes as NDJSON, plain or gzip
        delivery.hand_over(
            HandOver(id="pull-7", what="pull", tables=("things",), stream="pull", at_ms=now_ms(), pieces=(piece,))
        )                                                               # as often as there is something: part=0, 1, 2 …
        total = delivery.wait()                                         # rows, rejects, history_inserted, …

Rows have positions as the source's do, so that a reject is kept once. A piece of `rows` brings its own; a line's is the
hand-over's `stream`, the piece's address and the number of the line: the same each time the same object is handed over.
`repair=True` lets a change also replace the row that has its very version. More may be handed over under an id that is
under way, each with a `part` of its own; a command that goes on under the id of a run that was cut off gives the same
pieces the same `part`, or it would write over what the writer has in hand. Latency is not measured: what is handed over
happened long ago.

A crash at any point is harmless: a piece without a receipt is taken in again, from its beginning, and nothing is newer
than itself; a piece with one is passed over. A piece nobody can read gets a receipt that says so, and the rest goes on.
Left early (Ctrl-C, an error), `Delivery` withdraws what was not taken in yet.
"""

import re
from collections.abc import Iterable
from typing import Final, Literal

from pydantic import Field, ValidationError

from config.settings import Settings
from config.tables import Frozen
from streaming_job.pipeline.intake_store import IntakeStore, store_of

_WAITING: Final = "waiting/"
_DONE: Final = "done/"
_STAGED: Final = "pieces/"
_REFUSED: Final = "refused/"
_id_of: Final = re.compile(r"^waiting/\d{13}-(.+)-\d{6,8}\.json$").search

Name = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$", max_length=200)


class Piece(Frozen):
    """An object with changes in it. Small pieces show progress sooner, and lose less when the writer is killed."""

    name: str = Name
    """Its receipt's, within the hand-over's id."""
    address: str
    """`s3://bucket/key`, or what `Intake.stage` gave."""
    form: Literal["lines", "rows"]


class HandOver(Frozen):
    v: Literal[1] = 1
    id: str = Name
    what: str
    """For a person: which command."""
    tables: tuple[str, ...] = Field(min_length=1)
    """Whose changes it may hold: a writer that has not all of them leaves it to one that has."""
    stream: str
    at_ms: int = Field(ge=0)
    """When it was handed over: the arrival of its lines. Older hand-overs are taken in first."""
    part: int = Field(default=0, ge=0, le=99_999_999)
    repair: bool = False
    pieces: tuple[Piece, ...] = Field(min_length=1)

    @property
    def place(self) -> str:
        return f"{_WAITING}{self.at_ms:013d}-{self.id}-{self.part:06d}.json"


class Receipt(Frozen):
    """What became of a piece."""

    piece: str
    rows: int = 0
    rejects: int = 0
    history_inserted: int = 0
    current_inserted: int = 0
    current_updated: int = 0
    parked: int = 0
    """Rows whose table could not be written: kept, and written when it is mended."""
    failure: str | None = None
    """Why the piece was given up, or its table was not written."""


class Intake:
    """Both ends of the hand-over; several commands and one writer may use it at once."""

    def __init__(self, store: IntakeStore) -> None:
        self._store = store

    @classmethod
    def of(cls, settings: Settings) -> "Intake":
        """ConfigurationError where the lake has no place for it."""
        return cls(store_of(settings))

    # --- the command's end --------------------------------------------------------------------------------------------

    def stage(self, of_id: str, name: str, body: bytes) -> str:
        """An object for a piece, gone with its hand-over; its address."""
        address = f"{_STAGED}{of_id}/{name}"
        self._store.put(address, body)
        return address

    def hand_over(self, work: HandOver) -> None:
        self._store.put(work.place, work.model_dump_json().encode())

    def withdraw(self, of_id: str) -> None:
        """What waits of it waits no more; a piece in the writer's hands is still finished."""
        self._delete(place for place in self.waiting() if id_of(place) == of_id)
        self._delete(self._store.names(f"{_STAGED}{of_id}/"))

    def receipts(self, of_id: str) -> dict[str, Receipt]:
        """By the pieces' names."""
        found: dict[str, Receipt] = {}
        for name in self._store.names(f"{_DONE}{of_id}/"):
            body = self._store.get(name)
            if body is not None:
                receipt = Receipt.model_validate_json(body)
                found[receipt.piece] = receipt
        return found

    def done(self, of_id: str) -> set[str]:
        """Names of the pieces that have a receipt."""
        prefix = f"{_DONE}{of_id}/"
        return {name.removeprefix(prefix).removesuffix(".json") for name in self._store.names(prefix)}

    def forget(self, of_id: str) -> None:
        """All of it, once the command has told what the receipts say: without them a manifest left would begin anew."""
        self.withdraw(of_id)
        self._delete(self._store.names(f"{_DONE}{of_id}/"))

    # --- the writer's end ---------------------------------------------------------------------------------------------

    def waiting(self) -> list[str]:
        """Places of what was handed over, oldest first."""
        return self._store.names(_WAITING)

    def is_waiting(self, work: HandOver) -> bool:
        return self._store.get(work.place) is not None

    def open(self, place: str) -> HandOver | None:
        """None where it was withdrawn. What is no manifest is put aside, so that it is met once."""
        body = self._store.get(place)
        if body is None:
            return None
        try:
            return HandOver.model_validate_json(body)
        except ValidationError:
            self._store.put(_REFUSED + place.removeprefix(_WAITING), body)
            self._store.delete(place)
            raise

    def read(self, piece: Piece) -> bytes | None:
        return self._store.get(piece.address)

    def finish(self, work: HandOver, piece: Piece, receipt: Receipt) -> None:
        """First the receipt, then what was staged goes: a crash between them leaves an object that `forget` finds."""
        self._store.put(f"{_DONE}{work.id}/{piece.name}.json", receipt.model_dump_json().encode())
        if piece.address.startswith(_STAGED):
            self._store.delete(piece.address)

    def close(self, work: HandOver) -> None:
        """All its pieces have receipts."""
        self._store.delete(work.place)

    def _delete(self, names: Iterable[str]) -> None:
        for name in list(names):
            self._store.delete(name)


def id_of(place: str) -> str | None:
    found = _id_of(place)
    return found[1] if found else None

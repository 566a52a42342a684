"""A piece's object as rows in the shape of the source's, cut into slices. Pure."""

import gzip
import io
import zlib
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from itertools import islice
from typing import Any, Final

import pyarrow as pa
import pyarrow.ipc

from config.errors import LakestreamError
from streaming_job.pipeline.arrow import table
from streaming_job.pipeline.intake import HandOver, Piece

_FIELDS: Final[list[tuple[str, pa.DataType]]] = [
    ("partitionKey", pa.string()),
    ("data", pa.binary()),
    ("stream", pa.string()),
    ("shardId", pa.string()),
    ("sequenceNumber", pa.string()),
    ("approximateArrivalTimestamp", pa.timestamp("us", "UTC")),
]
SOURCE: Final = pa.schema(_FIELDS)
"""The row schema of the Kinesis sources."""

_GZIP: Final = b"\x1f\x8b"
_ipc: Any = pyarrow.ipc  # its stubs lack the codecs


class UnreadablePieceError(LakestreamError):
    """The object is not there, or is none of ours."""


def encoded_rows(rows: pa.Table) -> bytes:
    """A piece of the form `rows`, from the columns of SOURCE."""
    sink = io.BytesIO()
    with _ipc.new_stream(sink, SOURCE, options=_ipc.IpcWriteOptions(compression="zstd")) as writer:
        writer.write_table(rows.select(SOURCE.names).cast(SOURCE))
    return sink.getvalue()


def slices(work: HandOver, piece: Piece, body: bytes | None, *, rows_max: int, bytes_max: int) -> Iterator[pa.Table]:
    """UnreadablePieceError where the object breaks off; the slices before that are good."""
    if body is None:
        raise UnreadablePieceError(f"{piece.address} is not there")
    try:
        if piece.form == "rows":
            yield from _of_rows(body, rows_max)
        else:
            yield from _of_lines(work, piece, body, rows_max, bytes_max)
    except (OSError, EOFError, zlib.error, pa.ArrowException) as error:
        raise UnreadablePieceError(f"{piece.address} cannot be read to its end: {error}") from error


def lines(body: bytes) -> Iterator[bytes]:
    """Of an NDJSON object, gzip or plain, each with its newline, as its record had it."""
    if not body.startswith(_GZIP):
        yield from io.BytesIO(body)
        return
    with gzip.open(io.BytesIO(body)) as file:
        yield from file


def _of_rows(body: bytes, rows_max: int) -> Iterator[pa.Table]:
    rows = _ipc.open_stream(io.BytesIO(body)).read_all().cast(SOURCE)
    for start in range(0, rows.num_rows, rows_max):
        yield rows.slice(start, rows_max)


def _of_lines(work: HandOver, piece: Piece, body: bytes, rows_max: int, bytes_max: int) -> Iterator[pa.Table]:
    numbered = ((number, line) for number, line in enumerate(lines(body), start=1) if line.strip())
    while portion := list(_portion(numbered, rows_max, bytes_max)):
        count = len(portion)
        yield table(
            {
                "partitionKey": pa.nulls(count, pa.string()),
                "data": [line for _, line in portion],
                "stream": [work.stream] * count,
                "shardId": [piece.address] * count,
                "sequenceNumber": [str(number) for number, _ in portion],
                "approximateArrivalTimestamp": [datetime.fromtimestamp(work.at_ms / 1000, UTC)] * count,
            },
            SOURCE,
        )


def _portion(numbered: Iterable[tuple[int, bytes]], rows_max: int, bytes_max: int) -> Iterator[tuple[int, bytes]]:
    size = 0
    for number, line in islice(numbered, rows_max):
        yield number, line
        size += len(line)
        if size >= bytes_max:
            return

"""An object's bytes as the lines in it, and the lines as the source's rows. Whatever the object is, this ends."""

import zlib
from collections.abc import Iterator
from typing import Final

from streaming_job.kinesis.rows import Rows

LINE_BYTES_MAX: Final = 16 * 1024 * 1024
"""A Kinesis record has 10 MiB at most."""
STRANGE_LINES_MAX: Final = 1_000
"""After so many lines, none of which begins as an envelope does, the object is none of ours."""
SHOWN_BYTES: Final = 64 * 1024
"""What a reject keeps of an object that cannot be read on."""
_ROWS_MAX: Final = 5_000
_BYTES_MAX: Final = 8 * 1024 * 1024
_PIECE: Final = 64 * 1024
_GZIP: Final = b"\x1f\x8b"
_ENVELOPE: Final = b'{"v":'


def rows_of(content: bytes, arrival_ms: int) -> Iterator[Rows]:
    """Each line a row, numbered from 1, as it left the bridge."""
    numbers: list[str] = []
    data: list[bytes] = []
    size = 0
    for number, line in enumerate(lines(content), start=1):
        if not line.strip():
            continue
        numbers.append(str(number))
        data.append(line)
        size += len(line)
        if len(data) >= _ROWS_MAX or size >= _BYTES_MAX:
            yield _rows(numbers, data, arrival_ms)
            numbers, data, size = [], [], 0
    if data:
        yield _rows(numbers, data, arrival_ms)


def _rows(numbers: list[str], data: list[bytes], arrival_ms: int) -> Rows:
    return Rows.of(numbers, [arrival_ms] * len(data), [""] * len(data), data)


def lines(content: bytes) -> Iterator[bytes]:
    """What cannot be read on - damaged, without an end of line, nothing like ours - gives one last line, a reject."""
    rest = b""
    strange = 0
    looks_ours = False
    try:
        for block in _unpacked(content):
            *whole, rest = (rest + block).split(b"\n")
            for line in whole:
                looks_ours = looks_ours or line.startswith(_ENVELOPE)
                strange += not looks_ours
                yield line + b"\n"
            if strange > STRANGE_LINES_MAX or len(rest) > LINE_BYTES_MAX:
                yield (rest or content)[:SHOWN_BYTES]
                return
    except (zlib.error, EOFError):
        yield (rest or content)[:SHOWN_BYTES]
        return
    if rest:
        yield rest


def _unpacked(content: bytes) -> Iterator[bytes]:
    """In pieces; gzip of any number of members, or plain text."""
    if not content.startswith(_GZIP):
        for start in range(0, len(content), _PIECE):
            yield content[start : start + _PIECE]
        return
    member = zlib.decompressobj(zlib.MAX_WBITS | 16)
    for start in range(0, len(content), _PIECE):
        piece = content[start : start + _PIECE]
        while piece:
            if member.eof:
                member = zlib.decompressobj(zlib.MAX_WBITS | 16)
            yield member.decompress(piece)
            piece = member.unused_data
    if not member.eof:
        raise EOFError

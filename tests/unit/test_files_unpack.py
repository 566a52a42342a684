import gzip
import random
from collections.abc import Iterable

import pytest

from streaming_job.files.unpack import LINE_BYTES_MAX, SHOWN_BYTES, STRANGE_LINES_MAX, lines, rows_of

LINES = [b'{"v":1,"n":%d}\n' % number for number in range(20_000)]


def packed(some: Iterable[bytes]) -> bytes:
    return gzip.compress(b"".join(some), mtime=0)


@pytest.mark.parametrize(
    "content",
    [
        packed(LINES),
        packed(LINES[:7]) + packed(LINES[7:]),
        b"".join(LINES),
        packed([b"".join(LINES).removesuffix(b"\n")]) + packed([b"\n"]),
    ],
    ids=["one gzip member", "several", "no gzip", "a member that ends within a line"],
)
def test_every_line_comes_out_as_it_went_in(content: bytes) -> None:
    assert list(lines(content)) == LINES


def test_rows_are_numbered_by_line_and_come_in_portions() -> None:
    portions = list(rows_of(packed([LINES[0], b"\n", *LINES[2:]]), arrival_ms=5))
    assert len(portions) > 1
    numbers = [number for rows in portions for number in rows.sequences]
    assert numbers == [str(number) for number in range(1, len(LINES) + 1) if number != 2]
    assert {arrival for rows in portions for arrival in rows.arrivals_ms} == {5}
    assert [line for rows in portions for line in rows.data] == [LINES[0], *LINES[2:]]


def test_a_damaged_object_gives_the_lines_before_the_damage_and_one_reject() -> None:
    """Cut at every length: what was read is a part of the lines, and never nothing."""
    noise = random.Random(1)
    whole = [b'{"v":1,"x":"%s"}\n' % noise.randbytes(40).hex().encode() for _ in range(3_000)]
    content = packed(whole)
    for length in range(30, len(content), 9_001):
        found = list(lines(content[:length]))
        assert found[:-1] == whole[: len(found) - 1]
        assert found[-1] not in whole
    assert list(lines(content[:-1]))[:-1] == whole


def test_bytes_that_only_begin_as_gzip_are_one_reject() -> None:
    assert list(lines(b"\x1f\x8b" + b"nothing")) == [b"\x1f\x8bnothing"]


def test_a_large_object_of_another_kind_ends_in_few_rejects() -> None:
    """A picture has line feeds too."""
    found = list(lines(random.Random(2).randbytes(4_000_000)))
    assert 1 < len(found) < 2 * STRANGE_LINES_MAX
    assert len(found[-1]) <= SHOWN_BYTES


def test_a_line_without_an_end_is_one_reject_and_not_held_whole() -> None:
    found = list(lines(gzip.compress(b"{" * (2 * LINE_BYTES_MAX), 1)))
    assert [len(line) for line in found] == [SHOWN_BYTES]


def test_foreign_lines_among_ours_do_not_end_the_object() -> None:
    """Whoever else writes into the stream: his lines are rejects, ours are read."""
    mixed = [line for ours in LINES[:3_000] for line in (ours, b"hello\n")]
    assert list(lines(packed(mixed))) == mixed

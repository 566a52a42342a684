"""A table without a stream, read by an index of tenant and version: each item once a version, as an envelope.

What a pass reads is handed over in portions, and a portion's cursors count once it is in the lake: cut off anywhere,
the next pass reads again what was not. Items that a pass has read are known by their marks as long as the next ones
read them again; a new start knows none, and hands the overlap over once more, which changes nothing.

The envelopes carry the generation 0: any change of a stream that the table gets one day beats them.
"""

import logging
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from decimal import Decimal
from hashlib import blake2b
from typing import Any, Final

from bridge_lambda.envelope import Change, Parked, Reading, encode_item
from bridge_lambda.errors import PoisonRecordError
from bridge_lambda.rules import TableRules
from config.limits import GENERATION_DIGITS
from streaming_job.operations.pull_cursors import Cursor, Cursors
from streaming_job.operations.pull_index import Index, TenantPage, TenantUnreadableError
from streaming_job.operations.pull_versions import Version, Versions, sequence
from streaming_job.operations.source_scan import Item

log = logging.getLogger("lakestream.pull")

GENERATION: Final = "0" * GENERATION_DIGITS
_TENANTS_AT_ONCE: Final = 8
_ROWS_MAX: Final = 5_000
_BYTES_MAX: Final = 8 * 1024 * 1024


@dataclass
class Counts:
    """Of one pass."""

    tenants: int = 0
    empty: int = 0
    """Tenants without an item to read."""
    failed: int = 0
    """Tenants that could not be read to their end; the next pass reads them again."""
    read: int = 0
    sent: int = 0
    again: int = 0
    """Items of the overlap that an earlier pass of this run had read."""
    late: int = 0
    """New ones behind the newest version seen: written late, or by a clock that is slow or stepped back."""
    ahead: int = 0
    """Versions later than now: they do not move the cursor on."""
    odd: int = 0
    """Versions that cannot be read, or do not sort as times do: sent, but found again only by --reconcile."""
    filtered: int = 0
    gone: int = 0
    """Deleted between index and table."""
    unreadable: int = 0
    """Items that can be no envelope."""

    def as_dict(self) -> dict[str, int]:
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Portion:
    """Lines to hand over, and how far they bring each tenant."""

    lines: Sequence[bytes]
    cursors: dict[str, Cursor]


@dataclass
class Recent:
    """Marks of what was read of a tenant, in the order of versions, as far back as a pass reads again."""

    marks: dict[bytes, Decimal | None] = field(default_factory=dict)
    in_order: deque[tuple[Decimal, bytes]] = field(default_factory=deque)

    def is_new(self, mark: bytes, number: Decimal | None) -> bool:
        if mark in self.marks:
            return False
        self.marks[mark] = number
        if number is not None:
            self.in_order.append((number, mark))
        return True

    def forget_before(self, start: Decimal) -> None:
        while self.in_order and self.in_order[0][0] < start:
            self.marks.pop(self.in_order.popleft()[1], None)


@dataclass
class Pull:
    index: Index
    rules: TableRules
    versions: Versions
    cursors: Cursors
    park: Callable[[Parked], None]
    """Puts a claim check where the lake finds it."""
    claims_bucket: str
    now_ms: Callable[[], int]
    counts: Counts = field(default_factory=Counts)
    _recent: dict[str, Recent] = field(default_factory=dict)

    def read(self, tenants: Sequence[str]) -> Iterator[Portion]:
        """One pass over these tenants."""
        self.counts = Counts(tenants=len(tenants))
        lines: list[bytes] = []
        size = 0
        moved: dict[str, Cursor] = {}
        for tenant, pages in self._begun(tenants):
            for some, cursor in self._tenant(tenant, pages):
                lines += some
                size += sum(map(len, some))
                moved[tenant] = cursor
                if len(lines) >= _ROWS_MAX or size >= _BYTES_MAX:
                    yield Portion(lines, moved)
                    lines, size, moved = [], 0, {}
        if moved:
            yield Portion(lines, moved)

    def _begun(self, tenants: Sequence[str]) -> Iterator[tuple[str, Iterator[TenantPage]]]:
        """Most tenants have a page at most: first pages are read side by side, the others one after the other."""
        with ThreadPoolExecutor(_TENANTS_AT_ONCE) as pool:
            for start in range(0, len(tenants), _TENANTS_AT_ONCE):
                group = tenants[start : start + _TENANTS_AT_ONCE]
                yield from zip(group, pool.map(self._first, group), strict=True)

    def _first(self, tenant: str) -> Iterator[TenantPage]:
        pages = self.index.pages(tenant, self._start(tenant))
        try:
            first = next(pages)
        except TenantUnreadableError as error:
            return _failing(error)
        return _chained(first, pages)

    def _start(self, tenant: str) -> Cursor:
        """Where this pass begins, or an unfinished one goes on."""
        known = self.cursors.tenants.get(tenant, Cursor())
        if known.after is not None:
            return known
        return Cursor(known.newest, self.versions.behind(self.versions.read(known.newest)))

    def _tenant(self, tenant: str, pages: Iterator[TenantPage]) -> Iterator[tuple[list[bytes], Cursor]]:
        """Page by page: its lines, and the cursor once they are in the lake."""
        start = self._start(tenant)
        before = newest = self.versions.read(start.newest)
        is_known, is_read = tenant in self._recent, True
        recent = self._recent.setdefault(tenant, Recent())
        read = 0
        try:
            for page in pages:
                lines = []
                for item in page.items:
                    version = self.versions.beside(self.versions.read(item.get(self.index.version)), newest)
                    line = self._line(item, version, recent, before if is_known else None)
                    newest = self._later(newest, version)
                    lines += [line] if line is not None else []
                read += len(page.items)
                self.counts.gone += page.gone
                begin = start.begin if page.after is not None else None
                yield lines, Cursor(_json(newest), begin, page.after)
        except TenantUnreadableError as error:
            is_read = False
            log.warning("a tenant was not read to its end", extra={"reason": str(error)})
        self.counts.read += read
        self.counts.failed += not is_read
        self.counts.empty += is_read and not read
        reread_from = self.versions.read(self.versions.behind(newest)).number
        if reread_from is not None:
            recent.forget_before(reread_from)

    def _line(self, item: Item, version: Version, recent: Recent, before: Version | None) -> bytes | None:
        self.counts.odd += not version.is_sorted
        read_ms = self.now_ms()
        number = ""

        def numbered(digest: str) -> str:
            nonlocal number
            number = sequence(version, digest)
            return number

        reading = Reading("MODIFY", GENERATION, numbered, self.versions.created_ms(version), read_ms)
        change = self._encoded(item, reading)
        if change is None:
            return None
        if not recent.is_new(_mark(change.partition_key, number), version.number if version.is_sorted else None):
            self.counts.again += 1
            return None
        if before is not None and before.number is not None and version.is_sorted:
            self.counts.late += version.number is not None and version.number < before.number
        if change.claim is not None:
            self.park(change.claim)
        self.counts.sent += 1
        return change.line(self.now_ms())

    def _encoded(self, item: Item, reading: Reading) -> Change | None:
        try:
            change = encode_item(item, self.rules, reading, self.claims_bucket)
        except PoisonRecordError as error:
            self.counts.unreadable += 1
            log.warning("an item can be no envelope", extra={"reason": error.what})
            return None
        self.counts.filtered += change is None
        return change

    def _later(self, newest: Version, version: Version) -> Version:
        """What a clock says that is ahead of ours must not hide what others write until then."""
        if version.number is None or not version.is_sorted:
            return newest
        limit = self.versions.at(self.now_ms())
        if limit is not None and version.number > limit:
            self.counts.ahead += 1
            return newest
        return version if newest.number is None or version.number > newest.number else newest


def _mark(partition_key: str, number: str) -> bytes:
    return blake2b(f"{number}{partition_key}".encode(), digest_size=8).digest()


def _json(version: Version) -> dict[str, Any] | None:
    return dict(version.typed) if version.typed is not None else None


def _chained(first: TenantPage, rest: Iterator[TenantPage]) -> Iterator[TenantPage]:
    yield first
    yield from rest


def _failing(error: TenantUnreadableError) -> Iterator[TenantPage]:
    raise error
    yield  # a generator, so that it is raised where pages are read

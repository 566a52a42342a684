"""One writer a table: a lease in the table's own properties.

Every taking and every renewal is a commit of metadata, and Delta lets no commit through whose table changed its
metadata meanwhile. So a writer that lost its lease cannot commit any more, however late it wakes up: its merge, begun
before the new owner's commit, fails in the log itself. The token is checked before each attempt as well, to say why.

The owner's host and process are written down. A holder on this host whose process is gone has left no work behind, so
its lease is taken at once; one on another host is waited for until it ends.
"""

import logging
import os
import socket
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Final

from streaming_job.errors import LeaseHeldError, LeaseLostError
from streaming_job.pipeline.merge import LakeTable
from streaming_job.pipeline.properties import read, written

log = logging.getLogger("lakestream.lease")

LEASE_PROPERTY: Final = "lakestream.lease"

_POLL_S: Final = 0.5

Clock = Callable[[], int]
"""Milliseconds since 1970."""


@dataclass(frozen=True)
class Owner:
    name: str
    host: str
    pid: int

    @classmethod
    def here(cls, name: str) -> "Owner":
        return cls(name=name, host=socket.gethostname(), pid=os.getpid())

    def __str__(self) -> str:
        return f"{self.name} (host {self.host}, process {self.pid})"


@dataclass(frozen=True)
class Holding:
    """What stands in the table: who holds it, by which token, until when."""

    name: str
    host: str
    pid: int
    token: int
    until_ms: int

    @property
    def owner(self) -> Owner:
        return Owner(self.name, self.host, self.pid)


def read_holding(table: LakeTable) -> Holding | None:
    return _read(table.properties())


def _read(properties: Mapping[str, str]) -> Holding | None:
    value = read(properties.get(LEASE_PROPERTY))
    return Holding(**value) if value else None


def holder_of(properties: Mapping[str, str], now_ms: int) -> Owner | None:
    """Who may write to the table now; None where anybody may take it."""
    holding = _read(properties)
    return None if holding is None or _is_over(holding, now_ms) else holding.owner


def _is_over(holding: Holding, now_ms: int) -> bool:
    return holding.until_ms <= now_ms or _is_gone(holding.owner)


class Lease:
    """Of one table, held by one owner. `check` is the guard that every commit gets."""

    def __init__(self, table: LakeTable, owner: Owner, *, duration_ms: int, clock: Clock) -> None:
        self._table = table
        self._owner = owner
        self._duration_ms = duration_ms
        self._clock = clock
        self._token: int | None = None
        self._until_ms = 0

    @property
    def token(self) -> int | None:
        return self._token

    def acquire(self, *, wait_ms: int = 0) -> None:
        """Take the lease, waiting for its end so long; or say who has it."""
        give_up_ms = self._clock() + wait_ms
        while True:
            try:
                return self._take()
            except LeaseHeldError:
                if self._clock() >= give_up_ms:
                    raise
                time.sleep(_POLL_S)

    def _take(self) -> None:
        """A race for it is lost by the commit that comes second."""
        self._table.refresh()
        seen = self._free_or_refuse()
        token = (seen.token if seen else 0) + 1

        def still_free() -> None:
            now = self._free_or_refuse()
            if (now.token if now else 0) != token - 1:
                raise _held(self._table, now)

        self._write(token, still_free)
        self._token = token

    def renew_when_due(self) -> None:
        """Renewed at half its time, so that one slow batch does not lose it."""
        if self._token is not None and self._clock() >= self._until_ms - self._duration_ms // 2:
            self._write(self._token, self.check)

    def check(self) -> None:
        """The fencing token in the table is ours."""
        holding = read_holding(self._table)
        if self._token is None or holding is None or holding.token != self._token:
            taken = f"{holding.owner} has it now (token {holding.token})" if holding else "nobody holds it now"
            raise LeaseLostError(
                f"{self._table.location}: the lease of {self._owner} (token {self._token}) is lost: {taken}; "
                "nothing was committed after that",
                hint="let one job write a table; stop the other, then start again from the checkpoint",
            )

    def verified(self) -> None:
        """As `check`, after a look at what others committed: for a commit through another handle of the table."""
        self._table.refresh()
        self.check()

    def release(self) -> None:
        """Ends the lease now. One that is lost is not ours to end; where it cannot be written, it ends by its time."""
        if self._token is None:
            return
        try:
            self._table.refresh()
            self._write(self._token, self.check, until_ms=0)
        except LeaseLostError:
            pass
        except Exception as error:  # noqa: BLE001 - a full disk, say: why the job ends is what a person has to read
            reason = " ".join(str(error).split())
            log.warning(
                "lease not given back, it ends by itself", extra={"table": str(self._table.location), "reason": reason}
            )
        finally:
            self._token = None

    def _write(self, token: int, guard: Callable[[], None], until_ms: int | None = None) -> None:
        until = self._clock() + self._duration_ms if until_ms is None else until_ms
        holding = Holding(**asdict(self._owner), token=token, until_ms=until)
        self._table.set_properties({LEASE_PROPERTY: written(asdict(holding))}, guard)
        self._until_ms = until

    def _free_or_refuse(self) -> Holding | None:
        holding = read_holding(self._table)
        if holding is None or _is_over(holding, self._clock()):
            return holding
        raise _held(self._table, holding)


def _held(table: LakeTable, holding: Holding | None) -> LeaseHeldError:
    who = f"held by {holding.owner}" if holding else "being taken by another writer"
    until = f" until {holding.until_ms} (ms since 1970)" if holding else ""
    return LeaseHeldError(
        f"{table.location} has one writer at a time, and is {who}{until}",
        hint="stop that job, or wait until its lease ends (lease.wait_s)",
    )


def _is_gone(owner: Owner) -> bool:
    """True only where we can know: on this host, when no process has that id."""
    if owner.host != socket.gethostname():
        return False
    try:
        os.kill(owner.pid, 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return False

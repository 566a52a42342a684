"""How far each tenant has been pulled: a file of this machine's that only its owner may read, written whole each time.

Tenants and keys stand in it as they are, which the table's rules may hide from the lake.
"""

import fcntl
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

from config.errors import ConfigurationError

_FORMAT: Final = 1


@dataclass(frozen=True, slots=True)
class Cursor:
    newest: dict[str, Any] | None = None
    """The newest version seen, as DynamoDB says it: all before it, less the overlap, is in the lake."""
    begin: dict[str, Any] | None = None
    """Of a pass that is under way: where it began; None: at the beginning."""
    after: str | None = None
    """Of a pass that is under way: the key it goes on behind."""


@dataclass
class Cursors:
    """Of one table and index."""

    file: Path
    table: str
    index: str
    tenants: dict[str, Cursor] = field(default_factory=dict)
    """By the tenant's text, `S:acme` or `N:7`."""
    discovered_ms: int = 0
    handed_over: str = ""
    """The name under which the last run handed over; what waits under it when the next begins, it has left behind."""

    def commit(self, moved: Mapping[str, Cursor]) -> None:
        """Once what lies before these cursors is in the lake."""
        self.tenants.update(moved)
        self.keep()

    def keep(self) -> None:
        half = self.file.with_name(f".{self.file.name}.half")
        half.touch(mode=0o600)
        tenants = {tenant: _without_nones(asdict(cursor)) for tenant, cursor in sorted(self.tenants.items())}
        document = {
            "v": _FORMAT,
            "table": self.table,
            "index": self.index,
            "discovered_ms": self.discovered_ms,
            "handed_over": self.handed_over,
            "tenants": tenants,
        }
        half.write_text(json.dumps(document, indent=1), encoding="utf-8")
        half.replace(self.file)

    @classmethod
    def load(cls, file: Path, table: str, index: str) -> "Cursors":
        try:
            held = json.loads(file.read_text(encoding="utf-8"))
            known = (held["v"], held["table"], held["index"])
            tenants = {tenant: Cursor(**cursor) for tenant, cursor in held["tenants"].items()}
            rest = int(held["discovered_ms"]), str(held["handed_over"])
        except FileNotFoundError:
            return cls(file, table, index)
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            raise ConfigurationError(
                f"{file} holds no cursors: {type(error).__name__}",
                hint="restore it, or remove it: the table is then pulled from its beginning, which is harmless",
            ) from error
        if known != (_FORMAT, table, index):
            raise ConfigurationError(
                f"{file} holds the cursors of {known[1]} by {known[2]}, not of {table} by {index}",
                hint="name another file with --state",
            )
        return cls(file, table, index, tenants, *rest)


@contextmanager
def alone(file: Path) -> Iterator[None]:
    """One pull a file: two would undo each other's cursors."""
    lock = file.with_name(f".{file.name}.lock")
    try:
        with lock.open("w") as held:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield
    except BlockingIOError:
        raise ConfigurationError(
            f"another pull uses {file}", hint="wait for it, or end it; --state names another file"
        ) from None
    except OSError as error:
        raise ConfigurationError(f"{file.parent} cannot be written: {error.strerror}") from error


def _without_nones(values: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}

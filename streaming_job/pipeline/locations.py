"""Where each table of the lake stands: a folder under a root, or a name in a Unity Catalog schema."""

from dataclasses import dataclass

from config.settings import LakeSettings
from config.tables import TableConfig
from streaming_job.pipeline.naming import PROCESSED_AT


@dataclass(frozen=True)
class Location:
    """One Delta table's address: exactly one of `path` and `name` is set."""

    path: str | None = None
    name: str | None = None

    @property
    def sql(self) -> str:
        """As Spark SQL names it."""
        if self.name is not None:
            return self.name
        return f"delta.{_quoted(self.path or '')}"

    def __str__(self) -> str:
        return self.path or self.name or ""


@dataclass(frozen=True)
class TableLocations:
    current: Location
    history: Location
    rebuilt: Location
    """Where a new `current` is built beside the old one."""
    live: str | None
    """Name of the view without tombstones; None where there is no catalog to hold a view."""


@dataclass(frozen=True)
class Lake:
    settings: LakeSettings

    @property
    def has_catalog(self) -> bool:
        return self.settings.root is None

    def shared(self, name: str) -> Location:
        """One of `config.tables.SHARED_TABLES`."""
        if self.settings.root is not None:
            return Location(path=f"{self.settings.root.rstrip('/')}/{name}")
        return Location(name=self._named(name))

    def of(self, table: TableConfig) -> TableLocations:
        name = table.lake.name
        if self.settings.root is not None:
            folder = f"{self.settings.root.rstrip('/')}/{name}"
            current, history, rebuilt = (
                Location(path=f"{folder}/{part}") for part in ("current", "history", "rebuilt")
            )
            return TableLocations(current, history, rebuilt, live=None)
        return TableLocations(
            Location(name=self._named(name)),
            Location(name=self._named(f"{name}_history")),
            Location(name=self._named(f"{name}_rebuilt")),
            live=self._named(f"{name}_live"),
        )

    def _named(self, name: str) -> str:
        return ".".join(_quoted(part or "") for part in (self.settings.catalog, self.settings.schema_, name))


def _quoted(identifier: str) -> str:
    return "`" + identifier.replace("`", "``") + "`"


def live_sql(location: Location) -> str:
    """The query of `<name>_live`: rows as they stand, without tombstones; when they were written, by a plain name."""
    return f"SELECT *, _ingest_ts AS {PROCESSED_AT} FROM {location.sql} WHERE NOT _deleted"  # noqa: S608 - the location is configuration

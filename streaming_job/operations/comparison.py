"""Source and lake side by side: keys and digests in a file of DuckDB's, so that a million rows need no memory."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final, NamedTuple

import duckdb
import pyarrow as pa

_MEMORY_LIMIT: Final = "512MB"

SOURCE_SCHEMA: Final = pa.schema([("key", pa.string()), ("digest", pa.string()), ("address", pa.string())])
"""`address`: the key as the source knows it, DynamoDB JSON; masked keys do not lead back to it."""


class Finding(StrEnum):
    MISSING = "missing"
    """In the source, not in the lake."""
    EXTRA = "extra"
    """Live in the lake, not in the source."""
    STALE = "stale"
    """In both, but the lake's row is of another version than the source's item."""
    DIFFERENT = "different"
    """The row is of the right version, and its columns are not what was written; or the key has more rows than one."""
    UNPROVEN = "unproven"
    """They differ, and a change that would mend it may still be on its way."""


@dataclass(frozen=True, slots=True)
class Suspect:
    """A difference as first seen; changes in flight look the same, so each is looked at again."""

    key: str
    finding: Finding
    address: str | None


class Counts(NamedTuple):
    source: int
    lake: int
    """Live rows, but for those that are kept."""
    kept: int
    """Rows whose items are gone, and are meant to stay."""
    doubled: int
    """Keys that have more rows than one."""


_KEPT_RIGHTLY: Final = "kept AND key NOT IN (SELECT key FROM source)"
_HELD: Final = """
    SELECT key, count(*) > 1 AS doubled, bool_and(intact) AS intact, bool_and(kept) AS kept, any_value(digest) AS digest
    FROM lake GROUP BY key
"""
"""The lake by its keys; what a doubled one's rows hold is not looked at."""


class Comparison:
    def __init__(self, database: duckdb.DuckDBPyConnection) -> None:
        self._database = database
        database.execute("CREATE TABLE source (key VARCHAR, digest VARCHAR, address VARCHAR)")
        database.execute("CREATE TABLE lake (key VARCHAR, digest VARCHAR, intact BOOLEAN, kept BOOLEAN)")

    def add_source(self, rows: pa.Table) -> None:
        self._database.register("incoming", rows.cast(SOURCE_SCHEMA))
        self._database.execute("INSERT INTO source SELECT * FROM incoming")
        self._database.unregister("incoming")

    def add_lake(self, folder: Path) -> None:
        """Parquet files of `key`, `digest`, `intact` - the row's columns still give its `_row_digest` - and `kept`.

        A row is kept where the table's rules ignore that its item was deleted.
        """
        self._database.execute(
            "INSERT INTO lake SELECT key, digest, intact, kept FROM read_parquet(?)", [f"{folder}/*.parquet"]
        )

    def counts(self) -> "Counts":
        return Counts(
            source=self._count("source"),
            lake=self._count("lake WHERE NOT kept"),
            kept=self._count(f"lake WHERE {_KEPT_RIGHTLY}"),
            doubled=self._count(f"({_HELD}) WHERE doubled"),
        )

    def _count(self, rows: str) -> int:
        row = self._database.execute(f"SELECT count(*) FROM {rows}").fetchone()  # noqa: S608 - of our own words
        return int(row[0]) if row else 0

    def suspects(self) -> list[Suspect]:
        found = self._database.execute(
            f"""
            SELECT coalesce(source.key, held.key) AS key, source.address,
                   CASE WHEN held.key IS NULL THEN 'missing'
                        WHEN held.doubled THEN 'different'
                        WHEN source.key IS NULL THEN 'extra'
                        WHEN source.digest IS DISTINCT FROM held.digest THEN 'stale'
                        ELSE 'different' END AS finding
            FROM source FULL OUTER JOIN ({_HELD}) AS held ON source.key = held.key
            WHERE held.key IS NULL OR held.doubled OR (source.key IS NULL AND NOT held.kept)
               OR (source.key IS NOT NULL AND (source.digest IS DISTINCT FROM held.digest OR NOT held.intact))
            ORDER BY key
            """  # noqa: S608 - of our own words
        ).fetchall()
        return [Suspect(key, Finding(finding), address) for key, address, finding in found]


@contextmanager
def comparison(folder: Path) -> Iterator[Comparison]:
    """A comparison in a folder of its own, spilled to disk past a fixed amount of memory."""
    database = duckdb.connect(str(folder / "compare.duckdb"))
    try:
        database.execute(f"SET memory_limit = '{_MEMORY_LIMIT}'")
        database.execute("SET threads = 2")
        yield Comparison(database)
    finally:
        database.close()

"""The archive's lines in a DuckDB database on disk: loaded while the outside can be reached, asked after it can't.

Rows never pass through Python but for lines with numbers that DuckDB would round. The database and whatever a query
spills lie in a folder of their own, which goes with it.
"""

import contextlib
import fcntl
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path as File
from types import TracebackType
from typing import Any, Final, Self

import duckdb
import pyarrow as pa

from streaming_job.operations.archive_numbers import ELEMENT, LONG_NUMBER_PATTERN, REAL_IN_KEY_PATTERN, Path, exact_line
from streaming_job.operations.archive_objects import ArchiveObject, ArchiveUnreadableError
from streaming_job.operations.archive_query import first_line
from streaming_job.operations.archive_shape import (
    NOTHING,
    Extent,
    Shape,
    candidates,
    column,
    identifier,
    json_path,
    merged,
    text_literal,
)

MEMORY_MAX: Final = "1GB"
_LINE_BYTES_MAX: Final = 4 * 1024 * 1024
"""Of an envelope: it fits a Kinesis record of at most 1 MiB, and escapes are counted once."""
_LINES_AT_ONCE: Final = 1_000
_IMAGES: Final = ("new", "old")

_TABLES: Final = """
CREATE TABLE objects (id INTEGER, object VARCHAR, "date" DATE, "hour" INTEGER, path VARCHAR);
CREATE TABLE unread (object INTEGER, problem VARCHAR);
CREATE TABLE envelopes (
    object INTEGER, "table" VARCHAR, op VARCHAR, id VARCHAR, gen VARCHAR, seq VARCHAR,
    key_json VARCHAR, new_json JSON, old_json JSON, types JSON, digest VARCHAR, rules VARCHAR, ttl BOOLEAN,
    filtered BOOLEAN, created_ms BIGINT, origin_ms BIGINT, bridge_in_ms BIGINT, bridge_out_ms BIGINT, ref JSON
);
"""

_STAGE: Final = """
CREATE OR REPLACE TABLE staged AS
SELECT o.id AS object, row_number() OVER () AS place, CAST(r.json AS VARCHAR) AS line
FROM read_ndjson_objects($paths, filename = true, ignore_errors = true, maximum_object_size = $bytes) AS r
JOIN objects AS o ON o.path = r.filename
"""

_LOSSY: Final = f"""
SELECT place, line FROM staged
WHERE regexp_matches(line, {text_literal(LONG_NUMBER_PATTERN)})
   OR regexp_matches(CAST(line::JSON -> '$.key' AS VARCHAR), {text_literal(REAL_IN_KEY_PATTERN)})
"""  # noqa: S608 - constants of ours

# The shape is taken from the lines as they came, where a number is a number.
# `json_group_structure` would do, but keeps every image in memory until it is done.
_SHAPES: Final = """
SELECT DISTINCT json_structure(f[1]), json_structure(f[2]), json_structure(f[3])
FROM (SELECT json_extract(line::JSON, ['$.key', '$.new', '$.old']) AS f FROM staged WHERE line IS NOT NULL)
"""

_FILE: Final = """
INSERT INTO envelopes
SELECT object, f[1], f[2], f[3], f[4], f[5], coalesce(exact_key, CAST(j[1] AS VARCHAR)),
    nullif(j[2], 'null'::JSON), nullif(j[3], 'null'::JSON), j[4],
    f[6], f[7], TRY_CAST(f[8] AS BOOLEAN), TRY_CAST(f[9] AS BOOLEAN), TRY_CAST(f[10] AS BIGINT),
    TRY_CAST(f[11] AS BIGINT), TRY_CAST(f[12] AS BIGINT), TRY_CAST(f[13] AS BIGINT),
    nullif(j[5], 'null'::JSON)
FROM (
    SELECT s.object, e.key AS exact_key,
        json_extract_string(coalesce(e.line, s.line)::JSON, ['$.table', '$.op', '$.id', '$.gen', '$.seq', '$.digest',
            '$.rules', '$.ttl', '$.filtered', '$.created_ms', '$.origin_ms', '$.bridge_in_ms', '$.bridge_out_ms']) AS f,
        json_extract(coalesce(e.line, s.line)::JSON, ['$.key', '$.new', '$.old', '$.types', '$.ref']) AS j
    FROM staged AS s LEFT JOIN exact AS e ON e.place = s.place
    WHERE json_extract_string(s.line::JSON, '$.v') = '1'
)
"""

_UNREAD: Final = """
INSERT INTO unread
SELECT object, CASE
    WHEN line IS NULL THEN 'not JSON'
    ELSE 'an envelope of version ' || coalesce(line::JSON ->> '$.v', 'none') END
FROM staged WHERE line IS NULL OR coalesce(line::JSON ->> '$.v', '') <> '1'
"""

_VIEWS: Final = """
CREATE VIEW changes AS
SELECT e."table", e.op, {key} AS "key", {new} AS "new", {old} AS "old", e.ttl, e.filtered,
    make_timestamp(e.created_ms * 1000) AS created_at, e.gen || '-' || e.seq AS change_seq, e.digest, e.rules,
    e.created_ms, e.origin_ms, e.bridge_in_ms, e.bridge_out_ms, e.id, e.gen, e.seq, e.types, e.ref,
    e.key_json, e.new_json, e.old_json, o."date", o."hour", o.object
FROM envelopes AS e JOIN objects AS o ON o.id = e.object;

CREATE VIEW changes_once AS
SELECT * FROM changes WHERE true
QUALIFY row_number() OVER (PARTITION BY "table", key_json, change_seq ORDER BY bridge_out_ms, object) = 1;

CREATE VIEW latest AS
SELECT * FROM changes WHERE true
QUALIFY row_number() OVER (PARTITION BY "table", key_json ORDER BY change_seq DESC, bridge_out_ms) = 1;

CREATE VIEW unreadable AS
SELECT o.object, o."date", o."hour", u.problem FROM unread AS u JOIN objects AS o ON o.id = u.object;
"""


class ArchiveDatabase:
    """`load` what may be asked, `seal`, then `ask`. The folder is gone when the block ends."""

    def __init__(self, inside: File) -> None:
        self._folder, self._alive = _own_folder(inside)
        self._file = self._folder / "archive.duckdb"
        self._shapes: dict[str, Shape] = dict.fromkeys(("key", *_IMAGES), NOTHING)
        self._long: dict[Path, None] = {}
        self._objects = 0
        self._connection = duckdb.connect(str(self._file), config=self._config(sealed=False))
        self._connection.execute(_TABLES)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._connection.close()
        shutil.rmtree(self._folder, ignore_errors=True)
        os.close(self._alive)

    def _config(self, *, sealed: bool) -> dict[str, str | bool | int | float | list[str]]:
        return {
            # First: DuckDB takes them in order, and afterwards refuses a temp_directory that it was not opened with.
            "enable_external_access": "false" if sealed else "true",
            "memory_limit": MEMORY_MAX,
            "preserve_insertion_order": "false",  # it would hold back what could be written
            "temp_directory": str(self._folder / "spill"),
            "autoload_known_extensions": "false",
            "autoinstall_known_extensions": "false",
            "allow_community_extensions": "false",
        }

    # --- loading ------------------------------------------------------------------------------------------------------

    def load(self, objects: Sequence[ArchiveObject], files: Sequence[File]) -> None:
        numbered = range(self._objects, self._objects + len(objects))
        self._objects += len(objects)
        rows = pa.table(
            {
                "id": pa.array(numbered, pa.int32()),
                "object": [found.name for found in objects],
                "date": pa.array([found.day for found in objects], pa.date32()),
                "hour": pa.array([found.hour for found in objects], pa.int32()),
                "path": [str(file) for file in files],
            }
        )
        self._insert("objects", rows)
        try:
            self._connection.execute(_STAGE, {"paths": [str(file) for file in files], "bytes": _LINE_BYTES_MAX})
        except duckdb.Error as error:
            names = {str(file): found.name for file, found in zip(files, objects, strict=True)}
            guilty = next((name for file, name in names.items() if file in str(error)), "an object")
            raise ArchiveUnreadableError(
                f"{guilty} cannot be read: {first_line(error)}",
                hint="is it gzip NDJSON that the delivery stream wrote?",
            ) from error
        self._file_exactly()

    def _file_exactly(self) -> None:
        self._connection.execute("CREATE OR REPLACE TABLE exact (place BIGINT, line VARCHAR, key VARCHAR)")
        for portion in self._portions(_LOSSY):
            lines = [(place, exact) for place, line in portion if (exact := exact_line(line))]
            self._long |= dict.fromkeys(path for _, exact in lines for path in exact.paths)
            self._insert(
                "exact",
                pa.table(
                    {
                        "place": pa.array([place for place, _ in lines], pa.int64()),
                        "line": pa.array([exact.line for _, exact in lines], pa.string()),
                        "key": pa.array([exact.key for _, exact in lines], pa.string()),
                    }
                ),
            )
        for portion in self._portions(_SHAPES):
            for row in portion:
                for place, text in zip(self._shapes, row, strict=True):
                    shape = json.loads(text or "null")
                    if isinstance(shape, dict):  # anything else is no envelope's, or null
                        self._shapes[place] = merged(self._shapes[place], shape)
        self._connection.execute(_FILE)
        self._connection.execute(_UNREAD)

    def _portions(self, sql: str) -> Iterator[list[Any]]:
        with self._connection.cursor() as reading:
            reading.execute(sql)
            while portion := reading.fetchmany(_LINES_AT_ONCE):
                yield portion

    def _insert(self, table: str, rows: pa.Table) -> None:
        self._connection.register("incoming", rows)
        self._connection.execute(f"INSERT INTO {table} SELECT * FROM incoming")  # noqa: S608 - a table of ours
        self._connection.unregister("incoming")

    # --- sealing ------------------------------------------------------------------------------------------------------

    def seal(self) -> None:
        """The views, by what the images turned out to hold; then the way out is closed for good."""
        extents = {image: self._extents(image) for image in _IMAGES}
        columns = {"key": self._image_sql("key", "key_json::JSON", {})}
        columns |= {image: self._image_sql(image, f"{image}_json", extents[image]) for image in _IMAGES}
        self._connection.execute("DROP TABLE IF EXISTS staged; DROP TABLE IF EXISTS exact")
        self._connection.execute(_VIEWS.format(**columns))
        self._connection.close()
        self._connection = duckdb.connect(str(self._file), read_only=True, config=self._config(sealed=True))
        for setting in ("TimeZone = 'UTC'", "python_enable_replacements = false", "lock_configuration = true"):
            self._connection.execute(f"SET {setting}")

    def _image_sql(self, image: str, source: str, long_numbers: dict[Path, Extent | None]) -> str:
        plan = column(self._shapes[image], long_numbers)
        read = f"json_transform(e.{source}, {text_literal(plan.read_as)})"
        return f"CAST({read} AS {plan.type})"

    def _extents(self, image: str) -> dict[Path, Extent | None]:
        """Of every number at the places of long ones, short ones too: a type must not round any of them."""
        found: dict[Path, Extent | None] = {}
        for path in candidates(frozenset(self._long), self._shapes[image]):
            found[path] = self._extent(image, path)
        return found

    def _extent(self, image: str, path: Path) -> Extent | None:
        where = json_path(path)
        if where is None:
            return None
        values = f"json_extract_string({identifier(image + '_json')}, {text_literal(where)})"
        texts = f"unnest({values})" if ELEMENT in path else values
        ((written_out, before, after),) = self._connection.execute(
            # A short real that DuckDB prints as 5.0 needs no digit after the point.
            f"""
            SELECT bool_and(NOT contains(lower(t), 'e')), max(length(ltrim(regexp_extract(t, '[0-9]+'), '0'))),
                max(length(rtrim(regexp_extract(t, '\\.([0-9]*)', 1), '0')))
            FROM (SELECT {texts} AS t FROM envelopes) WHERE t IS NOT NULL
            """  # noqa: S608 - the path is quoted
        ).fetchall()
        return Extent(before, after) if written_out else None

    # --- asking -------------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def ask(self, sql: str) -> Iterator[duckdb.DuckDBPyConnection]:
        """A cursor over the answer."""
        with self._connection.cursor() as asking:
            asking.execute(sql)
            yield asking


# --- its folder -------------------------------------------------------------------------------------------------------

_PREFIX: Final = "query-"
_ALIVE: Final = "alive"


def _own_folder(inside: File) -> tuple[File, int]:
    """A folder whose lock goes with this process, however it ends; those of processes that ended are cleared away."""
    for left in inside.glob(f"{_PREFIX}*"):
        _clear_if_left(left)
    making = File(tempfile.mkdtemp(prefix="making-", dir=inside))
    alive = os.open(making / _ALIVE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    fcntl.flock(alive, fcntl.LOCK_EX)
    # Only now, held, does it get the name by which others find it.
    return making.rename(making.with_name(making.name.replace("making-", _PREFIX, 1))), alive


def _clear_if_left(folder: File) -> None:
    with contextlib.suppress(OSError):  # it is alive, or somebody else clears it
        held = os.open(folder / _ALIVE, os.O_RDWR | os.O_CLOEXEC)
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder, ignore_errors=True)
        finally:
            os.close(held)

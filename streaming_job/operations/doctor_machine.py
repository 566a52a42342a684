"""Checks of this machine and of the lake: versions that go together, jars, Java, room, the tables' features."""

import os
import shutil
from collections.abc import Iterator, Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Final

import pyarrow as pa
from deltalake import DeltaTable, QueryBuilder
from deltalake.exceptions import DeltaError

from config.settings import Settings
from config.tables import TableConfig
from infra.local import checks
from streaming_job.operations.doctor_findings import Finding, note, ok, problem, warning
from streaming_job.pipeline.locations import Lake, Location
from streaming_job.pipeline.merge import refuse_features
from streaming_job.pipeline.opening import storage_options
from streaming_job.pipeline.order import UNPROVEN_PROPERTY
from streaming_job.pipeline.properties import read
from streaming_job.places import local_folder

_TOGETHER: Final[Mapping[str, str]] = {"pyspark": "4.2", "delta-spark": "4.4.0", "deltalake": "1.6", "pandas": "2"}
"""Versions that were tried together; `delta-spark` 4.4.1 names jars that are not published, pandas 3 is refused."""
_FREE_GB_MIN: Final = 2


def versions() -> Iterator[Finding]:
    check = "versions"
    for package, wanted in _TOGETHER.items():
        try:
            found = version(package)
        except PackageNotFoundError:
            yield problem(check, f"{package} is not installed", "run `make setup`")
            continue
        if found != wanted and not found.startswith(f"{wanted}."):
            yield warning(check, f"{package} {found} was not tried with the others, {wanted} was", "run `make setup`")
        else:
            yield ok(check, f"{package} {found}")


def spark() -> Iterator[Finding]:
    """Not on Databricks, which brings its own."""
    if "DATABRICKS_RUNTIME_VERSION" in os.environ:
        yield ok("Spark", "the platform's")
        return
    checks.java()
    yield ok("Spark", "a Java 17 is there")
    checks.jars()
    yield ok("Spark", "the Delta jars are all there")


def room(settings: Settings) -> Iterator[Finding]:
    for place in (settings.lake.root, settings.lake.checkpoint):
        path = local_folder(place) if place is not None else None
        if path is None:
            continue
        path = path.absolute()
        existing = next(folder for folder in (path, *path.parents) if folder.exists())
        if not os.access(existing, os.W_OK):
            yield problem("room", f"{existing} cannot be written to", "correct its owner, or name another folder")
        free_gb = shutil.disk_usage(existing).free / 1024**3
        if free_gb < _FREE_GB_MIN:
            yield warning("room", f"{existing} has {free_gb:.1f} GB free", "make room: a full disk stops the job")
        else:
            yield ok("room", f"{existing} has {free_gb:.0f} GB free")


def tables(settings: Settings, known: Mapping[str, TableConfig]) -> Iterator[Finding]:
    lake = Lake(settings.lake)
    for config in known.values():
        places = lake.of(config)
        for location in (places.current, places.history):
            yield from _features(settings, config, location)
        yield from _refused(settings, lake.shared("refused"), config.table)


def _features(settings: Settings, config: TableConfig, location: Location) -> Iterator[Finding]:
    check = f"lake table {location}"
    if location.path is None:
        yield note(check, "is Unity Catalog's", "its features are checked when the job opens it")
        return
    storage = storage_options(settings, location.path)
    if not DeltaTable.is_deltatable(location.path, storage):
        yield note(check, "is not there yet: the job makes it")
        return
    try:
        table = DeltaTable(location.path, storage_options=storage)
        protocol = table.protocol()
        features = [*(protocol.writer_features or ()), *(protocol.reader_features or ())]
        properties = {name: value or "" for name, value in table.metadata().configuration.items()}
    except DeltaError as error:
        yield problem(check, " ".join(str(error).split()), "is its _delta_log whole? restore it, or rebuild the table")
        return
    refuse_features(config.lake.engine, location, features, properties)
    yield ok(check, f"version {table.version()}, engine {config.lake.engine} can write it")
    if noted := read(properties.get(UNPROVEN_PROPERTY)):
        mend = "`lakestream verify` settles it; rebuild what differs"
        yield warning(check, f"it is unproven: {noted['why']}", mend)


def _refused(settings: Settings, place: Location, table: str) -> Iterator[Finding]:
    storage = storage_options(settings, str(place))
    if place.path is None or not DeltaTable.is_deltatable(place.path, storage):
        return
    refused = DeltaTable(place.path, storage_options=storage)
    rows = QueryBuilder().register("refused", refused).execute("SELECT _table FROM refused")
    count = pa.table(rows.read_all())["_table"].to_pylist().count(table)
    if count:
        mend = "state since when its stream counts (`lake.streams` in its rules), start the job again: it takes them in"
        yield warning(f"order of {table}", f"{count} changes wait, under a label older than one seen before", mend)

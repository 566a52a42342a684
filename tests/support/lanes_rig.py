"""One source table's lanes over a temporary lake, driven with collected changes: no Spark, no decoding."""

import json
import os
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from deltalake import DeltaTable, QueryBuilder
from envelopes import Change, collected
from lake_rig import Clock, settings_for, table_config

from config.settings import Settings
from config.tables import TableConfig
from streaming_job.pipeline.assembly import Assembly
from streaming_job.pipeline.lane import TableReport
from streaming_job.pipeline.lease import Lease, Owner
from streaming_job.pipeline.locations import Lake
from streaming_job.pipeline.opening import Tables
from streaming_job.pipeline.steps import AfterStep, go_on
from streaming_job.pipeline.table_lanes import TableLanes


def no_spark() -> Any:
    raise AssertionError("tables by path with engine rust need no Spark")


def while_waiting(monkeypatch: pytest.MonkeyPatch, happens: Callable[[], None]) -> None:
    """The next one who asks for a lease gets it only after this happened."""
    acquire = Lease.acquire

    def late(lease: Lease, *, wait_ms: int = 0) -> None:
        monkeypatch.setattr(Lease, "acquire", acquire)
        happens()
        acquire(lease, wait_ms=wait_ms)

    monkeypatch.setattr(Lease, "acquire", late)


class LanesRig:
    """`opened` is a process of its own each time: opened, driven, and closed or killed."""

    def __init__(self, root: Path, config: TableConfig | None = None, **settings: Any) -> None:
        self.root = root
        self.config = config or table_config()
        self.settings: Settings = settings_for(root, [self.config.table], **settings)
        self.clock = Clock()
        self.tables = Tables(self.settings, no_spark)
        self.places = Lake(self.settings.lake).of(self.config)

    def lanes(self, after_step: AfterStep = go_on, owner: Owner | None = None) -> tuple[TableLanes, Assembly]:
        owner = owner or Owner("rig", socket.gethostname(), os.getpid())
        tables = {self.config.table: self.config}
        spark: Any = None
        assembly = Assembly(spark, self.settings, tables, owner=owner, clock=self.clock, after_step=after_step)
        return assembly.lanes(self.config), assembly

    @contextmanager
    def opened(self, after_step: AfterStep = go_on) -> Iterator[TableLanes]:
        lanes, _ = self.lanes(after_step)
        lanes.open()
        try:
            yield lanes
        finally:
            lanes.close()

    def run(self, *batches: Sequence[Change]) -> list[TableReport]:
        with self.opened() as lanes:
            return [lanes.run(collected(batch)) for batch in batches]

    def pause(self, lanes: TableLanes) -> None:
        """A few seconds between two batches."""
        self.clock.now_ms += 6_000
        lanes.between_batches()

    def configured(self, folder: Path) -> Path:
        """A configuration file of a job with this table."""
        rules = folder / "tables"
        rules.mkdir(exist_ok=True)
        (rules / "things.yaml").write_text(json.dumps(self.config.model_dump(mode="json", by_alias=True)))
        content = {
            "aws": {"region": "us-east-1"}, "source": {"stream": "s"}, "tables": [self.config.table],
            "tables_dir": str(rules), "lake": {"root": str(self.root), "checkpoint": str(folder / "checkpoint")},
        }  # fmt: skip
        file = folder / "job.yaml"
        file.write_text(json.dumps(content))
        return file

    def rows(self, place: str, *columns: str) -> list[dict[str, Any]]:
        """Of the table in this folder below the lake's root, sorted."""
        listed = ", ".join(f'"{column}"' for column in columns)
        query = QueryBuilder().register("t", DeltaTable(str(self.root / place))).execute(f"SELECT {listed} FROM t")  # noqa: S608 - a test's
        return sorted(pa.table(query.read_all()).to_pylist(), key=lambda row: [str(value) for value in row.values()])

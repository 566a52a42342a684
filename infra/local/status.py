"""What runs and what it holds: asked of the processes and of the emulator, not remembered."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from infra.local.emulator import Clients, answers
from infra.local.home import Home
from infra.local.processes import is_alive


@dataclass(frozen=True, kw_only=True)
class ProcessStatus:
    name: str
    pid: int
    alive: bool
    log: str


@dataclass(frozen=True, kw_only=True)
class Status:
    processes: tuple[ProcessStatus, ...]
    items: Mapping[str, int | None]
    """By source table; None where the emulator does not answer."""
    shards_open: int | None
    archive_objects: int | None
    job: str
    """`ready`, `unhealthy`, `silent`, or `none` when the stack was started without one."""

    @property
    def well(self) -> bool:
        return all(process.alive for process in self.processes) and self.job in ("ready", "none")


def status(home: Home) -> Status:
    stack: Mapping[str, Any] = home.stack()
    clients = Clients(stack["aws_endpoint"], stack["region"])
    return Status(
        processes=tuple(
            ProcessStatus(name=process.name, pid=process.pid, alive=is_alive(process), log=process.log)
            for process in home.processes()
        ),
        items={table: _ask(lambda table=table: _items(clients, table)) for table in stack["tables"]},
        shards_open=_ask(lambda: _shards(clients, stack["stream"])),
        archive_objects=_ask(lambda: _objects(clients, stack["bucket"], stack["archive_prefix"])),
        job=_job(stack["metrics_url"]),
    )


def _ask(question: Any) -> int | None:
    try:
        return int(question())
    except (BotoCoreError, ClientError):
        return None


def _items(clients: Clients, table: str) -> int:
    pages = clients("dynamodb").get_paginator("scan").paginate(TableName=table, Select="COUNT", ConsistentRead=True)
    return sum(page["Count"] for page in pages)


def _shards(clients: Clients, stream: str) -> int:
    answer = clients("kinesis").describe_stream_summary(StreamName=stream)
    return int(answer["StreamDescriptionSummary"]["OpenShardCount"])


def _objects(clients: Clients, bucket: str, prefix: str) -> int:
    pages = clients("s3").get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
    return sum(page.get("KeyCount", 0) for page in pages)


def _job(metrics_url: str | None) -> str:
    if metrics_url is None:
        return "none"
    answer = answers(metrics_url.removesuffix("metrics") + "healthz")
    return "silent" if answer is None else "ready" if answer == 200 else "unhealthy"

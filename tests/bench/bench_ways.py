"""How fresh the lake is by each way in, on the embedded stack: `python -m tests.bench.bench_ways --seconds 60`.

One way after the other, each alone on the machine with the stack and the load: the job on the stream, the job on the
archive, `lakestream pull --every`. Freshness is from an item's writing to the commit of its row in `current`, read from
the tables afterwards and from nothing the processes say.
"""

import argparse
import bisect
import json
import statistics
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import pyarrow as pa
import yaml
from deltalake import DeltaTable, QueryBuilder
from deltalake.exceptions import TableNotFoundError

from infra.local.load import Load, LoadPlan
from infra.local.plan import Mix
from tests.bench.rig import LAKESTREAM, JobRun, wait_until
from tests.support.ways import FLEETS, TABLE, Ways, source_of_all

WAYS: Final = ("stream", "files", "pull")
BUFFER_S: Final = 10
"""Of the embedded stack's delivery (config/local.yaml); Firehose's own least is as the account sets it."""
PULL_EVERY_S: Final = 10
PATIENCE_S: Final = 180


@dataclass
class WithFleet:
    """The table as the load sees it: each item gets what the index sorts by."""

    client: Any
    written: int = 0

    def put_item(self, *, TableName: str, Item: Mapping[str, Any]) -> Any:  # noqa: N803 - boto3's names
        self.written += 1
        more = {"fleet": {"S": f"fleet-{self.written % FLEETS}"}, "written_ms": {"N": str(now_ms())}}
        return self.client.put_item(TableName=TableName, Item={**Item, **more})

    def delete_item(self, *, TableName: str, Key: Mapping[str, Any]) -> Any:  # noqa: N803
        raise AssertionError("inserts only: a change is a row")


@dataclass(frozen=True)
class Freshness:
    rows: int
    p50_ms: float
    p95_ms: float
    p99_ms: float

    @classmethod
    def of(cls, durations_ms: Sequence[float]) -> "Freshness":
        cuts = statistics.quantiles(durations_ms, n=100)
        return cls(len(durations_ms), round(cuts[49]), round(cuts[94]), round(cuts[98]))


def run(seconds: float, rate: float, ways: Sequence[str] = WAYS) -> dict[str, Any]:
    """Percentiles of each way, printed as they are there."""
    found: dict[str, Any] = {"rate_s": rate, "files_buffer_s": BUFFER_S, "pull_every_s": PULL_EVERY_S}
    print(f"{'way':8}{'rows':>8}{'p50':>10}{'p95':>10}{'p99':>10}")
    for way in ways:
        with TemporaryDirectory(prefix="lakestream-ways-") as folder, source_of_all(Path(folder)) as source:
            fresh = one(way, source, seconds=seconds, rate=rate)
        times = "".join(f"{value / 1000:8.2f} s" for value in (fresh.p50_ms, fresh.p95_ms, fresh.p99_ms))
        print(f"{way:8}{fresh.rows:8}{times}", flush=True)
        found[way] = asdict(fresh)
    return found


def one(way: str, source: Ways, *, seconds: float, rate: float) -> Freshness:
    table = WithFleet(source.dynamodb)
    current = f"{source.settings(way).lake.root}/{source.table.lake.name}/current"
    with started(way, source):
        load(table, seconds=min(20.0, seconds), rate=rate, seed=1)  # columns appear, code gets warm
        wait_for(current, table.written)
        began_ms = now_ms()
        load(table, seconds=seconds, rate=rate, seed=2)
        wait_for(current, table.written)
        return Freshness.of(freshness_ms(current, began_ms))


def started(way: str, source: Ways) -> AbstractContextManager[object]:
    """The command a user would run, from when it is ready."""
    if way == "pull":
        return pulling(source)
    more = {"connector": "files", "files": {"look_every_s": 1}} if way == "files" else {}
    return JobRun(source.home / way, source.configuration(way, **more), {})


@contextmanager
def pulling(source: Ways) -> Iterator[None]:
    config, log = source.home / "pull.yaml", source.home / "pull.log"
    config.write_text(yaml.safe_dump(source.configuration("pull")), encoding="utf-8")
    tenants = [argument for number in range(FLEETS) for argument in ("--tenant", f"fleet-{number}")]
    command = [LAKESTREAM, "pull", "--every", str(PULL_EVERY_S), *tenants, "--json", "--config", str(config)]
    with log.open("wb") as out:
        process = subprocess.Popen(command, stdout=out, stderr=out)
    try:
        wait_until(lambda: b'"tenants"' in log.read_bytes(), within_s=PATIENCE_S, what=f"a first pass; see {log}")
        yield
    finally:
        process.terminate()
        process.wait(120)


def load(table: WithFleet, *, seconds: float, rate: float, seed: int) -> None:
    mix = Mix(insert=100, update=0, delete=0)
    plan = LoadPlan(table=TABLE, rate=rate, seconds=seconds, seed=seed, run=f"{time.time_ns():x}", mix=mix)
    summary = Load(plan, table).run()
    assert not summary.errors, summary.error_last


def wait_for(current: str, rows: int) -> None:
    wait_until(lambda: count(current) >= rows, within_s=PATIENCE_S, what=f"{rows} rows in {current}")


def count(current: str) -> int:
    try:
        return DeltaTable(current).count()
    except TableNotFoundError:
        return 0


def freshness_ms(current: str, since_ms: int) -> list[float]:
    """Of each row written since then: from its writing to the first commit of rows at or after its batch's time."""
    table = DeltaTable(current)
    commits = sorted(entry["timestamp"] for entry in table.history() if entry["operation"] in ("MERGE", "WRITE"))
    sql = f"SELECT written_ms, _ingest_ts FROM t WHERE written_ms >= {since_ms}"  # noqa: S608 - a time of ours
    rows = pa.table(QueryBuilder().register("t", table).execute(sql).read_all()).to_pylist()
    found = []
    for row in rows:
        at = bisect.bisect_left(commits, int(row["_ingest_ts"].timestamp() * 1000))
        found.append(commits[at] - float(row["written_ms"]))
    return found


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--rate", type=float, default=20)
    parser.add_argument("--ways", default=",".join(WAYS))
    options = parser.parse_args()
    print(json.dumps(run(options.seconds, options.rate, options.ways.split(","))))


if __name__ == "__main__":
    main()

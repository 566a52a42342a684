"""The source under Spark itself: in one process, on a cluster, and killed at random."""

import json
import os
import random
import signal
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
import pyarrow as pa
import pyspark
import pytest
from deltalake import DeltaTable, QueryBuilder
from envelopes import Change
from envelopes import put as put_change
from pyspark.errors import AnalysisException
from pyspark.sql import DataFrame, SparkSession

from streaming_job.kinesis import LakestreamKinesis
from streaming_job.kinesis.progress import shard_progress
from streaming_job.kinesis.spool import left_rows
from tests.faults.kinesis_servers import CREDENTIALS, REGION, ROOT, client, free_port, python, until

pytestmark = [pytest.mark.stack, pytest.mark.spark]

NewStream = Callable[[str, int], str]
KILLS = int(os.environ.get("LAKESTREAM_KILLS", "3"))
KILL_RECORDS = int(os.environ.get("LAKESTREAM_KILL_RECORDS", "6000"))
KILL_KEYS = 2_000
LIFE_S = 12
"""About how long a job lives here: most of it is Spark's start."""
SECRET = "never-to-be-seen-4711"


def put(kinesis: Any, stream: str, first: int, count: int) -> None:
    for start in range(first, first + count, 500):
        numbers = range(start, min(start + 500, first + count))
        records = [{"Data": f"{n:07d}".encode(), "PartitionKey": f"key-{n % 50}"} for n in numbers]
        kinesis.put_records(StreamName=stream, Records=records)


def source(spark: SparkSession, endpoint: str, stream: str, **options: str) -> DataFrame:
    spark.dataSource.register(LakestreamKinesis)
    given = {"streamName": stream, "region": REGION, "endpointUrl": endpoint, "initialPosition": "trim_horizon"}
    keys = {"awsAccessKey": "AKIDEXAMPLE", "awsSecretKey": SECRET}
    return spark.readStream.format("lakestream_kinesis").options(**(given | keys | options)).load()


def test_under_spark_rows_progress_and_checkpoint_are_right_and_no_secret_is_in_plan_or_checkpoint(
    spark: SparkSession, kinesis: Any, kinesis_endpoint: str, new_stream: NewStream, tmp_path: Path
) -> None:
    """The tip, a stop, a restart with available-now; limits on."""
    stream = new_stream(kinesis_endpoint, 4)
    put(kinesis, stream, 0, 1000)
    seen: Counter[int] = Counter()

    def count(frame: DataFrame, _batch: int) -> None:
        rows = frame.collect()
        assert len(rows) <= 400
        seen.update(int(row.data) for row in rows)
        assert all(row.stream == stream and row.approximateArrivalTimestamp is not None for row in rows)

    frame = source(spark, kinesis_endpoint, stream, maxRecordsPerTrigger="400")
    assert frame.schema.simpleString() == (
        "struct<partitionKey:string,data:binary,stream:string,shardId:string,sequenceNumber:string,"
        "approximateArrivalTimestamp:timestamp>"
    )
    writer = frame.writeStream.foreachBatch(count).option("checkpointLocation", str(tmp_path / "checkpoint"))
    query = writer.start()
    try:
        until(lambda: len(seen) >= 1000 or query.exception(), "what was there")
        put(kinesis, stream, 1000, 200)
        until(lambda: len(seen) >= 1200 or query.exception(), "the tip")
        assert query.exception() is None
        plan = query._jsq.explainInternal(True) or ""
        shards = until(
            lambda: [s for p in query.recentProgress for s in shard_progress(p.sources[0].latestOffset)], "progress"
        )
        assert readers(), "the reader has a process of its own"
    finally:
        query.stop()
    until(lambda: not readers(), "its process ends with the query")
    assert {shard.shard for shard in shards} == {f"shardId-{n:012d}" for n in range(4)}
    put(kinesis, stream, 1200, 300)
    writer.trigger(availableNow=True).start().awaitTermination(120)
    assert seen == Counter(range(1500)), "each once"
    written = [
        path.read_text("utf-8")
        for path in (tmp_path / "checkpoint").rglob("*")
        if path.is_file() and not path.name.endswith(".crc")
    ]
    assert all(SECRET not in text for text in [*written, plan])


def test_a_batch_takes_its_rows_from_where_the_source_left_them_and_from_spark_where_it_left_none(
    spark: SparkSession, kinesis: Any, kinesis_endpoint: str, new_stream: NewStream, tmp_path: Path
) -> None:
    stream, spool = new_stream(kinesis_endpoint, 2), tmp_path / "spool"
    spool.mkdir()
    put(kinesis, stream, 0, 300)
    left: list[bytes] = []
    carried: list[bytes] = []

    def compare(frame: DataFrame, _batch: int) -> None:
        rows = left_rows(frame)
        if rows is not None:
            assert set(rows.column_names) == set(frame.columns)
            left.extend(rows["data"].to_pylist())
        carried.extend(row.data for row in frame.collect())
        for path in spool.iterdir():
            path.unlink()
        assert left_rows(frame) is None, "a file that is gone is no batch without rows"

    frame = source(spark, kinesis_endpoint, stream, maxRecordsPerTrigger="100", spoolFolder=str(spool))
    writer = frame.writeStream.foreachBatch(compare).option("checkpointLocation", str(tmp_path / "checkpoint"))
    writer.trigger(availableNow=True).start().awaitTermination(120)
    assert sorted(left) == sorted(carried) == [f"{n:07d}".encode() for n in range(300)]


def readers() -> list[int]:
    """Processes that serve a stream reader, below this one's JVM."""
    found = []
    for child in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess, psutil.ZombieProcess):
            if any("python_streaming_source_runner" in word for word in child.cmdline()):
                found.append(child.pid)
    return found


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"shardPerTask": "3"}, "shardpertask.*is shardsPerTask meant"),
        ({"maxRecordsPerFetch": "20000"}, "maxRecordsPerFetch"),
        ({"initialPosition": "tomorrow"}, "initialPosition"),
    ],
)
def test_a_wrong_option_is_refused_when_the_frame_is_made_and_the_message_names_it(
    spark: SparkSession, kinesis_endpoint: str, options: dict[str, str], word: str
) -> None:
    with pytest.raises(AnalysisException, match=word) as refused:
        source(spark, kinesis_endpoint, "any", **options)
    assert SECRET not in str(refused.value)


@contextmanager
def process(command: list[str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """In a group of its own, so that it can be killed with the JVM and the workers it started."""
    env = {**os.environ, **CREDENTIALS, "PYSPARK_PYTHON": python(), "SPARK_LOCAL_IP": "127.0.0.1"}
    env["PYTHONPATH"] = str(ROOT / "tests" / "support")
    with log.open("ab") as out:
        running = subprocess.Popen(
            command, cwd=ROOT, env=env, stdout=out, stderr=subprocess.STDOUT, start_new_session=True
        )
    try:
        yield running
    finally:
        kill(running)


def kill(running: subprocess.Popen[bytes]) -> None:
    with suppress(ProcessLookupError):
        os.killpg(running.pid, signal.SIGKILL)
    running.wait(30)


def job(tmp_path: Path, **settings: Any) -> list[str]:
    path = tmp_path / "job.json"
    given = {"checkpoint": str(tmp_path / "checkpoint"), "out": str(tmp_path / "out"), **settings}
    path.write_text(json.dumps(given), encoding="utf-8")
    return [python(), "-m", "tests.faults.kinesis_job", str(path)]


def delivered(tmp_path: Path) -> list[dict[str, Any]]:
    """What the committed batches hold; a batch in progress has no marker of success."""
    rows = []
    for marker in (tmp_path / "out").glob("batch=*/_SUCCESS"):
        for part in marker.parent.glob("*.json"):
            rows += [json.loads(line) for line in part.read_text("utf-8").splitlines()]
    return rows


@pytest.mark.timeout(120 + 150 * KILLS)
def test_a_job_killed_at_random_moments_while_records_flow_delivers_each_with_no_gap_and_its_tables_hold_each_once(
    kinesis_endpoint: str, new_stream: NewStream, tmp_path: Path
) -> None:
    """`kill -9` of the whole job LAKESTREAM_KILLS times; LAKESTREAM_KILL_RECORDS records. Its sink writes a batch anew
    when it is run again, so that rows twice or missing would show; then the pipeline writes it into tables.
    """
    rng = random.Random(os.environ.get("LAKESTREAM_SEED", "5"))
    stream, lake = new_stream(kinesis_endpoint, 4), tmp_path / "lake"
    changes = [put_change(f"key-{n % KILL_KEYS}", n, n=n) for n in range(KILL_RECORDS)]
    writer = threading.Thread(target=trickle, args=(kinesis_endpoint, stream, changes))
    writer.start()
    settings = {"endpoint": kinesis_endpoint, "stream": stream, "lake": str(lake)}
    command = job(tmp_path, options={"maxRecordsPerTrigger": "700"}, **settings)
    for _ in range(KILLS):
        with process(command, tmp_path / "job.log") as running:
            batches = committed(tmp_path)
            until(
                lambda batches=batches: committed(tmp_path) > batches or running.poll() is not None,
                "a batch",
                timeout_s=150,
            )
            assert running.poll() is None, (tmp_path / "job.log").read_text("utf-8")[-3000:]
            # The moment is random, not awaited: between a plan, a read, a write and a commit.
            time.sleep(rng.uniform(0, 2))
    writer.join()
    with process(job(tmp_path, once=True, **settings), tmp_path / "job.log") as last:
        assert last.wait(240) == 0, (tmp_path / "job.log").read_text("utf-8")[-3000:]
    reached = Counter(json.loads(row["data"])["seq"] for row in delivered(tmp_path))
    assert reached == Counter(change.envelope()["seq"] for change in changes)
    assert Counter(rows_of(lake / "things" / "history", "_key", "_seq")) == Counter(
        (change.key_text, change.seq) for change in changes
    )
    newest = {change.key_text: (change.seq, change.digest) for change in changes}
    held = rows_of(lake / "things" / "current", "_key", "_seq", "_digest")
    assert Counter(held) == Counter((key, *version) for key, version in newest.items())


def rows_of(table: Path, *names: str) -> list[tuple[Any, ...]]:
    rows = QueryBuilder().register("t", DeltaTable(str(table))).execute(f"SELECT {', '.join(names)} FROM t")  # noqa: S608 - a test's
    return [tuple(row.values()) for row in pa.table(rows.read_all()).to_pylist()]


def trickle(endpoint: str, stream: str, changes: list[Change]) -> None:
    """A flow that lasts about as long as the killing does."""
    kinesis, at_once = client(endpoint), 50
    pause_s = LIFE_S * KILLS * at_once / len(changes)
    for first in range(0, len(changes), at_once):
        some = changes[first : first + at_once]
        records = [{"Data": change.line(), "PartitionKey": change.key_text} for change in some]
        kinesis.put_records(StreamName=stream, Records=records)
        time.sleep(pause_s)


def committed(tmp_path: Path) -> int:
    commits = tmp_path / "checkpoint" / "commits"
    return sum(1 for path in commits.glob("[0-9]*")) if commits.exists() else 0


def test_on_a_cluster_of_a_master_and_two_workers_executors_read_the_backlog_and_nothing_is_missing(
    kinesis_endpoint: str, new_stream: NewStream, tmp_path: Path
) -> None:
    """The records are older than the threshold, so most are read by executors, in processes of their own."""
    stream = new_stream(kinesis_endpoint, 4)
    kinesis = client(kinesis_endpoint)
    for first in range(0, 4000, 200):
        put(kinesis, stream, first, 200)
        time.sleep(0.1)  # a backlog has a length in time
    port = free_port()
    master = f"spark://127.0.0.1:{port}"
    spark_class = str(Path(pyspark.__file__).parent / "bin" / "spark-class")
    web = ["--webui-port", "0"]
    start_master = [
        spark_class,
        "org.apache.spark.deploy.master.Master",
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
        *web,
    ]
    start_worker = [spark_class, "org.apache.spark.deploy.worker.Worker", "--host", "127.0.0.1", "-c", "1", "-m", "1g"]
    options = {"catchUpThreshold": "1s", "maxRecordsPerTrigger": "1000", "maxRecordsPerFetch": "100"}
    with process(start_master, tmp_path / "master.log"):
        workers = [[*start_worker, "-d", str(tmp_path / name), *web, master] for name in ("one", "two")]
        with process(workers[0], tmp_path / "one.log"), process(workers[1], tmp_path / "two.log"):
            conf = {"spark.executor.memory": "512m", "spark.cores.max": "2"}
            settings = {"endpoint": kinesis_endpoint, "stream": stream, "once": True, "master": master}
            with process(job(tmp_path, conf=conf, options=options, **settings), tmp_path / "job.log") as running:
                assert running.wait(240) == 0, (tmp_path / "job.log").read_text("utf-8")[-3000:]
    assert Counter(int(row["data"]) for row in delivered(tmp_path)) == Counter(range(4000))
    executors = [path.name for path in tmp_path.glob("*/app-*/*") if path.is_dir()]
    assert len(executors) >= 2, "both workers ran an executor"

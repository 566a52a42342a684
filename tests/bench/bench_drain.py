"""Events that wait in the stream, until `current` and `history` hold them: `python -m tests.bench.bench_drain`.

Envelopes as the bridge writes them go straight to the stream of an embedded stack; then a job starts at the trim
horizon. What is timed is from the job being ready to its last commit. Beside it stands what the emulator gives a client
that keeps nothing, and the same drain of a server that answers at once. With `--rates` it also finds the rate at which
changes that arrive evenly are still fresh.
"""

import argparse
import itertools
import random
import re
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import boto3
from deltalake import DeltaTable
from deltalake.exceptions import TableNotFoundError

from config.tables import load_tables
from tests.bench import quick_kinesis
from tests.bench.bare_client import read_to_the_tip
from tests.bench.bench_batch import FIRST_SEQUENCE, changes
from tests.bench.rig import FLUSHED_WITHIN_S, ROOT, TABLE, JobRun, Stack, running_stack, wait_until

FRESH_MS = 5_000
_CALL_RECORDS = 500
_LOOK_S = 1.0
"""A look at the table costs a tenth of a second, on the same cores."""
_POOL = 5_000
_ALONE_MAX = 100_000
"""Whose encoded records the server holds in memory: 820 MB."""
_TIME = re.compile(rb'("(?:created|origin|bridge_in|bridge_out)_ms":)\d+')
_ITEM = re.compile(rb'"key":{"event_id":"(\w+)"')


def kinesis(stack: Stack) -> Any:
    return boto3.client(
        "kinesis",
        endpoint_url=stack.facts["aws_endpoint"],
        region_name=stack.facts["region"],
        aws_access_key_id="local",
        aws_secret_access_key="local",
    )


def many(rng: random.Random) -> Iterator[bytes]:
    """Changes of now without end: some thousands, again and again as those of other items; made anew each is slow."""
    pool = list(itertools.islice(changes(rng), _POOL))
    for round_ in itertools.count():
        for number, line in enumerate(pool, 1):
            item, place = _ITEM.findall(line)[0], number + round_ * _POOL
            other = line.replace(item, b"%b%08x" % (item[:-8], round_))
            other = _TIME.sub(rb"\g<1>%d" % (time.time_ns() // 1_000_000), other)
            other = other.replace(b'"id":"%d"' % number, b'"id":"%d"' % place, 1)
            yield other.replace(b"%d" % (FIRST_SEQUENCE + number), b"%d" % (FIRST_SEQUENCE + place), 1)


def put(client: Any, stream: str, lines: Iterator[bytes], count: int) -> None:
    while count > 0:
        some = list(itertools.islice(lines, min(count, _CALL_RECORDS)))
        records = [{"Data": line, "PartitionKey": _ITEM.findall(line)[0].decode()} for line in some]
        answer = client.put_records(StreamName=stream, Records=records)
        assert not answer["FailedRecordCount"]
        count -= len(some)


def history_rows(job: JobRun) -> int:
    name = load_tables(ROOT / "config" / "tables")[TABLE].lake.name
    try:
        return DeltaTable(str(job.folder / "lake" / name / "history")).count()
    except TableNotFoundError:
        return 0


def drain(stack: Stack, name: str, events: int, endpoint: str | None = None) -> dict[str, Any]:
    settings: dict[str, Any] = {"source": {"starting_position": "trim_horizon"}}
    with stack.job(name, settings | ({"aws": {"endpoint": endpoint}} if endpoint else {})) as job:
        began, peak = time.monotonic(), 0

        def done() -> bool:
            nonlocal peak
            peak = max(peak, job.usage()[1])
            return history_rows(job) >= events

        wait_until(done, within_s=1_800, every_s=_LOOK_S, what=f"{events} events are in history")
        seconds = time.monotonic() - began
        wait_until(lambda: sum(b["rows"] for b in job.batches()) >= events, within_s=120, what="the last batch is done")
        cpu, _ = job.usage()
    found = {
        "events": events,
        "seconds": round(seconds, 1),
        "events_per_s": round(events / seconds),
        "peak_mb": peak // 2**20,
        "cpu_s": round(cpu, 1),
    }
    print(
        f"{name}: {events:,} events in {seconds:.1f} s: {found['events_per_s']:,} a second, {found['peak_mb']:,} MB "
        f"at most, {cpu:.1f} s of processor time",
        flush=True,
    )
    return found


def drain_alone(stack: Stack, events: int) -> dict[str, Any]:
    """Of a server that answers at once, over two shards: what the job takes without the emulator beside it."""
    lines = stack.folder / "lines"
    with lines.open("wb") as file:
        file.writelines(itertools.islice(many(random.Random(1)), events))
    with quick_kinesis.serving(lines, events, shards=2) as endpoint:
        return drain(stack, "drain alone", events, endpoint)


def sustained(stack: Stack, rates: list[int], seconds: int) -> list[dict[str, Any]]:
    """At each rate its p99 from the bridge on: put straight into the stream, a change's time is when it was made."""
    client, lines = kinesis(stack), many(random.Random(2))
    found: list[dict[str, Any]] = []
    with stack.job("sustained", {}) as job:
        put(client, stack.facts["stream"], lines, 500)
        sent = 500
        for rate in rates:
            wait_until(lambda: history_rows(job) >= sent, within_s=600, what="what was sent is there")  # noqa: B023 - at once
            time.sleep(FLUSHED_WITHIN_S)
            before = job.hops()["origin_to_commit"]
            began, count = time.monotonic(), 0
            while (passed := time.monotonic() - began) < seconds:
                due = int(passed * rate) - count
                if due:
                    put(client, stack.facts["stream"], lines, due)
                    count += due
                threading.Event().wait(0.05)
            sent += count
            wait_until(lambda: history_rows(job) >= sent, within_s=600, what="what was sent is there")  # noqa: B023 - at once
            time.sleep(FLUSHED_WITHIN_S)
            hop = job.hops()["origin_to_commit"].since(before)
            found.append({"asked_per_s": rate, "sent_per_s": round(count / seconds), **hop.as_dict()})
            p50, p99 = (hop.quantile_ms(quantile) for quantile in (0.5, 0.99))
            print(
                f"  {rate:>6}/s  sent {found[-1]['sent_per_s']:>6}/s  p50 {p50:>7.0f}  p99 {p99:>7.0f} ms", flush=True
            )
            if p99 > FRESH_MS:
                break
    return found


def run(events: int, rates: list[int], seconds: int) -> dict[str, Any]:
    with TemporaryDirectory(prefix="lakestream-bench-") as folder, running_stack(Path(folder)) as stack:
        began = time.monotonic()
        put(kinesis(stack), stack.facts["stream"], many(random.Random(1)), events)
        print(f"{events:,} events in the stream after {time.monotonic() - began:.0f} s", flush=True)
        drained = drain(stack, "drain", events)
        bare = read_to_the_tip(stack.facts["aws_endpoint"], stack.facts["stream"])
        print(f"a bare client, which keeps nothing, is given {bare.rows_per_s:,} a second", flush=True)
        alone = drain_alone(stack, min(events, _ALONE_MAX))
        found = sustained(stack, rates, seconds) if rates else []
    fresh = [each["sent_per_s"] for each in found if each["p99_ms"] <= FRESH_MS]
    return {
        **drained,
        "bare_client_per_s": bare.rows_per_s,
        "alone": alone,
        "rates": found,
        "fresh_up_to_per_s": max(fresh, default=None),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=100_000)
    parser.add_argument("--rates", default="250,500,1000,2000,4000", help="events a second, one after the other")
    parser.add_argument("--seconds", type=int, default=20, help="at each rate")
    options = parser.parse_args()
    run(options.events, [int(rate) for rate in options.rates.split(",") if rate], options.seconds)


if __name__ == "__main__":
    main()

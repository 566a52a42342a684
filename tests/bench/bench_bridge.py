"""What the bridge makes of a core: `python -m tests.bench.bench_bridge`.

Telemetry changes with both images, masked, digested, sealed and packed: by the bridge; by the usual way (boto3's
TypeDeserializer and `json.dumps(default=str)`) doing the same; and the floor, orjson writing the records as they came.
Three times: warm, the same ten records over and over; cold, each record once, of events parsed just before as Lambda's
runtime does; and whole invocations, in which that parsing and the event's end count too: the usual way and the bridge
as Python's collector of cycles comes, the bridge also as its environment sets it. Figures are of processor time, the
best of several rounds.
`--compiled` first compiles the hot modules with mypyc into a temporary folder and measures those.
"""

import argparse
import functools
import gc
import hashlib
import hmac
import json
import os
import platform
import random
import shutil
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import orjson
from boto3.dynamodb.types import Binary, TypeDeserializer

from bridge_lambda import images
from bridge_lambda.envelope import Change, encode_change
from bridge_lambda.handler import spare_the_collector
from bridge_lambda.packing import fitting
from bridge_lambda.rules import HashKey, TableRules, table_rules
from infra.local.telemetry import telemetry_item, to_dynamodb

ROOT = Path(__file__).parents[2]
TABLE = "chargeminder-car-telemetry"
ARN = f"arn:aws:dynamodb:us-east-1:123456789012:table/{TABLE}/stream/2026-03-01T12:30:45.678"
SECRET = b"0123456789abcdef0123456789abcdef"
NOW_MS = 1_790_000_000_000
BATCH = 100
"""The mapping's default."""
WARM = 10
Event = dict[str, Any]


def rules() -> dict[str, TableRules]:
    compiled = {
        "version": 1,
        "key": ["event_id"],
        "drop": [["meta", "webhookName"], ["signals", "code"]],
        "hash": [["smartcar_user_id"], ["user", "id"]],
        "secret": {"name": "bench", "version": None},
        "keep_old_image": True,
        "filter": None,
        "origin": {"path": ["meta", "deliveredAt"], "ms_per_unit": 1},
    }
    return {TABLE: table_rules(TABLE, compiled, lambda name, version: HashKey("k1", SECRET))}


def events(records: int, seed: int) -> list[bytes]:
    """Batches of changes as the runtime receives them; no two images of a change have a signal in common."""
    rng = random.Random(seed)
    all_records = []
    for number in range(records):
        old = telemetry_item(rng, NOW_MS - 60_000)
        new = telemetry_item(rng, NOW_MS + number, event_id=old["event_id"])
        change = {
            "ApproximateCreationDateTime": NOW_MS // 1000,
            "Keys": {"event_id": {"S": old["event_id"]}},
            "NewImage": to_dynamodb(new),
            "OldImage": to_dynamodb(old),
            "SequenceNumber": str(10**20 + number),
            "SizeBytes": 12_000,
            "StreamViewType": "NEW_AND_OLD_IMAGES",
        }
        all_records.append(
            {
                "eventID": f"{number:032x}",
                "eventName": "MODIFY",
                "eventSource": "aws:dynamodb",
                "eventSourceARN": ARN,
                "dynamodb": change,
            }
        )
    return [json.dumps({"Records": all_records[at : at + BATCH]}).encode() for at in range(0, records, BATCH)]


# --- three ways -------------------------------------------------------------------------------------------------------


def the_bridge(event: Event, tables: dict[str, TableRules]) -> int:
    changes: list[Change] = []
    for record in event["Records"]:
        change = encode_change(record, tables, NOW_MS, "claims")
        if change is not None:
            changes.append(change)
    calls = 0
    while changes:
        count = fitting(changes)
        for change in changes[:count]:
            change.line(NOW_MS)
        changes = changes[count:]
        calls += 1
    return calls


_deserializer = TypeDeserializer()


def the_usual_way(event: Event) -> int:
    """As it is mostly written: images to Python objects, masked, to JSON with the numbers as strings."""
    calls = count = size = 0
    for record in event["Records"]:
        change = record["dynamodb"]
        new = _usual_image(change["NewImage"])
        old = _usual_image(change["OldImage"])
        key = json.dumps(_usual_image(change["Keys"]), sort_keys=True, separators=(",", ":"), default=_usual_default)
        canonical = json.dumps(new, sort_keys=True, separators=(",", ":"), default=_usual_default)
        envelope = {
            "v": 1,
            "rules": "1:k1",
            "table": record["eventSourceARN"].split("/")[1],
            "op": record["eventName"],
            "id": record["eventID"],
            "seq": change["SequenceNumber"].zfill(40),
            "key": key,
            "new": new,
            "old": old,
            "digest": hashlib.sha256(canonical.encode()).hexdigest(),
            "created_ms": change["ApproximateCreationDateTime"] * 1000,
            "origin_ms": int(new["meta"]["deliveredAt"]),
            "bridge_in_ms": NOW_MS,
            "bridge_out_ms": NOW_MS,
        }
        line = json.dumps(envelope, separators=(",", ":"), default=_usual_default).encode() + b"\n"
        count, size = count + 1, size + len(line) + len(key)
        if count > 500 or size > 10 * 1024 * 1024:
            calls, count, size = calls + 1, 1, len(line) + len(key)
    return calls + 1


def _usual_image(image: dict[str, Any]) -> dict[str, Any]:
    item = {name: _deserializer.deserialize(typed) for name, typed in image.items()}
    if "meta" in item:
        item["meta"].pop("webhookName", None)
        for signal in item["signals"]:
            signal.pop("code", None)
        item["smartcar_user_id"] = _usual_hash(item["smartcar_user_id"])
        item["user"]["id"] = _usual_hash(item["user"]["id"])
    return item


def _usual_hash(text: str) -> str:
    return hmac.new(SECRET, text.encode(), hashlib.sha256).hexdigest()


def _usual_default(value: object) -> object:
    if isinstance(value, Decimal | Binary):
        return str(value)
    return sorted(value) if isinstance(value, set) else str(value)


def the_floor(event: Event) -> int:
    """No conversion, no mask, no digest: only the writing of as many bytes."""
    return sum(len(orjson.dumps(record)) for record in event["Records"])


# --- measuring --------------------------------------------------------------------------------------------------------


def cold_per_second(way: Callable[[Event], int], batches: list[bytes], rounds: int) -> float:
    """Records a second of processor time, of the best round; each record is met once, far from the caches."""
    best = float("inf")
    records = 0
    for _ in range(rounds):
        spent = 0.0
        records = 0
        for batch in batches:
            event = json.loads(batch)
            gc.collect()
            started = time.process_time()
            way(event)
            spent += time.process_time() - started
            records += len(event["Records"])
        best = min(best, spent)
    return records / best


def warm_per_second(way: Callable[[Event], int], batch: bytes, rounds: int) -> float:
    """The same few records over and over: what the code costs where memory costs nothing."""
    event = {"Records": json.loads(batch)["Records"][:WARM]}
    repeats = 50
    best = float("inf")
    for _ in range(rounds):
        started = time.process_time()
        for _ in range(repeats):
            way(event)
        best = min(best, time.process_time() - started)
    return repeats * WARM / best


def invocations_per_second(way: Callable[[Event], int], batches: list[bytes], rounds: int) -> float:
    """Records a second of all that an invocation spends: the runtime parses the event, and lets go of it."""
    best = float("inf")
    for _ in range(rounds):
        gc.collect()
        started = time.process_time()
        records = 0
        for batch in batches:
            event = json.loads(batch)
            way(event)
            records += len(event["Records"])
            del event
        best = min(best, (time.process_time() - started) / records)
    return 1 / best


def peak_bytes(way: Callable[[Event], int], batch: bytes) -> int:
    """The most that one batch allocates on top of its event."""
    event = json.loads(batch)
    way(event)  # caches are not of the batch
    tracemalloc.start()
    try:
        way(event)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def compiled(arguments: list[str]) -> int:
    """The same measurement by modules that mypyc made of the same source; needs a C compiler."""
    with TemporaryDirectory(prefix="bridge-compiled-") as temporary:
        folder = Path(temporary)
        for package in ("bridge_lambda", "config", "infra", "tests"):
            shutil.copytree(
                ROOT / package, folder / package, ignore=shutil.ignore_patterns("__pycache__", "node_modules")
            )
        sources = [f"bridge_lambda/{name}.py" for name in ("masks", "shapes", "walk", "images", "rules", "envelope")]
        mypyc = [str(Path(sys.executable).with_name("mypyc")), "--config-file", os.devnull, *sources]
        made = subprocess.run(mypyc, cwd=folder, capture_output=True, text=True, check=False)
        if made.returncode:
            sys.stderr.write(made.stdout + made.stderr)
            return made.returncode
        command = [sys.executable, "-m", "tests.bench.bench_bridge", *arguments]
        return subprocess.run(
            command, cwd=folder, check=False, env={**os.environ, "PYTHONPATH": str(folder)}
        ).returncode


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--records", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", action="store_true", help="one line of JSON instead of the table")
    parser.add_argument("--compiled", action="store_true", help="compile images, rules and envelope with mypyc first")
    options = parser.parse_args()
    if options.compiled:
        return compiled([option for option in sys.argv[1:] if option != "--compiled"])
    batches = events(options.records, options.seed)
    ways: dict[str, Callable[[Event], int]] = {
        "bridge": functools.partial(the_bridge, tables=rules()),
        "usual": the_usual_way,
        "floor": the_floor,
    }
    figures: dict[str, Any] = {
        "records": options.records,
        "python": platform.python_version(),
        "compiled": not str(images.__file__).endswith(".py"),
        "bytes_per_record": sum(map(len, batches)) // options.records,
    }
    for state in ("warm", "cold"):
        speed = {
            name: warm_per_second(way, batches[0], options.rounds)
            if state == "warm"
            else cold_per_second(way, batches, options.rounds)
            for name, way in ways.items()
        }
        figures |= {f"{state}_{name}_records_s": round(rate) for name, rate in speed.items()}
        figures[f"{state}_times_the_usual"] = round(speed["bridge"] / speed["usual"], 2)
        figures[f"{state}_floor_over_bridge"] = round(speed["floor"] / speed["bridge"], 2)
    for name in ("usual", "bridge"):
        figures[f"invocations_{name}_records_s"] = round(invocations_per_second(ways[name], batches, options.rounds))
    spare_the_collector()
    in_lambda = round(invocations_per_second(ways["bridge"], batches, options.rounds))
    figures["invocations_bridge_in_lambda_records_s"] = in_lambda
    figures["invocations_times_the_usual"] = round(in_lambda / figures["invocations_usual_records_s"], 2)
    figures[f"peak_mib_of_{BATCH}"] = {
        name: round(peak_bytes(way, batches[0]) / 2**20, 1) for name, way in ways.items()
    }
    if options.json:
        sys.stdout.write(json.dumps(figures) + "\n")
    else:
        sys.stdout.writelines(f"{name:<40} {value}\n" for name, value in figures.items())
    return 0


if __name__ == "__main__":
    sys.exit(main())

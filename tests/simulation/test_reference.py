"""The simulation's reader and lake, held equal to the product's own: what is proven of them then holds of it.

The pipeline is the real one with engine `rust`, which needs no Spark where tables lie by path. That both engines agree
has a suite of its own.
"""

import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow as pa
from deltalake import DeltaTable
from envelopes import GENERATION, Change, put, remove
from histories import batches
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from lake_rig import SOURCE, LakeRig, table_config
from rig_without_spark import RigWithoutSpark, bytes_of

from config.tables import TableConfig
from streaming_job.pipeline.decode import Decoder
from tests.contract.golden_envelopes import golden_envelopes
from tests.simulation import decoder
from tests.simulation.lake import HOUR_MS, Lake, Record

EXAMPLES = int(os.environ.get("LAKESTREAM_EXAMPLES", "25"))
KEYS = {"things": {"id": "S"}, "counts": {"n": "N"}}
TABLES = {
    name: TableConfig.model_validate(
        {"table": name, "version": 1, "key": [{"name": n, "type": t} for n, t in key.items()], "lake": {"name": name}}
    )
    for name, key in KEYS.items()
}
GOOD: dict[str, Any] = put("a", 7, n=1, s="ü").envelope()
LINE = put("a", 7, n=1, s="ü").line()
PIECES = (
    b"\\q",
    b"\\",
    b"\x01",
    b"\t",
    b"[",
    b"]",
    b":",
    b"1.",
    b"01",
    b"+1",
    b"tru",
    b" ",
    b",",
    b"\n",
    b'"',
    b"{",
    b"}",
    b"null",
    b"NaN",
    b"1e999",
    b"\\u00fc",
    b"\\ud800",
    b"-",
    b"0",
    b'"v":2,',
)
LATER = "20271101120000000"


# --- the reader -------------------------------------------------------------------------------------------------------


def by_the_job(lines: Sequence[bytes]) -> list[dict[str, Any]]:
    rows = [
        {
            "data": data,
            "stream": "s",
            "shardId": "shardId-0",
            "sequenceNumber": str(at),
            "approximateArrivalTimestamp": datetime(2026, 11, 1, tzinfo=UTC),
        }
        for at, data in enumerate(lines)
    ]
    table = pa.Table.from_pylist(rows, schema=pa.schema([field for field in SOURCE if field.name != "partitionKey"]))
    return Decoder(TABLES).changes(table).to_pylist()


def agree(data: bytes) -> None:
    """One verdict, and where it is a change, one change."""
    (job,), reference = by_the_job([data]), decoder.decode(data, KEYS)
    if not is_text(data):
        return  # what the job skips - members it does not know - it need not judge; that it went on is enough
    if isinstance(reference, str):
        assert job["reject"] is not None, reference
        return
    assert job["reject"] is None
    assert (job["table"], job["change_seq"], job["op"], job["digest"], job["ttl"], job["filtered"]) == (
        reference.table, reference.seq, reference.op, reference.digest, reference.ttl, reference.filtered,
    )  # fmt: skip
    assert (exact(job["new"]), exact(job["old"])) == (reference.new, reference.old)
    assert (exact(job["types"]) or {}, job["created_ms"]) == (reference.types, reference.created_ms)
    assert exact(job["key"]) == exact(reference.key)


def is_text(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def exact(text: str | None) -> Any:
    return None if text is None else json.loads(text, parse_float=decoder.exact)


odd_values = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.text(max_size=5),
    st.sampled_from(["REMOVE", "SNAPSHOT", "counts", "nowhere", GENERATION, "0" * 40, "1" * 41, "٣" * 40, "{}"]),
    st.lists(st.integers(), max_size=2),
    st.dictionaries(
        st.sampled_from(["id", "n", "/key/id", "/new/n"]), st.sampled_from(["a", "N", "B", 1, None]), max_size=2
    ),
)


@settings(max_examples=EXAMPLES * 8, deadline=None)
@given(st.dictionaries(st.sampled_from(sorted(GOOD)), odd_values, min_size=1, max_size=3), st.booleans())
@example({"v": True}, True)
@example({"key": {"id": "a", "n": 1}}, True)
@example({"op": "REMOVE", "new": None}, True)
def test_the_reference_judges_every_envelope_as_the_job_does(fields: dict[str, Any], ascii_only: bool) -> None:  # noqa: FBT001 - drawn
    """Fields of other types, other values, or missing; escaped or not."""
    text = json.dumps(GOOD | fields, ensure_ascii=ascii_only, separators=(",", ":"))
    agree(text.encode(errors="surrogatepass") + b"\n")


@settings(max_examples=EXAMPLES * 8, deadline=None)
@given(st.integers(0, len(LINE)), st.one_of(st.binary(max_size=4), st.sampled_from(PIECES)), st.integers(0, 3))
@example(0, b"\xef\xbb\xbf", 0)
@example(len(LINE), b"{}", 0)
@example(1, b"\x00", 0)
def test_the_reference_judges_every_damaged_line_as_the_job_does(
    at: int, bytes_put_in: bytes, bytes_taken: int
) -> None:
    agree(LINE[:at] + bytes_put_in + LINE[at + bytes_taken :])


def test_the_reference_reads_every_line_of_record() -> None:
    for golden in golden_envelopes():
        if golden.line is None:
            continue
        ((table, rules),) = golden.content["rules"]["tables"].items()
        keys = golden.content["record"]["dynamodb"]["Keys"]
        hashed = {path[0] for path in rules["hash"]}
        types = {name: "S" if name in hashed else next(iter(keys[name])) for name in rules["key"]}
        change = decoder.decode(golden.line, {table: types})
        assert isinstance(change, decoder.Change), change
        assert change.table == table


# --- the lake ---------------------------------------------------------------------------------------------------------


class NoObjects:
    def get(self, bucket: str, key: str) -> bytes | None:
        raise AssertionError(f"{bucket}/{key} is asked for, and no change has a claim check")


def records(batch: Iterable[Change | bytes], first: int) -> list[Record]:
    return [Record("0", str(at), bytes_of(change)) for at, change in enumerate(batch, start=first)]


def held_by(rig: LakeRig) -> tuple[Any, ...]:
    current = rig.rows("things/current", "_key", "_seq", "_op", "_deleted", "_ttl", "_digest", "_created_ms")
    history = rig.rows("things/history", "_key", "_seq", "_op", "_digest", "_new")
    rejects = rig.rows("rejects", "_data") if DeltaTable.is_deltatable(rig.path("rejects")) else []
    return (
        sorted(tuple(row.values()) for row in current),
        sorted((*list(row.values())[:3], row["_digest"], exact(row["_new"])) for row in history),
        sorted(bytes(row["_data"]) for row in rejects),
    )


def held_by_reference(lake: Lake) -> tuple[Any, ...]:
    table = lake.tables["things"]
    return (
        sorted((k, r.seq, r.op, r.deleted, r.ttl, r.digest, r.created_ms) for k, r in table.current.items()),
        sorted((c.key, c.seq, c.op, c.digest, c.new) for c in table.history),
        sorted(reject.record.data for reject in lake.rejects.values()),
    )


malformed = st.sampled_from([b"{not json", b"", b'{"v":2}', b"\xff"])


@settings(max_examples=max(2, EXAMPLES // 8), deadline=None, suppress_health_check=list(HealthCheck))
@given(batches(keys=4, length_max=4), st.lists(malformed, max_size=2), st.booleans())
def test_the_reference_lake_holds_what_the_pipelines_tables_hold(
    delivered: list[list[Change]],
    broken: list[bytes],
    purges: bool,  # noqa: FBT001 - drawn
) -> None:
    """Duplicated, reordered, run again and cut anywhere, with scans, purges, and lines that are no change."""
    with TemporaryDirectory() as folder:
        rules = {"deletes": {"policy": "hard", "window_h": 1}} if purges else {}
        rig = RigWithoutSpark(Path(folder), table_config("things", **rules), upkeep={"purge_every_s": 60})
        lake = Lake({"things": KEYS["things"]}, NoObjects(), lambda: rig.clock.now_ms)
        with rig.pipeline() as pipeline:
            for number, batch in enumerate(with_scans(delivered)):
                lines: list[Change | bytes] = [*batch, *broken]
                lake.process_batch(records(lines, number * 1000))
                report = pipeline.process_batch(rig.frame(lines), number)
                assert not any(table.failure for table in report.tables.values())
                if purges:
                    rig.clock.now_ms += 2 * HOUR_MS
                    lake.purge("things", HOUR_MS)
                    rig.idle(pipeline)
        current, history, rejects = held_by(rig)
        expected = held_by_reference(lake)
        assert (current, history) == expected[:2]
        assert set(rejects) == set(expected[2])


def with_scans(delivered: list[list[Change]]) -> list[list[Change]]:
    """After each batch a scan of what its first change was about, at last one under a later label."""
    made: list[list[Change]] = []
    for batch in delivered:
        first = batch[0]
        scan = replace(first, op="SNAPSHOT", number=0, new={**first.key, "n": 0}, old=None, ttl=False, created_ms=None)
        made += [batch, [scan]]
    return [*made, [replace(made[-1][0], generation=LATER)]]


def test_the_reference_lake_forgets_purged_tombstones_as_the_pipeline_does(tmp_path: Path) -> None:
    """The same history, by hand: a delete, its purge, and all that is older once more."""
    rig = RigWithoutSpark(
        tmp_path,
        table_config("things", deletes={"policy": "hard", "window_h": 1}),
        upkeep={"purge_every_s": 60},
    )
    lake = Lake({"things": KEYS["things"]}, NoObjects(), lambda: rig.clock.now_ms)
    with rig.pipeline() as pipeline:
        for number, batch in enumerate(([put("a", 1, n=1)], [remove("a", 2)], [put("a", 1, n=1)], [put("a", 3, n=3)])):
            lake.process_batch(records(batch, number * 10))
            pipeline.process_batch(rig.frame(batch), number)
            rig.clock.now_ms += 2 * HOUR_MS
            lake.purge("things", HOUR_MS)
            rig.idle(pipeline)
            assert held_by(rig)[0] == held_by_reference(lake)[0]
            assert len(lake.tables["things"].current) == (0 if number in {1, 2} else 1)

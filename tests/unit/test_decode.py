"""From the source's rows to changes: exact, and a reject with a reason for whatever is none."""

import json
import os
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pyarrow as pa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from config.tables import TableConfig
from streaming_job.pipeline.decode import Decoder
from streaming_job.pipeline.keys import KeyReader

EXAMPLES = int(os.environ.get("LAKESTREAM_EXAMPLES", "100"))
TABLES = {
    name: TableConfig.model_validate({"table": name, "version": 1, "key": key, "lake": {"name": name, **lake}})
    for name, key, lake in (
        ("things", [{"name": "id"}], {}),
        (
            "pairs",
            [{"name": "n", "type": "N"}, {"name": "b", "type": "B"}],
            {"columns": {"n": "decimal(38,10)"}},
        ),
        ("counts", [{"name": "n", "type": "N"}], {}),
        (
            "moments",
            [{"name": "id"}, {"name": "ts", "type": "N"}],
            {"columns": {"ts": {"type": "timestamp", "unit": "ms"}}},
        ),
    )
}
ENVELOPE: dict[str, Any] = {
    "v": 1, "rules": "1", "table": "things", "op": "MODIFY", "id": "e1", "gen": "20261101120000000", "seq": f"{7:040d}",
    "key": {"id": "a"}, "new": {"id": "a"}, "old": None, "types": {}, "digest": "0" * 64, "ttl": False,
    "filtered": False, "created_ms": 1000, "origin_ms": None, "bridge_in_ms": 2, "bridge_out_ms": 3, "ref": None,
}  # fmt: skip


def line(**fields: Any) -> bytes:
    return json.dumps({**ENVELOPE, **fields}, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"


def raw_line(*, key: str | None = None, new: str | None = None, **fields: Any) -> bytes:
    """With key or image as text, literals and all."""
    text = line(**fields, key="KEY" if key else ENVELOPE["key"], new="NEW" if new else ENVELOPE["new"])
    return text.replace(b'"KEY"', (key or "").encode()).replace(b'"NEW"', (new or "").encode())


def decoded(lines: list[bytes | None]) -> list[dict[str, Any]]:
    count = len(lines)
    arrival = pa.array([datetime(2026, 11, 1, tzinfo=UTC)] * count, pa.timestamp("us", "UTC"))
    rows = pa.table(
        {
            "data": pa.array(lines, pa.binary()),
            "stream": ["s"] * count,
            "shardId": ["shardId-0"] * count,
            "sequenceNumber": [str(i) for i in range(count)],
            "approximateArrivalTimestamp": arrival,
        }
    )
    return Decoder(TABLES).changes(rows).to_pylist()


BAD: list[tuple[str, bytes | None, str]] = [
    ("nothing", None, "no data"),
    ("empty", b"", "malformed JSON"),
    ("cut off", line()[:-30], "malformed JSON"),
    ("not UTF-8", b'{"v":1,"id":"\xff"}', "not UTF-8"),
    ("two envelopes in one record", line() + line(), "malformed JSON"),
    ("something after it", line() + b"x", "malformed JSON"),
    ("a list", b"[]", "malformed JSON"),
    ("a number", b"5", "malformed JSON"),
    ("null", b"null", "malformed JSON"),
    ("JavaScript", line(op="X").replace(b'"X"', b"NaN"), "malformed JSON"),
    ("single quotes", b"{'v':1}", "malformed JSON"),
    ("nested without end", raw_line(new='{"a":' + "[" * 1200 + "]" * 1200 + "}"), "malformed JSON"),
    ("half a character", line(id="X").replace(b'"X"', b'"\\ud800"'), "half a surrogate pair"),
    ("no version", b"{}", "unknown envelope version ?"),
    ("the next version", line(v=2), "unknown envelope version 2"),
    ("a field of another type", line(ttl="maybe"), "a field has another type than the envelope says"),
    ("no key", line(key=None), "key is missing"),
    ("no sequence number", line(seq=None), "seq is missing"),
    ("unknown operation", line(op="UPSERT"), "unknown operation UPSERT"),
    ("a short sequence number", line(seq="12"), "no sequence number: 12"),
    ("a generation that is none", line(gen="2026-11-01"), "no generation: 2026-11-01"),
    ("a table nobody configured", line(table="nope"), "no rules file for table nope"),
    ("a key of another name", line(key={"x": "a"}), "the key has other attributes or types than the rules say"),
    ("a key with more", line(key={"id": "a", "x": 1}), "the key has other attributes or types than the rules say"),
    ("a number for a string key", line(key={"id": 5}), "the key has other attributes or types than the rules say"),
    (
        "a binary for a string key",
        line(types={"/key/id": "B"}),
        "the key has other attributes or types than the rules say",
    ),
    (
        "a string for a number key",
        line(table="counts", key={"n": "5"}),
        "the key has other attributes or types than the rules say",
    ),
    (
        "a fraction for a key of whole numbers",
        raw_line(table="counts", key='{"n":1.5}'),
        "the key has other attributes or types than the rules say",
    ),
    (
        "a number key beyond 38 digits",
        raw_line(table="counts", key='{"n":' + "1" * 39 + "}"),
        "the key has other attributes or types than the rules say",
    ),
    (
        "a time for a key beyond the calendar",
        raw_line(table="moments", key='{"id":"a","ts":1e15}'),
        "the key has other attributes or types than the rules say",
    ),
    (
        "text for a number key that is called a number and is none",
        line(table="counts", key={"n": "NaN"}, types={"/key/n": "N"}),
        "the key has other attributes or types than the rules say",
    ),
    ("no image", line(new=None), "no image"),
    ("a snapshot row without image", line(op="SNAPSHOT", new=None), "no image"),
    ("an image that is none", line(new=[1]), "an image is no object"),
]


def test_whatever_is_no_envelope_is_a_reject_with_its_reason_and_its_neighbours_stand() -> None:
    lines = [part for _, bad, _ in BAD for part in (bad, line())]
    rows = decoded(lines)
    assert {name: row["reject"] for (name, _, _), row in zip(BAD, rows[::2], strict=True)} == {
        name: reason for name, _, reason in BAD
    }
    assert all(row["reject"] is None and row["new"] == '{"id":"a"}' for row in rows[1::2])


def test_a_reject_keeps_its_bytes_and_position_and_nothing_else() -> None:
    (row,) = decoded([line(v=2)])
    kept = {"stream", "shard", "kinesis_seq", "arrival_ms", "data", "reject"}
    assert bytes(row["data"]) == line(v=2)
    assert {name for name, value in row.items() if value is not None} == kept


def test_an_envelope_is_read_field_by_field() -> None:
    ref = {"bucket": "b", "key": "k", "bytes": 9, "sha256": "0" * 64}
    (row,) = decoded([line(new=None, ref=ref, types={"/old/a": "SS"}, old={"a": ["x"]}, origin_ms=5)])
    read = {name: json.loads(row[name]) for name in ("key", "old", "types", "ref")}
    same = {name: ENVELOPE[name] for name in ENVELOPE.keys() & row.keys()}
    assert row | read == same | {
        "stream": "s", "shard": "shardId-0", "kinesis_seq": "0", "arrival_ms": 1793491200000, "reject": None,
        "data": row["data"], "new": None, "old": {"a": ["x"]}, "types": {"/old/a": "SS"},
        "ref": ref, "origin_ms": 5, "change_seq": f"20261101120000000-{7:040d}",
    }  # fmt: skip


def test_number_literals_of_images_and_keys_stay_as_they_are() -> None:
    image = (
        '{"a":1.50,"b":12345678901234567890123456789012345678,"c":1E+5,"d":0.12345678901234567890123456789012345678,'
        '"s":"#1.5","q":"\'x","t":["1.50",1.50,{"e":-2.5e-130}],"\'n":"#","#":"\'"}'
    )
    key = '{"b":"AAE=","n":1234567890123456789012345678.1234567890}'
    (row,) = decoded([raw_line(table="pairs", key=key, new=image, types={"/key/b": "B"})])
    assert (row["reject"], row["new"], row["key"]) == (None, image, key)


def test_a_key_is_the_text_the_envelope_holds_control_characters_too() -> None:
    name = '\x1f\u2028\x7f\\u001F"\n' + "é🚗" * 400
    (row,) = decoded([line(key={"id": name})])
    assert row["key"].encode() == json.dumps({"id": name}, ensure_ascii=False, separators=(",", ":")).encode()


def test_a_key_that_is_a_time_is_read_in_the_unit_its_rule_says() -> None:
    keys = ['{"id":"a","ts":1793534400000}', '{"id":"a","ts":1793534400000.5}']
    rows = decoded([raw_line(table="moments", key=key) for key in keys])
    assert [(row["reject"], row["key"]) for row in rows] == [(None, key) for key in keys]
    _, moments = KeyReader(TABLES["moments"]).arrays(keys)
    noon = datetime(2026, 11, 1, 12, tzinfo=UTC)
    assert moments.to_pylist() == [noon, noon + timedelta(microseconds=500)]


def test_an_image_of_900_kb_passes() -> None:
    image = {"id": "a", "text": 'x"\\' * 300_000}
    (row,) = decoded([line(new=image)])
    assert json.loads(row["new"]) == image


names = st.text(st.characters(exclude_categories=["Cs"]), max_size=6)
literals = st.decimals(allow_nan=False, allow_infinity=False).map(lambda number: f"{number:.40g}")
values = st.recursive(
    st.one_of(names, st.booleans(), st.none(), literals.map(lambda text: ("literal", text))),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(names, inner, max_size=3)),
    max_leaves=8,
)


def dumps(value: Any) -> str:
    if isinstance(value, tuple):
        return str(value[1])
    if isinstance(value, dict):
        members = (f"{json.dumps(name, ensure_ascii=False)}:{dumps(part)}" for name, part in value.items())
        return "{" + ",".join(members) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(dumps, value)) + "]"
    return json.dumps(value, ensure_ascii=False)


@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(st.dictionaries(names, values, max_size=4).map(dumps), min_size=1, max_size=10))
def test_an_image_says_after_decoding_what_it_said_before(images: list[str]) -> None:
    rows = decoded([raw_line(new=image) for image in images])
    for image, row in zip(images, rows, strict=True):
        assert row["reject"] is None
        assert json.loads(row["new"], parse_float=Decimal) == json.loads(image, parse_float=Decimal)

"""The job's side of the contract: from the line of record to the change that the pipeline works with."""

import json
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pytest

from config.tables import BridgeRules, KeyAttribute, LakeRules, TableConfig, join_path
from streaming_job.pipeline.decode import Decoder
from tests.contract.golden_envelopes import Golden, golden_envelopes

SENT = [golden for golden in golden_envelopes() if golden.line is not None]
ARRIVED = datetime(2026, 9, 21, 12, 0, 0, 500_000, tzinfo=UTC)
SAME = ("table", "op", "id", "digest", "rules", "ttl", "filtered")
TIMES = ("created_ms", "origin_ms", "bridge_in_ms", "bridge_out_ms")


def table_of(golden: Golden) -> TableConfig:
    """The rules file that the compiled rules of a golden come from, as far as the reader looks at it."""
    ((name, rules),) = golden.content["rules"]["tables"].items()
    keys = golden.content["record"]["dynamodb"]["Keys"]
    hashed = tuple(join_path(tuple(path)) for path in rules["hash"])
    return TableConfig(
        table=name,
        version=rules["version"],
        key=tuple(KeyAttribute(name=attribute, type=next(iter(keys[attribute]))) for attribute in rules["key"]),
        bridge=BridgeRules(hash=hashed, hash_secret="secret" if hashed else None),
        lake=LakeRules(name="lake_table"),
    )


@pytest.fixture(scope="module")
def read() -> dict[str, dict[str, Any]]:
    """Each line of record as the source delivers it, decoded; by the golden's name."""
    rows: dict[str, dict[str, Any]] = {}
    for table in {table_of(golden).model_dump_json(): table_of(golden) for golden in SENT}.values():
        goldens = [golden for golden in SENT if table_of(golden) == table]
        source = pa.table(
            {
                "data": [golden.line for golden in goldens],
                "stream": ["changes"] * len(goldens),
                "shardId": ["shardId-000000000000"] * len(goldens),
                "sequenceNumber": [golden.path.stem for golden in goldens],
                "approximateArrivalTimestamp": [ARRIVED] * len(goldens),
            }
        )
        rows |= {row["kinesis_seq"]: row for row in Decoder({table.table: table}).changes(source).to_pylist()}
    return rows


def exact(text: str | bytes) -> Any:
    """JSON with its numbers as the text they are."""
    return json.loads(text, parse_int=lambda digits: ("number", digits), parse_float=lambda text: ("number", text))


@pytest.mark.parametrize("golden", SENT, ids=lambda golden: golden.path.stem)
def test_the_job_reads_from_the_line_of_record_what_the_bridge_wrote(
    golden: Golden, read: dict[str, dict[str, Any]]
) -> None:
    """Every field; images and key to the last digit."""
    row, line = read[golden.path.stem], golden.line or b""
    envelope = exact(line)
    assert row["reject"] is None
    assert {name: row[name] for name in SAME} == {name: envelope[name] for name in SAME}
    assert {name: row[name] for name in TIMES} == {name: json.loads(line)[name] for name in TIMES}
    assert json.loads(row["types"]) == envelope["types"]
    assert row["change_seq"] == f"{envelope['gen']}-{envelope['seq']}"
    for image in ("new", "old"):
        assert (exact(row[image]) if row[image] is not None else None) == envelope[image]
    assert row["key"] == key_text(line)
    assert row["ref"] is None


def key_text(line: bytes) -> str:
    """The key as it stands in the line: that text is `_key` in the lake."""
    text = line.decode()
    start = text.index('"key":{') + len('"key":')
    return text[start : start + json.JSONDecoder().raw_decode(text[start:])[1]]

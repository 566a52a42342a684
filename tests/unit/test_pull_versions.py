"""What can be pulled by: indexes and versions; numbers that order as their versions do."""

from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from index_memory import IndexInMemory, table_config
from typer.testing import CliRunner

from config.errors import ConfigurationError
from streaming_job.cli import app
from streaming_job.operations.pull_index import Index
from streaming_job.operations.pull_versions import Version, Versions, after, sequence
from streaming_job.operations.source_scan import CapacityBudget

# --- what cannot be pulled by -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("table", "pull", "said"),
    [
        ({}, {"index": "other"}, "it has by_tenant"),
        ({}, {"version": "iso"}, "`iso` goes with S"),
        ({"version_type": "S"}, {}, "of type S"),
        ({"key": "uid"}, {}, "its rules say id"),
        ({"description": {"GlobalSecondaryIndexes": []}}, {}, "it has none"),
        (
            {
                "description": {
                    "GlobalSecondaryIndexes": [
                        {"IndexName": "by_tenant", "KeySchema": [{"AttributeName": "tenant", "KeyType": "HASH"}]}
                    ]
                }
            },
            {},
            "no sort key",
        ),
        (
            {"description": {"GlobalSecondaryIndexes": [{"IndexName": "by_tenant", "IndexStatus": "CREATING"}]}},
            {},
            "CREATING",
        ),
    ],
)
def test_an_index_that_cannot_be_pulled_by_is_refused_before_the_first_read(
    table: dict[str, Any], pull: dict[str, Any], said: str
) -> None:
    config = table_config(**pull)
    assert config.pull is not None
    memory = IndexInMemory(**table)
    with pytest.raises(ConfigurationError) as error:
        Index.describe(memory, config, Versions(config.pull.version, 60), CapacityBudget())
    assert said in str(error.value)
    assert not memory.queries


# --- numbers ----------------------------------------------------------------------------------------------------------

NUMBERS = st.decimals(min_value=0, max_value=Decimal("9999999999999999999.999999999"), places=9)


@given(NUMBERS, NUMBERS, st.binary(min_size=32, max_size=32), st.binary(min_size=32, max_size=32))
def test_numbers_are_ordered_as_their_versions_whatever_the_digests(
    one: Decimal, other: Decimal, one_digest: bytes, other_digest: bytes
) -> None:
    texts = [sequence(Version({}, n, is_sorted=True), d.hex()) for n, d in ((one, one_digest), (other, other_digest))]
    assert [len(text) for text in texts] == [40, 40]
    assert one == other or (one < other) == (texts[0] < texts[1])
    later = sequence(Version({}, one + Decimal("0.000000001"), is_sorted=True), other_digest.hex())
    if one + 1 < 10**19:
        assert texts[0] < after(texts[0]) <= later or after(texts[0])[-12:] == "0" * 12


@pytest.mark.parametrize(
    ("unit", "typed", "begin", "created_ms"),
    [
        ("ms", {"N": "1700000000123"}, {"N": "1699999940123"}, 1_700_000_000_123),
        ("s", {"N": "1700000000.5"}, {"N": "1699999940.5"}, 1_700_000_000_500),
        ("ns", {"N": "1700000000000000001"}, {"N": "1699999940000000001"}, 1_700_000_000_000),
        ("count", {"N": "61"}, {"N": "1"}, None),
        ("count", {"N": "60"}, None, None),
        ("iso", {"S": "2023-11-14T22:13:20.25Z"}, {"S": "2023-11-14T22:12:20"}, 1_700_000_000_250),
        ("iso", {"S": "2023-11-14 22:13:20"}, {"S": "2023-11-14 22:12:20"}, 1_700_000_000_000),
        ("ms", {"N": "9" * 18}, {"N": "999999999999939999"}, 253_402_300_799_999),
        ("ms", {"N": "-5"}, None, None),
        ("ms", {"N": "1E+30"}, None, None),
        ("ms", {"S": "5"}, None, None),
        ("iso", {"S": "never"}, None, None),
        ("ms", None, None, None),
    ],
)
def test_versions_are_read_stepped_back_from_and_dated(
    unit: str, typed: Any, begin: Any, created_ms: int | None
) -> None:
    versions = Versions(unit, 60)
    version = versions.read(typed)
    assert versions.behind(version) == begin
    assert versions.created_ms(version) == created_ms


# --- the command ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "pulls", "said"),
    [
        ([], 0, "0 tables of the configuration have rules for pulling"),
        ([], 2, "2 tables of the configuration have rules for pulling"),
        (["t0"], 0, "say nothing of pulling it"),
        (["other"], 1, "no table 'other'"),
        (["--every", "5", "--reconcile"], 1, "goes with one pass"),
    ],
)
def test_what_cannot_be_pulled_is_refused_before_anything_is_asked(
    tmp_path: Path, arguments: list[str], pulls: int, said: str
) -> None:
    for number in range(2):
        config = table_config().model_dump(by_alias=True, exclude_none=True, mode="json") | {"table": f"t{number}"}
        if number >= pulls:
            del config["pull"]
        (tmp_path / f"t{number}.yaml").write_text(yaml.safe_dump(config))
    job = {
        "aws": {"region": "us-east-1", "endpoint": "http://127.0.0.1:1"},
        "source": {"stream": "s"},
        "lake": {"root": str(tmp_path / "lake"), "checkpoint": str(tmp_path / "checkpoint")},
        "tables": ["t0", "t1"],
        "tables_dir": str(tmp_path),
    }
    file = tmp_path / "job" / "job.yaml"
    file.parent.mkdir()
    file.write_text(yaml.safe_dump(job))
    result = CliRunner().invoke(app, ["pull", *arguments, "--config", str(file)])
    assert isinstance(result.exception, ConfigurationError), result
    assert said in str(result.exception)

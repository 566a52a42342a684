"""`archive` on the command line: usage, JSON, examples, and the statements for other engines."""

import json
import re
from decimal import Decimal
from pathlib import Path

import orjson
import pytest
from typer.testing import CliRunner

from bridge_lambda.envelope import encode_change
from bridge_lambda.masks import Mask
from bridge_lambda.rules import TableRules
from config.errors import LakestreamError
from streaming_job.operations.archive import app, printable
from streaming_job.operations.archive_statements import EXAMPLES, athena, spark

BIGGEST = "99999999999999999999999999999999999999"

# --- the command ------------------------------------------------------------------------------------------------------


def test_json_carries_numbers_as_literals_with_all_their_digits() -> None:
    values = {"a": Decimal(BIGGEST), "b": [Decimal("0.10"), 2**70, b"\xff"], "c": {"d": True, "e": None}}
    assert (
        orjson.dumps(printable(values)).decode()
        == f'{{"a":{BIGGEST},"b":[0.10,{2**70},"/w=="],"c":{{"d":true,"e":null}}}}'
    )


@pytest.mark.parametrize(
    "arguments",
    [
        ["query", "DROP TABLE x"],
        ["query", "SELECT 1", "--from", "yesterday"],
        ["query", "SELECT 1", "--from", "2026-01-02", "--to", "2026-01-01"],
        ["query", "SELECT 1", "--config", "/nowhere.yaml"],
        ["examples", "nope"],
        ["statements", "oracle", "--bucket", "b-b-b", "--prefix", "a/"],
        ["statements", "athena", "--bucket", "b-b-b", "--prefix", "a/", "--name", "x; DROP TABLE y"],
        ["statements", "athena", "--bucket", "b-b-b", "--prefix", "a/", "--since", "x','y"],
    ],
)
def test_wrong_usage_is_said_in_words_with_exit_code_2(arguments: list[str]) -> None:
    error = CliRunner().invoke(app, arguments).exception
    assert isinstance(error, LakestreamError)
    assert error.exit_code == 2


def test_examples_are_printed_by_name_and_as_json() -> None:
    runner = CliRunner()
    assert runner.invoke(app, ["examples", "unreadable"]).stdout == "SELECT * FROM unreadable\n"
    assert set(json.loads(runner.invoke(app, ["examples", "--json"]).stdout)) == {example.name for example in EXAMPLES}


@pytest.mark.parametrize(("engine", "count"), [("athena", 3), ("databricks", 2), ("spark", 4)])
def test_statements_as_json_are_what_is_printed_one_by_one_without_remarks(engine: str, count: int) -> None:
    asked = ["statements", engine, "--bucket", "my-bucket", "--prefix", "archive/"]
    printed = CliRunner().invoke(app, asked).stdout
    found = json.loads(CliRunner().invoke(app, [*asked, "--json"]).stdout)
    assert len(found) == count
    assert all(statement in printed for statement in found)
    assert all(re.match("CREATE|MSCK", statement) and not statement.endswith(";") for statement in found)


def test_statements_for_athena_name_every_field_of_the_envelope_and_its_place() -> None:
    text = athena("lake.changes", "my-bucket", "archive/", "2026-01-01")
    fields = json.loads((Path(__file__).parents[2] / "config" / "envelope.schema.json").read_text())["properties"]
    assert all(f"'$.{field}')" in text or f" AS {field}" in text for field in fields)
    assert """regexp_extract(line, '"key":(\\{.*?\\}),"new":', 1)""" in text
    assert "LOCATION 's3://my-bucket/archive/'" in text
    assert "'s3://my-bucket/archive/date=${date}/hour=${hour}/'" in text


def test_athenas_view_takes_the_key_as_it_stands_in_a_line_of_the_bridge() -> None:
    rules = TableRules("cars", "1", ("id",), Mask(), None, keep_old_image=True, filter=None, origin=None)
    key = 'a"},"new":{"x'
    record = {
        "eventID": "e",
        "eventName": "INSERT",
        "eventSourceARN": "arn:aws:dynamodb:us-east-1:1:table/cars/stream/2026-01-01T00:00:00.000",
        "dynamodb": {"Keys": {"id": {"S": key}}, "SequenceNumber": "1", "NewImage": {"id": {"S": key}}},
    }
    change = encode_change(record, {"cars": rules}, 1, "bucket")
    assert change is not None
    pattern = re.search(r"regexp_extract\(line, '(.*?)', 1\)", athena("changes", "b", "a/", "2026-01-01"))
    assert pattern is not None
    found = re.search(pattern[1], change.line(1).decode())
    assert found is not None
    assert found[1] == json.dumps({"id": key}, separators=(",", ":"))


@pytest.mark.parametrize("databricks", [True, False])
def test_statements_for_spark_name_every_field_of_the_envelope_and_its_place(*, databricks: bool) -> None:
    text = spark("changes", "s3://my-bucket/archive/", databricks=databricks)
    fields = json.loads((Path(__file__).parents[2] / "config" / "envelope.schema.json").read_text())["properties"]
    assert all(f"{field} " in text for field in fields if field != "key")
    assert """regexp_extract(line, r'"key":(\\{.*?\\}),"new":', 1) AS key""" in text
    assert "'s3://my-bucket/archive/'" in text

"""`doctor` as a person calls it, on the emulator: what is well is said to be, each fault is named with its mend."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from local_workers import REGION, Aws, running_emulator
from typer.testing import CliRunner

from streaming_job.cli import app

pytestmark = pytest.mark.stack

TABLE = "chargeminder-car-telemetry"
BUCKET = "examined"
STREAM = "examined"


@pytest.fixture(scope="module")
def aws(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Aws]:
    with running_emulator(tmp_path_factory.mktemp("emulator")) as running:
        running("s3").create_bucket(Bucket=BUCKET)
        running.stream(STREAM)
        running("kinesis").increase_stream_retention_period(StreamName=STREAM, RetentionPeriodHours=168)
        running("dynamodb").create_table(
            TableName=TABLE,
            KeySchema=[{"AttributeName": "event_id", "KeyType": "HASH"}],
            AttributeDefinitions=[{"AttributeName": "event_id", "AttributeType": "S"}],
            BillingMode="PAY_PER_REQUEST",
            StreamSpecification={"StreamEnabled": True, "StreamViewType": "NEW_AND_OLD_IMAGES"},
        )
        yield running


def settings(aws: Aws, folder: Path, **changes: Any) -> dict[str, Any]:
    return {
        "aws": {"region": REGION, "endpoint": aws.endpoint},
        "source": {"stream": STREAM},
        "lake": {"root": str(folder / "lake"), "checkpoint": str(folder / "checkpoint")},
        "tables": [TABLE],
        "bucket": {"name": BUCKET},
    } | changes


def examine(content: dict[str, Any], folder: Path) -> tuple[int, list[dict[str, str]]]:
    file = folder / "job.yaml"
    file.write_text(yaml.safe_dump(content))
    answer = CliRunner().invoke(app, ["doctor", "--config", str(file), "--json"], catch_exceptions=False)
    return answer.exit_code, json.loads(answer.stdout)["findings"]


def of_level(findings: list[dict[str, str]], *levels: str) -> list[dict[str, str]]:
    return [finding for finding in findings if finding["level"] in levels]


def test_what_is_well_is_said_to_be_and_each_other_finding_has_a_mend(aws: Aws, tmp_path: Path) -> None:
    _, findings = examine(settings(aws, tmp_path), tmp_path)
    well = {finding["check"] for finding in of_level(findings, "ok")}
    assert {f"table {TABLE}", f"stream {STREAM}", f"reading {STREAM}", f"reading {TABLE}", f"bucket {BUCKET}"} <= well
    assert {"rules", "versions", "clock", "room"} <= well
    assert all(finding["mend"] for finding in of_level(findings, "warning", "problem"))


@pytest.mark.parametrize(
    ("changes", "check", "what"),
    [
        ({"source": {"stream": "nowhere"}}, "stream nowhere", "no such stream"),
        ({"bucket": {"name": "no-such-bucket"}}, "bucket no-such-bucket", "no such bucket"),
        ({"tables": ["unruled"]}, "rules", "no rules file for unruled"),
        (
            {"source": {"stream": STREAM, "consumer_mode": "efo", "consumer_name": "job"}},
            "consumer job",
            "not registered",
        ),
    ],
)
def test_a_wrong_name_is_a_problem_with_its_mend(
    aws: Aws, tmp_path: Path, changes: dict[str, Any], check: str, what: str
) -> None:
    code, findings = examine(settings(aws, tmp_path, **changes), tmp_path)
    (found,) = [finding for finding in of_level(findings, "problem") if what in finding["what"]]
    assert (code, found["check"]) == (8, check)
    assert found["mend"]


def test_an_address_where_nobody_answers_hides_no_other_finding(tmp_path: Path) -> None:
    code, findings = examine(settings(Aws("http://127.0.0.1:9"), tmp_path), tmp_path)
    assert code == 8
    assert any("127.0.0.1:9" in finding["what"] and finding["mend"] for finding in of_level(findings, "problem"))
    assert {finding["check"] for finding in of_level(findings, "ok")} >= {"rules", "versions", "room"}


def test_dead_letters_and_marks_of_possible_loss_are_pointed_out(aws: Aws, tmp_path: Path) -> None:
    s3 = aws("s3")
    for name in ("dead-letters/cars/x.json", "unproven/cars/1-near-expiry-1.json"):
        s3.put_object(Bucket=BUCKET, Key=name, Body=b"{}")
    s3.put_object(Bucket=BUCKET, Key="archive/date=2026-01-01/hour=07/x.gz", Body=b"x")
    _, findings = examine(settings(aws, tmp_path), tmp_path)
    said = " ".join(finding["what"] for finding in findings)
    assert "1 dead letters wait" in said
    assert "may have been lost of cars" in said
    assert "date=2026-01-01/hour=07" in said

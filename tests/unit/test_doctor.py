"""What `doctor` makes of an AWS that is not well: a table of faults, each with the finding it must lead to."""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pytest
from botocore.exceptions import ClientError, EndpointConnectionError, NoCredentialsError
from deltalake import write_deltalake
from envelopes import put
from lake_rig import table_config
from lanes_rig import LanesRig

from config.errors import ConfigurationError
from config.settings import AwsSettings, LakeSettings, Settings, SourceSettings
from config.tables import BridgeRules, KeyAttribute, LakeRules, TableConfig
from streaming_job.operations.doctor_findings import Finding, Level, examined
from streaming_job.operations.doctor_lag import BridgeLag, Lag, job_lag
from streaming_job.operations.doctor_machine import room, tables, versions
from streaming_job.operations.doctor_source import Source

NOW = datetime(2026, 1, 10, tzinfo=UTC)
CREATED = datetime(2026, 1, 1, tzinfo=UTC)
CARS = TableConfig(table="cars", version=1, key=(KeyAttribute(name="id"),), lake=LakeRules(name="cars"))
WELL_TABLE: Mapping[str, Any] = {
    "StreamSpecification": {"StreamEnabled": True, "StreamViewType": "NEW_AND_OLD_IMAGES"},
    "LatestStreamArn": "arn",
    "KeySchema": [{"AttributeName": "id", "KeyType": "HASH"}],
    "AttributeDefinitions": [
        {"AttributeName": "id", "AttributeType": "S"},
        {"AttributeName": "x", "AttributeType": "N"},
    ],
}
WELL_MAPPING: Mapping[str, Any] = {
    "State": "Enabled",
    "StartingPosition": "TRIM_HORIZON",
    "FunctionResponseTypes": ["ReportBatchItemFailures"],
    "MaximumRetryAttempts": 1000,
    "DestinationConfig": {"OnFailure": {"Destination": "arn:aws:s3:::x"}},
}
WELL_STREAM: Mapping[str, Any] = {
    "StreamStatus": "ACTIVE",
    "RetentionPeriodHours": 168,
    "OpenShardCount": 1,
    "EncryptionType": "KMS",
    "StreamCreationTimestamp": CREATED,
}


def settings(folder: Path) -> Settings:
    return Settings(
        aws=AwsSettings(region="us-east-1"),
        source=SourceSettings(stream="changes"),
        lake=LakeSettings(root=str(folder / "lake"), checkpoint=str(folder / "checkpoint")),
        tables=("cars",),
    )


def denied(code: str, operation: str) -> ClientError:
    return ClientError({"Error": {"Code": code, "Message": "no"}}, operation)


class FaultyAws:
    """Every service in one, as well as its parts are."""

    def __init__(
        self,
        *,
        table: Mapping[str, Any] = {},
        mapping: Mapping[str, Any] | None = {},
        stream: Mapping[str, Any] = {},
        ttl: str | None = None,
        pipe: str | None = None,
        date: datetime = NOW,
    ) -> None:
        self.table = {**WELL_TABLE, **table}
        self.mappings = [] if mapping is None else [{**WELL_MAPPING, **mapping}]
        self.stream = {**WELL_STREAM, **stream}
        self.ttl = ttl
        self.pipe = pipe
        self.date = date

    def describe_table(self, **_: Any) -> Any:
        return {"Table": self.table}

    def describe_time_to_live(self, **_: Any) -> Any:
        status = {"TimeToLiveStatus": "ENABLED" if self.ttl else "DISABLED", "AttributeName": self.ttl}
        return {"TimeToLiveDescription": status}

    def list_event_source_mappings(self, **_: Any) -> Any:
        return {"EventSourceMappings": self.mappings}

    def list_pipes(self, **_: Any) -> Any:
        if self.pipe is None:
            raise denied("AccessDeniedException", "ListPipes")
        return {"Pipes": [{"Name": "bridge", "CurrentState": self.pipe}]}

    def describe_stream_summary(self, **_: Any) -> Any:
        return {"StreamDescriptionSummary": self.stream}

    def list_streams(self, **_: Any) -> Any:
        return {"ResponseMetadata": {"HTTPHeaders": {"date": f"{self.date:%a, %d %b %Y %H:%M:%S GMT}"}}}


def check_all(aws: FaultyAws, folder: Path, config: TableConfig = CARS) -> list[Finding]:
    source = Source(settings(folder), lambda _: aws, NOW.timestamp)
    return [*source.table(config), *source.mapping(config), *source.stream(), *source.clock()]


def test_where_all_is_well_nothing_else_is_said(tmp_path: Path) -> None:
    assert {finding.level for finding in check_all(FaultyAws(), tmp_path)} == {Level.OK}


@pytest.mark.parametrize(
    ("aws", "level", "what"),
    [
        ({"table": {"StreamSpecification": {}}}, Level.PROBLEM, "has no stream"),
        (
            {"table": {"StreamSpecification": {"StreamEnabled": True, "StreamViewType": "KEYS_ONLY"}}},
            Level.PROBLEM,
            "every change is a dead letter",
        ),
        (
            {"table": {"StreamSpecification": {"StreamEnabled": True, "StreamViewType": "NEW_IMAGE"}}},
            Level.WARNING,
            "no old images",
        ),
        ({"table": {"KeySchema": [{"AttributeName": "x", "KeyType": "HASH"}]}}, Level.PROBLEM, "its key is x (N)"),
        ({"ttl": "expires_at"}, Level.WARNING, "expires by expires_at"),
        ({"mapping": None}, Level.PROBLEM, "no event source mapping"),
        ({"mapping": None, "pipe": "STOPPED"}, Level.PROBLEM, "no event source mapping"),
        ({"mapping": {"State": "Disabled"}}, Level.PROBLEM, "is Disabled"),
        ({"mapping": {"StartingPosition": "LATEST"}}, Level.WARNING, "started at LATEST"),
        ({"mapping": {"FunctionResponseTypes": []}}, Level.PROBLEM, "partial failures"),
        ({"mapping": {"DestinationConfig": {}}}, Level.PROBLEM, "no destination"),
        ({"stream": {"RetentionPeriodHours": 24}}, Level.WARNING, "keeps 24 h"),
        ({"stream": {"StreamStatus": "DELETING"}}, Level.PROBLEM, "it is DELETING"),
        ({"stream": {"EncryptionType": "NONE"}}, Level.WARNING, "not encrypted"),
        ({"date": NOW - timedelta(seconds=30)}, Level.WARNING, "30 s from AWS's"),
    ],
)
def test_each_fault_is_found_and_has_its_mend(tmp_path: Path, aws: dict[str, Any], level: Level, what: str) -> None:
    (found,) = [finding for finding in check_all(FaultyAws(**aws), tmp_path) if finding.level is not Level.OK]
    assert found.level is level
    assert what in found.what
    assert found.mend


def test_a_pipe_in_place_of_a_mapping_is_well(tmp_path: Path) -> None:
    assert {finding.level for finding in check_all(FaultyAws(mapping=None, pipe="RUNNING"), tmp_path)} == {Level.OK}


def test_a_ttl_that_only_the_rules_know_is_pointed_out(tmp_path: Path) -> None:
    config = CARS.model_copy(update={"bridge": BridgeRules(ttl_attribute="expires_at")})
    found = [finding for finding in check_all(FaultyAws(), tmp_path, config) if finding.level is Level.WARNING]
    assert ["its rules say expires_at" in finding.what for finding in found] == [True]


@pytest.mark.parametrize(
    ("error", "mend"),
    [
        (denied("AccessDeniedException", "DescribeTable"), "allow dynamodb:DescribeTable"),
        (denied("ExpiredTokenException", "DescribeTable"), "credentials"),
        (denied("SomethingNew", "DescribeTable"), "SomethingNew"),
        (NoCredentialsError(), "credentials"),
        (EndpointConnectionError(endpoint_url="http://nowhere"), "aws.endpoint"),
        (ConfigurationError("no good", hint="mend it so"), "mend it so"),
        (OSError("Generic S3 error: name or service not known"), "aws.endpoint"),
    ],
)
def test_a_check_that_cannot_look_is_a_problem_with_a_mend(error: Exception, mend: str) -> None:
    def fails() -> Iterator[Finding]:
        raise error
        yield  # what makes it a generator

    (found,) = examined("table cars", fails, "dynamodb:DescribeTable")
    assert found.level is Level.PROBLEM
    assert mend in found.mend


# --- lag --------------------------------------------------------------------------------------------------------------


class BehindKinesis:
    """One shard, with a record so many hours old behind the job's position, after some empty answers."""

    def __init__(self, hours: float | None, *, created: datetime = CREATED) -> None:
        self.arrived = None if hours is None else NOW - timedelta(hours=hours)
        self.created = created
        self.empty = 3
        self.asked: dict[str, Any] = {}

    def describe_stream_summary(self, **_: Any) -> Any:
        return {"StreamDescriptionSummary": {**WELL_STREAM, "StreamCreationTimestamp": self.created}}

    def get_shard_iterator(self, **request: Any) -> Any:
        self.asked = request
        return {"ShardIterator": "it"}

    def get_records(self, **_: Any) -> Any:
        self.empty -= 1
        if self.arrived is None or self.empty >= 0:
            return {"Records": [], "NextShardIterator": "it", "MillisBehindLatest": 0 if self.arrived is None else 1}
        return {"Records": [{"ApproximateArrivalTimestamp": self.arrived}], "NextShardIterator": "it"}


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """As Spark writes it: batch 10 is committed, batch 11 only planned."""
    for name in ("commits", "offsets"):
        (tmp_path / name).mkdir()
    for batch, sequence in ((9, "1"), (10, "42"), (11, "99")):
        created_ms = round(CREATED.timestamp() * 1000)
        shards = {"s-0": {"after": sequence, "seen_ms": 1}}
        offset = json.dumps({"streams": {"changes": {"created_ms": created_ms, "shards": shards}}, "version": 1})
        (tmp_path / "offsets" / str(batch)).write_text(f"v1\n{{}}\n{offset}\n")
    for batch in (9, 10):
        (tmp_path / "commits" / str(batch)).write_text("v1\n{}")
    return tmp_path


@pytest.mark.parametrize(
    ("hours", "level"),
    [(None, Level.OK), (1, Level.OK), (60, Level.WARNING), (125, Level.WARNING), (127, Level.PROBLEM)],
)
def test_lag_is_a_problem_past_three_quarters_of_what_the_stream_keeps(
    checkpoint: Path, hours: float | None, level: Level
) -> None:
    kinesis = BehindKinesis(hours)
    (found,) = Lag(kinesis, NOW.timestamp).findings(str(checkpoint))
    assert found.level is level
    assert kinesis.asked["StartingSequenceNumber"] == "42"


def test_a_stream_that_was_made_anew_is_a_problem(checkpoint: Path) -> None:
    (found,) = Lag(BehindKinesis(None, created=NOW), NOW.timestamp).findings(f"file://{checkpoint}")
    assert (found.level, "made anew" in found.what) == (Level.PROBLEM, True)


@pytest.mark.parametrize(
    ("batch", "text", "mend"),
    [
        (10, "", "name another lake.checkpoint"),
        (10, 'v1\n{}\n{"streams": {"chan', "name another lake.checkpoint"),
        (10, "v1\n{}\n[]", "name another lake.checkpoint"),
        (10, None, "name another lake.checkpoint"),
        (11, "v1", "the batch is run again"),
    ],
)
def test_a_damaged_checkpoint_is_one_problem_that_names_the_file_as_the_job_would(
    checkpoint: Path, batch: int, text: str | None, mend: str
) -> None:
    """Empty, cut off, not ours, gone; of the batch that is only planned too: the job would not start."""
    file = checkpoint / "offsets" / str(batch)
    file.unlink() if text is None else file.write_text(text)
    lag = Lag(BehindKinesis(None), NOW.timestamp)
    (found,) = examined("lag", lambda: lag.findings(str(checkpoint)))
    assert found.level is Level.PROBLEM
    assert f"{file} is damaged" in found.what
    assert mend in found.mend


def test_a_first_batch_that_only_wrote_its_place_down_has_no_lag_yet(checkpoint: Path) -> None:
    (checkpoint / "offsets" / "10").write_text("v1\n{}\n-")
    (found,) = Lag(BehindKinesis(None), NOW.timestamp).findings(str(checkpoint))
    assert found.level is Level.NOTE


@pytest.mark.parametrize("place", ["s3://bucket/checkpoint", "/Volumes/main/cars/checkpoint", "/nowhere/at/all"])
def test_a_lag_that_cannot_be_told_is_a_note(place: str) -> None:
    (found,) = Lag(BehindKinesis(None), NOW.timestamp).findings(place)
    assert found.level is Level.NOTE
    assert ("not on this machine" in found.what) == (place != "/nowhere/at/all")


def test_the_platforms_own_checkpoint_is_not_read_as_ours(checkpoint: Path) -> None:
    """Its offsets are of another form: read as ours they would be a problem where there is none."""
    (checkpoint / "offsets" / "10").write_text('v1\n{}\n{"shardId-0": {"version": 7}}')
    of_databricks = settings(checkpoint).model_copy(
        update={"source": SourceSettings(stream="changes", connector="databricks")}
    )
    (found,) = job_lag(of_databricks, BehindKinesis(None), NOW.timestamp)
    assert (found.level, "/metrics" in found.mend) == (Level.NOTE, True)


class CloudWatchOfLambda:
    """The ages of the bridge's last batches, in hours, a minute apart."""

    def __init__(self, *ages_h: float) -> None:
        self.ages_h = ages_h
        self.asked: dict[str, Any] = {}

    def get_metric_statistics(self, **request: Any) -> Any:
        self.asked = request
        minutes = range(len(self.ages_h))
        points = [
            {"Timestamp": NOW + timedelta(minutes=minute), "Maximum": self.ages_h[minute] * 3_600_000}
            for minute in reversed(minutes)
        ]
        return {"Datapoints": points}


@pytest.mark.parametrize(
    ("ages_h", "level"),
    [((), Level.NOTE), ((0.01,), Level.OK), ((20, 7), Level.WARNING), ((1, 18.1), Level.PROBLEM)],
)
def test_a_bridge_past_three_quarters_of_what_the_tables_stream_keeps_is_a_problem(
    ages_h: tuple[float, ...], level: Level
) -> None:
    cloudwatch = CloudWatchOfLambda(*ages_h)
    arn = "arn:aws:lambda:us-east-1:123456789012:function:stack-Bridge:live"
    aws = FaultyAws(mapping={"FunctionArn": arn})
    bridges = Source(settings(Path()), lambda _: aws, NOW.timestamp).bridges(CARS)
    (found,) = BridgeLag(cloudwatch, NOW.timestamp).findings("cars", bridges)
    assert found.level is level
    assert found.mend or level in (Level.OK, Level.NOTE)
    assert cloudwatch.asked["Dimensions"] == [{"Name": "FunctionName", "Value": "stack-Bridge"}]


def test_a_bridge_behind_a_pipe_is_judged_by_its_own_figure() -> None:
    """Lambda has none of it."""
    cloudwatch = CloudWatchOfLambda(18.1)
    source = Source(settings(Path()), lambda _: FaultyAws(mapping=None, pipe="RUNNING"), NOW.timestamp)
    (found,) = BridgeLag(cloudwatch, NOW.timestamp).findings("cars", source.bridges(CARS), source.pipes(CARS))
    assert found.level is Level.PROBLEM
    assert (cloudwatch.asked["Namespace"], cloudwatch.asked["MetricName"]) == ("lakestream", "iterator_age_ms")
    named = {dimension["Name"]: dimension["Value"] for dimension in cloudwatch.asked["Dimensions"]}
    assert named == {"service": "bridge", "table": "cars"}


# --- machine and lake -------------------------------------------------------------------------------------------------


def test_versions_that_were_tried_together_are_what_is_installed_here() -> None:
    assert {finding.level for finding in versions()} == {Level.OK}


def test_a_folder_without_room_or_rights_is_pointed_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert {finding.level for finding in room(settings(tmp_path))} == {Level.OK}
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=10))
    monkeypatch.setattr("os.access", lambda *_: False)
    assert {finding.level for finding in room(settings(tmp_path))} == {Level.WARNING, Level.PROBLEM}


def test_a_workspaces_volume_looked_at_from_elsewhere_is_no_folder_without_rights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.access", lambda *_: False)
    volume = "/Volumes/main/cars"
    elsewhere = LakeSettings(root=f"{volume}/lake", checkpoint=f"{volume}/checkpoint")
    assert list(room(settings(tmp_path).model_copy(update={"lake": elsewhere}))) == []


Prepare = Callable[[Path], None]


def plain(path: Path) -> None:
    write_deltalake(path, pa.table({"a": [1]}))


def with_deletion_vectors(path: Path) -> None:
    write_deltalake(path, pa.table({"a": [1]}), configuration={"delta.enableDeletionVectors": "true"})


def append_only(path: Path) -> None:
    write_deltalake(path, pa.table({"a": [1]}), configuration={"delta.appendOnly": "true"})


def broken(path: Path) -> None:
    plain(path)
    (path / "_delta_log" / f"{0:020d}.json").write_text("not a log")


@pytest.mark.parametrize(
    ("prepare", "level"),
    [(plain, Level.OK), (with_deletion_vectors, Level.PROBLEM), (append_only, Level.PROBLEM), (broken, Level.PROBLEM)],
)
def test_a_table_that_its_engine_cannot_write_is_a_problem(tmp_path: Path, prepare: Prepare, level: Level) -> None:
    prepare(tmp_path / "lake" / "cars" / "current")
    found = list(examined("lake", lambda: tables(settings(tmp_path), {"cars": CARS})))
    assert found[0].level is level
    assert found[0].mend or level is Level.OK


def test_a_table_that_is_unproven_and_changes_that_were_refused_are_pointed_out(lake: Path) -> None:
    """Changes of a stream made anew, then of one made before both."""
    rig = LanesRig(lake, table_config("cars"))
    labels = ("20270101000000000", "20240101000000000")
    anew, older = (replace(put("a", 1), table="cars", generation=made) for made in labels)
    rig.run([replace(put("a", 1), table="cars")], [anew], [older])
    found = [finding for finding in tables(rig.settings, {"cars": rig.config}) if finding.level is Level.WARNING]
    assert [finding.check.rpartition("/")[2] for finding in found] == ["current", "order of cars"]
    assert "unproven" in found[0].what
    assert "1 changes wait" in found[1].what
    assert all(finding.mend for finding in found)

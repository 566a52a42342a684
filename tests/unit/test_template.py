"""The template's parameters, expressions and our judgement of them: pure, before any call is made."""

from pathlib import Path
from typing import Any

import pytest
from templates import BOOTSTRAP, TEMPLATE

from config.errors import ConfigurationError, LakestreamError
from config.limits import DYNAMODB_STREAM_RETENTION_H, RETENTION_GUARD
from infra import validate
from infra.deploy import DeploySettings
from infra.local.deployment import validated
from infra.local.dropped import APPLIED, DROPPED, HANDLED, LEFT_OUT
from infra.local.errors import NotPossibleError
from infra.template_model import TEMPLATE_BYTES_MAX, Template
from infra.template_values import Values
from infra.validate import NotDeployableError

REGION = "us-east-1"


def values(content: dict[str, Any], parameters: dict[str, str] | None = None, **made: dict[str, str]) -> Values:
    pseudo = {"AWS::Region": REGION, "AWS::Partition": "aws"}
    return Values(Template(Path("t.yaml"), content), parameters or {}, pseudo, **made)


def judged(**parameters: str | int | bool) -> Values:
    return validated(Template.load(TEMPLATE), DeploySettings(region=REGION, stack="s", parameters=parameters))


# --- reading ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("path", "bytes_max"), [(TEMPLATE, TEMPLATE_BYTES_MAX), (BOOTSTRAP, 51_200)])
def test_a_shipped_template_fits_into_its_bucket_and_the_buckets_own_into_the_call(path: Path, bytes_max: int) -> None:
    assert len(Template.load(path).body.encode()) <= bytes_max


def test_a_template_too_large_to_send_says_so() -> None:
    content = {"Resources": {"A": {"Metadata": "x" * TEMPLATE_BYTES_MAX}}}
    with pytest.raises(ConfigurationError, match="CloudFormation takes 1000000"):
        _ = Template(Path("t.yaml"), content).body


@pytest.mark.parametrize(("text", "said"), [("a: [", "is not YAML"), ("a: 1", "is not a CloudFormation template")])
def test_a_file_that_is_no_template_is_named(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "t.yaml").write_text(text)
    with pytest.raises(ConfigurationError, match=said):
        Template.load(tmp_path / "t.yaml")


def test_a_template_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="cannot read"):
        Template.load(tmp_path / "none.yaml")


def test_short_forms_are_spelled_out(tmp_path: Path) -> None:
    (tmp_path / "t.yaml").write_text(
        "Resources:\n  A: {B: !Ref C, D: !GetAtt E.F.G, H: !Sub 'x${Y}', I: !If [J, {K: !Ref L}, 1], M: !Condition N}\n"
    )
    assert Template.load(tmp_path / "t.yaml").resources["A"] == {
        "B": {"Ref": "C"},
        "D": {"Fn::GetAtt": ["E", "F.G"]},
        "H": {"Fn::Sub": "x${Y}"},
        "I": {"Fn::If": ["J", {"K": {"Ref": "L"}}, 1]},
        "M": {"Condition": "N"},
    }


# --- parameters -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("RetentionHours", 12, "must be one of 24, 48"),
        ("ShardCount", 0, "must be from 1 to"),
        ("BatchSize", 20_000, "must be from 1 to 10000"),
        ("WindowSeconds", "soon", "which is no number"),
        ("StreamMode", "SOMETIMES", "must be one of ON_DEMAND, PROVISIONED"),
        ("AgeMaxSeconds", 30, "which cannot be"),
        ("AgeMaxSeconds", 604_801, "which cannot be"),
        ("ExistingTableStreamArn", "my-table", "which cannot be"),
        ("Shards", 2, "the template knows no parameter 'Shards'"),
    ],
)
def test_a_parameter_that_cannot_be_is_refused_by_name(name: str, value: str | int, said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        judged(**{name: value})


def test_a_parameter_without_a_value_is_named() -> None:
    with pytest.raises(ConfigurationError, match="parameter ArtefactBucket has no value"):
        Template.load(TEMPLATE).parameters({})


@pytest.mark.parametrize("seconds", [-1, 60, 99, 100, 72_000, 599_999, 600_999, 604_799, 604_800])
def test_every_age_that_lambda_takes_is_taken(seconds: int) -> None:
    assert judged(AgeMaxSeconds=seconds).parameters["AgeMaxSeconds"] == str(seconds)


def test_a_boolean_is_written_as_cloudformation_does() -> None:
    assert judged(BisectOnError=False).parameters["BisectOnError"] == "false"


def test_everybody_is_told_when_an_unread_change_has_used_up_what_the_guard_allows_of_any_retention() -> None:
    """By Kinesis for whoever reads the stream, by the job for itself, and by Lambda for the table's stream."""
    for hours in Template.load(TEMPLATE).content["Parameters"]["RetentionHours"]["AllowedValues"]:
        told_ms = judged(RetentionHours=hours).properties("RetentionGuardAlarm")["Threshold"]
        assert told_ms == hours * 3_600_000 * RETENTION_GUARD
    watched = judged(JobSilentMinutes=5)
    assert watched.properties("JobRetentionAlarm")["Threshold"] == RETENTION_GUARD * 100
    bridge_ms = watched.properties("TableStreamRetentionAlarm")["Threshold"]
    assert bridge_ms == DYNAMODB_STREAM_RETENTION_H * 3_600_000 * RETENTION_GUARD


# --- expressions ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ({"Ref": "P"}, "v"),
        ({"Ref": "Made"}, "made-1"),
        ({"Ref": "Unmade"}, "<Unmade>"),
        ({"Fn::GetAtt": ["Key", "Arn"]}, "arn:key"),
        ({"Fn::Sub": "${AWS::Region}/${P}/${Key.Arn}/${!Literal}"}, f"{REGION}/v/arn:key/${{!Literal}}"),
        ({"Fn::Sub": ["${X}-${P}", {"X": {"Ref": "Made"}}]}, "made-1-v"),
        ({"Fn::If": ["Yes", 1, 2]}, 1),
        ({"Fn::If": ["No", 1, 2]}, 2),
        ({"Fn::Select": [1, {"Fn::Split": ["/", "a/b/c"]}]}, "b"),
        ({"Fn::FindInMap": ["M", {"Ref": "P"}, "x"]}, 7),
        ([1, {"Ref": "AWS::NoValue"}, 2], [1, 2]),
        ({"a": {"Ref": "AWS::NoValue"}, "b": 1}, {"b": 1}),
        ({"Condition": "Both"}, False),
        ({"Condition": "Either"}, True),
    ],
)
def test_an_expression_comes_to_what_cloudformation_makes_of_it(expression: Any, value: Any) -> None:
    content = {
        "Resources": {},
        "Mappings": {"M": {"v": {"x": 7}}},
        "Conditions": {
            "Yes": {"Fn::Equals": [{"Ref": "P"}, "v"]},
            "No": {"Fn::Not": [{"Condition": "Yes"}]},
            "Both": {"Fn::And": [{"Condition": "Yes"}, {"Condition": "No"}]},
            "Either": {"Fn::Or": [{"Condition": "Yes"}, {"Condition": "No"}]},
        },
    }
    known = values(content, {"P": "v"}, physical={"Made": "made-1"}, attributes={"Key.Arn": "arn:key"})
    assert known.of(expression) == value


def test_a_function_our_templates_do_not_use_is_not_guessed() -> None:
    with pytest.raises(NotImplementedError, match="Fn::Cidr"):
        values({"Resources": {}}).of({"Fn::Cidr": ["10.0.0.0/8", 1, 1]})


# --- judgement --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("properties", "said"),
    [
        ({"RetentionPeriodHours": 12}, "Stream: a retention of 12 hours cannot be"),
        ({"RetentionPeriodHours": 9000}, "Stream: a retention of 9000 hours cannot be"),
        ({"ShardCount": 0}, "Stream: 0 shards cannot be"),
    ],
)
def test_a_stream_the_emulator_would_silently_take_is_refused(properties: dict[str, int], said: str) -> None:
    content = {"Resources": {"Stream": {"Type": "AWS::Kinesis::Stream", "Properties": properties}}}
    with pytest.raises(NotDeployableError, match=said):
        validate.check_values(values(content))


@pytest.mark.parametrize("kind", sorted(validate.EMULATOR_REFUSES))
def test_a_type_the_emulator_refuses_is_named_before_anything_starts(kind: str) -> None:
    content = {"Resources": {"Thing": {"Type": kind}}}
    with pytest.raises(NotDeployableError, match=f"Thing: the emulator refuses {kind}"):
        validate.check_emulator(values(content), HANDLED, DROPPED)


def test_an_alarm_on_metric_math_is_refused() -> None:
    content = {"Resources": {"A": {"Type": "AWS::CloudWatch::Alarm", "Properties": {"Metrics": []}}}}
    with pytest.raises(NotDeployableError, match="alarms on metric math"):
        validate.check_emulator(values(content), HANDLED, DROPPED)


def test_a_property_that_is_dropped_and_that_nobody_applies_is_named() -> None:
    content = {"Resources": {"T": {"Type": "AWS::DynamoDB::Table", "Properties": {"KinesisStreamSpecification": {}}}}}
    with pytest.raises(NotDeployableError, match="T: the emulator drops KinesisStreamSpecification"):
        validate.check_emulator(values(content), HANDLED, DROPPED)


def test_a_resource_whose_condition_does_not_hold_is_not_judged() -> None:
    content = {
        "Conditions": {"Never": {"Fn::Equals": ["a", "b"]}},
        "Resources": {"Thing": {"Type": "AWS::Athena::NamedQuery", "Condition": "Never"}},
    }
    validate.check_emulator(values(content), HANDLED, DROPPED)


def test_every_dropped_property_is_applied_or_has_its_reason_not_both() -> None:
    assert not APPLIED.keys() & LEFT_OUT.keys()
    assert all(len(reason) > 15 for reason in LEFT_OUT.values())


REGIONS = {"dynamodb": ["us-east-1", "xx-new-1"], "s3": ["us-east-1", "xx-new-1"]}


def regions_of(service: str) -> list[str]:
    """A new region where Firehose is not yet."""
    return REGIONS.get(service, ["us-east-1"] if service == "firehose" else ["us-east-1", "xx-new-1"])


def test_a_region_without_a_service_is_refused() -> None:
    with pytest.raises(NotDeployableError, match="Archive: region xx-new-1 has no firehose"):
        validate.check_region(judged(), "xx-new-1", regions_of)


def test_a_region_that_does_not_exist_is_refused() -> None:
    with pytest.raises(LakestreamError, match="there is no region 'us-esat-1'"):
        validated(Template.load(TEMPLATE), DeploySettings(region="us-esat-1", stack="s"))


def test_the_local_stack_says_what_it_does_not_run() -> None:
    with pytest.raises(NotPossibleError, match="not pipes"):
        judged(BridgeVia="PIPES")
    with pytest.raises(NotPossibleError, match="nothing to reuse for ExistingBucketName"):
        judged(ExistingBucketName="mine")

"""`lakestream deploy` against an emulator: planned, made, changed, left alone, and refused where it must be."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from local_workers import Aws, running_emulator

from config.errors import ConfigurationError
from config.rules import TABLES, compile_rules
from config.settings import load_settings
from infra.artefact import ROOT, Artefact, own_files
from infra.deploy import TEMPLATE, DeployError, Deployment, DeploySettings, judged, load_deploy_settings
from infra.local import emulator
from infra.template_model import Template
from infra.validate import NotDeployableError, stack_status

pytestmark = pytest.mark.stack


@pytest.fixture(scope="module")
def aws(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Aws]:
    with running_emulator(tmp_path_factory.mktemp("deploy")) as emulator:
        yield emulator


@pytest.fixture(scope="module")
def artefact() -> Artefact:
    """Without the libraries: what is tested here is how it gets there."""
    return Artefact(own_files(compile_rules(TABLES)))


def settings(stack: str, **parameters: Any) -> DeploySettings:
    table = f"{stack}-table"
    return DeploySettings(region="us-east-1", stack=stack, parameters={"TableName": table, **parameters})


def deployment(settings: DeploySettings, aws: Aws, artefact: Artefact, *, template: Path = TEMPLATE) -> Deployment:
    values = judged(settings, Template.load(template), artefact_key=artefact.key)
    return Deployment(settings, values, aws, artefact)


def silent(_: str) -> None:
    return


@pytest.mark.parametrize("name", ["dev.yaml", "prod.yaml"])
def test_a_shipped_configuration_can_be_deployed(name: str, aws: Aws, artefact: Artefact) -> None:
    shipped = load_deploy_settings(ROOT / "config" / name)
    assert deployment(shipped, aws, artefact).plan().changes


def test_a_first_deployment_shows_every_resource_and_makes_it(aws: Aws, artefact: Artefact) -> None:
    first = deployment(settings("first"), aws, artefact)
    plan = first.plan()
    assert not plan.exists
    assert plan.makes_artefact_bucket
    assert {change.action for change in plan.changes} == {"Add"}
    assert stack_status(aws, "first") is None, "a plan changes nothing"

    outputs = first.execute(plan, silent)
    made = aws("cloudformation").describe_stack_resources(StackName="first")["StackResources"]
    assert {resource["LogicalResourceId"] for resource in made} == {change.logical_id for change in plan.changes}
    assert outputs["TableName"] == "first-table"
    code = aws("lambda").get_function(FunctionName=outputs["BridgeName"])
    assert code["Configuration"]["Handler"] == "bridge_lambda.handler.handler"


def test_what_is_deployed_as_it_is_has_nothing_to_change(aws: Aws, artefact: Artefact) -> None:
    first = deployment(settings("same"), aws, artefact)
    outputs = first.execute(first.plan(), silent)
    again = deployment(settings("same"), aws, artefact)
    plan = again.plan()
    assert plan.exists
    assert plan.changes == ()
    assert again.execute(plan, silent) == outputs


def test_a_changed_parameter_is_planned_as_what_it_changes_and_changes_it(aws: Aws, artefact: Artefact) -> None:
    first = deployment(settings("changed", BatchSize=100), aws, artefact)
    first.execute(first.plan(), silent)
    second = deployment(settings("changed", BatchSize=200), aws, artefact)
    plan = second.plan()
    # The emulator counts in what refers to it, and what its condition rules out.
    assert ("Modify", "BridgeMapping") in {(change.action, change.logical_id) for change in plan.changes}
    assert not {"Bridge", "ChangeStream", "Table", "Bucket"} & {change.logical_id for change in plan.changes}
    assert plan.loses == ()
    outputs = second.execute(plan, silent)
    (mapping,) = aws("lambda").list_event_source_mappings(FunctionName=outputs["BridgeName"])["EventSourceMappings"]
    assert mapping["BatchSize"] == 200


def test_another_artefact_is_deployed_under_another_key(aws: Aws, artefact: Artefact) -> None:
    first = deployment(settings("code"), aws, artefact)
    first.execute(first.plan(), silent)
    newer = deployment(settings("code"), aws, Artefact({**artefact.files, "more.py": b""}))
    plan = newer.plan()
    assert "Bridge" in {change.logical_id for change in plan.changes}
    outputs = newer.execute(plan, silent)
    before = artefact.key
    objects = aws.objects(_outputs(aws, "code-artefacts")["ArtefactBucket"])
    assert {before} < objects.keys(), "a rollback finds the version before"
    assert aws("lambda").get_function_configuration(FunctionName=outputs["BridgeName"])["CodeSize"] > 0


def _outputs(aws: Aws, stack: str) -> dict[str, str]:
    found = aws("cloudformation").describe_stacks(StackName=stack)["Stacks"][0]["Outputs"]
    return {output["OutputKey"]: output["OutputValue"] for output in found}


def test_a_plan_that_would_meet_others_resources_is_refused(aws: Aws, artefact: Artefact) -> None:
    aws.table("taken-table")
    with pytest.raises(NotDeployableError, match="Table: taken-table exists already"):
        deployment(settings("taken"), aws, artefact).plan()
    assert stack_status(aws, "taken") is None


def test_a_table_there_is_can_be_reused_by_its_stream(aws: Aws, artefact: Artefact) -> None:
    stream = aws.table("mine")
    # The emulator writes labels without the Z that CloudFormation's attribute has.
    first = deployment(settings("reusing", ExistingTableStreamArn=stream), aws, artefact)
    plan = first.plan()
    assert "Table" not in {change.logical_id for change in plan.changes}
    outputs = first.execute(plan, silent)
    assert (outputs["TableName"], outputs["TableStreamArn"]) == ("mine", stream)


def test_a_table_whose_stream_shows_only_keys_is_refused_before_anything_is_made(aws: Aws, artefact: Artefact) -> None:
    stream = aws.table("keys", "KEYS_ONLY")
    with pytest.raises(NotDeployableError, match="shows KEYS_ONLY"):
        deployment(settings("keys-only", ExistingTableStreamArn=stream), aws, artefact).plan()


def test_a_stack_that_never_came_up_is_refused_with_the_way_out(aws: Aws, artefact: Artefact) -> None:
    broken = {"Resources": {"Q": {"Type": "AWS::SQS::Queue", "Properties": {"MessageRetentionPeriod": 1}}}}
    aws("cloudformation").create_stack(StackName="halfway", TemplateBody=json.dumps(broken))
    with pytest.raises(NotDeployableError, match=r"delete-stack|is at work"):
        deployment(settings("halfway"), aws, artefact).plan()


def test_a_deployment_that_fails_says_which_resource_and_why(aws: Aws, artefact: Artefact, tmp_path: Path) -> None:
    """A queue that cannot be, made after others: they are rolled back, and their names are free again."""
    text = (ROOT / "infra" / "template.yaml").read_text()
    queue = (
        "  Broken:\n    Type: AWS::SQS::Queue\n    DependsOn: Table\n    Properties: {MessageRetentionPeriod: 1}\n\n"
    )
    template = tmp_path / "template.yaml"
    template.write_text(text.replace("  DeliveryLogStream:\n", f"{queue}  DeliveryLogStream:\n"))
    first = deployment(settings("failing"), aws, artefact, template=template)
    with pytest.raises(DeployError, match="failing came to ROLLBACK_COMPLETE: Broken"):
        first.execute(first.plan(), silent)
    aws("cloudformation").delete_stack(StackName="failing")
    assert deployment(settings("failing"), aws, artefact).plan().changes


@pytest.mark.parametrize(
    ("text", "said"),
    [("stack: x", "region: "), ("region: r\nstack: s\nteam: t", "team: unknown key"), ("a: [", "is not YAML")],
)
def test_a_configuration_that_cannot_be_is_refused_with_its_place(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "deploy.yaml"
    file.write_text(text)
    with pytest.raises(ConfigurationError, match=said):
        load_deploy_settings(file)


# --- the command ------------------------------------------------------------------------------------------------------


def command(
    aws: Aws, folder: Path, content: str, *options: str | Path, answer: str = ""
) -> subprocess.CompletedProcess[str]:
    config = folder / "deploy.yaml"
    config.write_text(content)
    given = emulator.without_aws(os.environ) | emulator.credentials("us-east-1") | {"AWS_ENDPOINT_URL": aws.endpoint}
    return subprocess.run(
        [sys.executable, "-m", "infra.deploy_cli", "--config", str(config), *options],
        input=answer,
        env=given,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def test_the_plan_is_shown_and_a_no_changes_nothing(aws: Aws, tmp_path: Path) -> None:
    content = "region: us-east-1\nstack: asked\n"
    done = command(aws, tmp_path, content, answer="n\n")
    assert done.returncode == 3, done.stderr
    assert "BridgeMapping" in done.stderr
    assert "Change stack asked?" in done.stderr
    assert stack_status(aws, "asked") is None


def chargers(aws: Aws) -> str:
    """The stream of a table with a composite key, which the template makes none of."""
    key = {"charger_id": "N", "reading_id": "B"}
    made = aws("dynamodb").create_table(
        TableName="charger-readings",
        KeySchema=[{"AttributeName": name, "KeyType": kind} for name, kind in zip(key, ("HASH", "RANGE"), strict=True)],
        AttributeDefinitions=[{"AttributeName": name, "AttributeType": type_} for name, type_ in key.items()],
        BillingMode="PAY_PER_REQUEST",
        StreamSpecification={"StreamEnabled": True, "StreamViewType": "NEW_AND_OLD_IMAGES"},
    )
    return str(made["TableDescription"]["LatestStreamArn"])


def test_yes_deploys_and_says_what_stands(aws: Aws, tmp_path: Path) -> None:
    """The job's configurations too: filled when it was made, and again when there was nothing to change."""
    content = "region: us-east-1\nstack: wanted\nparameters: {ExistingTableStreamArn: '" + chargers(aws) + "'}\n"
    shipped = ROOT / "infra" / "databricks" / "config"
    files = [Path(shutil.copy(shipped / name, tmp_path)) for name in ("prod.yaml", "prod-arrival.yaml")]
    done = command(aws, tmp_path, content, "--yes", "--json", "--job-config", files[0])
    assert done.returncode == 0, done.stderr
    outputs = json.loads(done.stdout)["outputs"]
    assert outputs["TableName"] == "charger-readings"
    again = command(aws, tmp_path, content, "--yes", "--job-config", files[1])
    assert "nothing to change" in again.stderr
    for file in files:
        filled = load_settings(file)
        assert filled.bucket is not None
        assert filled.source.stream == outputs["StreamName"]
        assert filled.bucket.name == outputs["BucketName"]
        assert filled.bucket.failed_batches == f"s3://{outputs['DeadLetterBucketName']}/"
        assert filled.bucket.dead_letter_key == outputs["DeadLetterKeyArn"]
        assert filled.tables == ("chargeminder-car-telemetry", "charger-readings")
        assert filled.lease.wait_s == 180
        assert file.read_text().startswith("# The ")
    planned = command(aws, tmp_path, content, "--plan", "--json")
    assert json.loads(planned.stdout)["plan"]["changes"] == []


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("region: us-east-1\nstack: s\nparameters: {RetentionHours: 12}\n", "parameter RetentionHours is '12'"),
        ("region: us-esat-1\nstack: s\n", "there is no region 'us-esat-1'"),
        ("region: us-east-1\nstack: s\nparameters: {TableName: no-rules}\n", "there are no rules for table no-rules"),
        ("region: us-east-1\nstack: s\nparameters: {TableName: charger-readings}\n", "would get the key event_id (S)"),
    ],
)
def test_what_cannot_be_is_one_line_and_exit_code_2(content: str, said: str, aws: Aws, tmp_path: Path) -> None:
    done = command(aws, tmp_path, content, "--yes")
    assert (done.returncode, len(done.stderr.strip().splitlines())) == (2, 1)
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_without_credentials_it_says_so(aws: Aws, tmp_path: Path) -> None:
    """Nobody's: no environment, no files, no instance."""
    config = tmp_path / "deploy.yaml"
    config.write_text("region: us-east-1\nstack: s\n")
    nobody = {
        **emulator.without_aws(os.environ),
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_ENDPOINT_URL": aws.endpoint,
    }
    done = subprocess.run(
        [sys.executable, "-m", "infra.deploy_cli", "--config", str(config), "--yes"],
        env=nobody,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 2
    assert "AWS does not know who asks" in done.stderr
    assert "Traceback" not in done.stderr

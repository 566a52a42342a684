"""The bridge's side on AWS: judged, planned, shown, and only then changed. `lakestream deploy` is its command.

Order: judge without a call, judge against the account, plan; ask; artefacts' bucket, artefact and template, change set,
wait. Broken off before the change set is executed, nothing but the bucket and objects in it has been made.
"""

import hashlib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final

import boto3
from botocore.exceptions import BotoCoreError, ClientError
from pydantic import Field, StringConstraints

from config.errors import LakestreamError
from config.tables import Frozen
from config.yaml_files import load_model
from infra import validate
from infra.artefact import ROOT, RUNTIME, Artefact
from infra.template_model import Template
from infra.template_values import Values
from infra.validate import Clients

TEMPLATE: Final = ROOT / "infra" / "template.yaml"
BOOTSTRAP: Final = ROOT / "infra" / "bootstrap.yaml"
CAPABILITIES: Final = ["CAPABILITY_IAM", "CAPABILITY_AUTO_EXPAND"]
_WITHIN_S: Final = 1_800.0
_NOTHING: Final = ("didn't contain changes", "No updates are to be performed")

Say = Callable[[str], None]


class DeployError(LakestreamError):
    """CloudFormation came to something else than what was planned; the message says what and what stands now."""

    exit_code = 1


class DeploySettings(Frozen):
    region: str
    stack: Annotated[str, StringConstraints(pattern=r"^[A-Za-z][A-Za-z0-9-]{0,38}$")]
    """No longer, so that the roles' names, which IAM cuts at 64, begin with all of it."""
    parameters: dict[str, str | int | bool] = Field(default_factory=dict)


def load_deploy_settings(path: Path) -> DeploySettings:
    return load_model(path, DeploySettings, example="config/dev.yaml")


@dataclass(frozen=True)
class Change:
    action: str
    """Add, Modify, Replace, Remove."""
    logical_id: str
    kind: str


@dataclass(frozen=True)
class Plan:
    account: str
    exists: bool
    makes_artefact_bucket: bool
    changes: tuple[Change, ...]

    @property
    def loses(self) -> tuple[Change, ...]:
        return tuple(change for change in self.changes if change.action in ("Replace", "Remove"))


def judged(
    settings: DeploySettings,
    template: Template,
    *,
    artefact_key: str = "later",
    regions_of: Callable[[str], list[str]] | None = None,
) -> Values:
    """What would be made, refused as far as that can be known without a call."""
    given = {"ArtefactBucket": "later", **settings.parameters, "ArtefactKey": artefact_key, "PythonRuntime": RUNTIME}
    pseudo = {
        "AWS::StackName": settings.stack,
        "AWS::Region": settings.region,
        "AWS::AccountId": "000000000000",
        "AWS::Partition": "aws",
        "AWS::URLSuffix": "amazonaws.com",
    }
    values = Values(template, template.parameters(given), pseudo)
    validate.check_values(values)
    validate.check_region(values, settings.region, regions_of or boto3.Session().get_available_regions)
    return values


class Deployment:
    def __init__(self, settings: DeploySettings, values: Values, clients: Clients, artefact: Artefact) -> None:
        self._settings, self._values, self._clients, self._artefact = settings, values, clients, artefact
        self._bootstrap = f"{settings.stack}-artefacts"
        self._cloudformation = clients("cloudformation")

    def plan(self) -> Plan:
        values = self._values
        account = self._account()
        exists = validate.check_stack_settled(self._clients, self._settings.stack)
        bucket_exists = validate.check_stack_settled(self._clients, self._bootstrap)
        if stream := values.parameters["ExistingTableStreamArn"]:
            validate.check_table_stream(self._clients, stream)
        if exists:
            return Plan(account, exists, not bucket_exists, self._planned_update())
        validate.check_names_free(self._clients, values)
        made = ((name, resource) for name, resource in values.template.resources.items() if values.exists(name))
        added = tuple(Change("Add", name, str(resource["Type"])) for name, resource in made)
        return Plan(account, exists, not bucket_exists, added)

    def _account(self) -> str:
        try:
            return str(self._clients("sts").get_caller_identity()["Account"])
        except (BotoCoreError, ClientError) as error:
            raise validate.NotDeployableError(
                f"AWS does not know who asks: {' '.join(str(error).split())}",
                hint="give credentials, by AWS_PROFILE or the environment",
            ) from error

    def _planned_update(self) -> tuple[Change, ...]:
        """By a change set that is thrown away: the real one is made after the answer, from the uploaded artefact."""
        name = self._change_set(self._artefact_bucket(), exists=True)
        if name is None:
            return ()
        try:
            return self._changes(name)
        finally:
            self._cloudformation.delete_change_set(StackName=self._settings.stack, ChangeSetName=name)

    def _changes(self, name: str) -> tuple[Change, ...]:
        pages = self._cloudformation.get_paginator("describe_change_set").paginate(
            StackName=self._settings.stack, ChangeSetName=name
        )
        found = [change["ResourceChange"] for page in pages for change in page["Changes"]]
        return tuple(
            Change(
                "Replace" if one.get("Replacement") == "True" else one["Action"],
                one["LogicalResourceId"],
                one["ResourceType"],
            )
            for one in found
        )

    # Changing

    def execute(self, plan: Plan, say: Say) -> dict[str, str]:
        """The stack's outputs."""
        if plan.makes_artefact_bucket:
            say("the artefacts' bucket")
            self._cloudformation.create_stack(StackName=self._bootstrap, TemplateBody=Template.load(BOOTSTRAP).body)
            self._wait(self._bootstrap, say)
        bucket = self._artefact_bucket()
        say("the artefact")
        self._clients("s3").put_object(Bucket=bucket, Key=self._artefact.key, Body=self._artefact.zipped())
        say("the change set")
        name = self._change_set(bucket, exists=plan.exists)
        if name is not None:
            # Rolled back, a first deployment would keep a table and keys that no stack has, and whose names are taken.
            self._cloudformation.execute_change_set(
                StackName=self._settings.stack, ChangeSetName=name, RetainExceptOnCreate=not plan.exists
            )
            self._wait(self._settings.stack, say)
        return self.outputs()

    def outputs(self) -> dict[str, str]:
        return self._outputs(self._settings.stack)

    def _with_artefact(self, bucket: str) -> dict[str, str]:
        return {**self._values.parameters, "ArtefactBucket": bucket, "ArtefactKey": self._artefact.key}

    def _uploaded_template(self, bucket: str) -> str:
        """Its address; in the call itself a template could have 51,200 bytes. Named by content, it stays."""
        s3 = self._clients("s3")
        body = self._values.template.body.encode()
        key = f"template/{hashlib.sha256(body).hexdigest()[:32]}.json"
        s3.put_object(Bucket=bucket, Key=key, Body=body)
        return f"{s3.meta.endpoint_url}/{bucket}/{key}"

    def _artefact_bucket(self) -> str:
        return self._outputs(self._bootstrap)["ArtefactBucket"]

    def _change_set(self, bucket: str, *, exists: bool) -> str | None:
        """Its name; None where nothing would change."""
        name = f"lakestream-{time.time_ns()}"
        parameters = self._with_artefact(bucket)
        template = self._uploaded_template(bucket)
        try:
            self._cloudformation.create_change_set(
                StackName=self._settings.stack,
                ChangeSetName=name,
                ChangeSetType="UPDATE" if exists else "CREATE",
                TemplateURL=template,
                Capabilities=CAPABILITIES,
                Parameters=[{"ParameterKey": key, "ParameterValue": value} for key, value in parameters.items()],
            )
        except ClientError as error:
            raise DeployError(f"the template is refused: {error.response['Error']['Message']}") from error
        state = self._settled(
            lambda: self._cloudformation.describe_change_set(StackName=self._settings.stack, ChangeSetName=name)
        )
        if state["Status"] == "CREATE_COMPLETE":
            return name
        reason = str(state.get("StatusReason", "no reason given"))
        self._cloudformation.delete_change_set(StackName=self._settings.stack, ChangeSetName=name)
        if any(known in reason for known in _NOTHING):
            return None
        raise DeployError(f"the change set failed: {reason}", hint="nothing was changed")

    def _wait(self, stack: str, say: Say) -> None:
        def look() -> dict[str, Any]:
            found = dict(self._cloudformation.describe_stacks(StackName=stack)["Stacks"][0])
            say(f"{stack}: {found['StackStatus']}")
            return {"Status": found["StackStatus"]}

        status = self._settled(look)["Status"]
        if status not in ("CREATE_COMPLETE", "UPDATE_COMPLETE"):
            hint = "what stood before stands again" if "UPDATE_ROLLBACK_COMPLETE" in status else "see the runbook"
            raise DeployError(f"{stack} came to {status}: {self._why(stack)}", hint=hint)

    def _settled(self, look: Callable[[], Mapping[str, Any]]) -> Mapping[str, Any]:
        deadline = time.monotonic() + _WITHIN_S
        pause_s = 0.05
        while (state := look())["Status"].endswith(("_IN_PROGRESS", "_PENDING")):
            if time.monotonic() > deadline:
                raise DeployError(
                    f"CloudFormation is at work for more than {_WITHIN_S:g} s", hint="it goes on; look at the stack"
                )
            time.sleep(pause_s)
            pause_s = min(5.0, pause_s * 1.5)
        return state

    def _why(self, stack: str) -> str:
        events = self._cloudformation.describe_stack_events(StackName=stack)["StackEvents"]
        failed = [event for event in events if event["ResourceStatus"].endswith("_FAILED")]
        # The newest stands first; the first failure of this attempt is the cause, the others follow from it.
        return (
            f"{failed[0]['LogicalResourceId']}: {failed[0].get('ResourceStatusReason', '')}" if failed else "no reason"
        )

    def _outputs(self, stack: str) -> dict[str, str]:
        found = self._cloudformation.describe_stacks(StackName=stack)["Stacks"][0]
        return {output["OutputKey"]: output["OutputValue"] for output in found.get("Outputs", ())}

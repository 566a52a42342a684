"""What `lakestream deploy` asks of CloudFormation, by a client that keeps it."""

from types import SimpleNamespace
from typing import Any

import pytest
from templates import TEMPLATE

from infra.artefact import Artefact
from infra.deploy import Change, Deployment, DeploySettings, Plan, judged
from infra.template_model import Template


class KeepingCloudFormation:
    """Every other service too; whatever it is asked is done at once."""

    meta = SimpleNamespace(endpoint_url="https://s3.example")

    def __init__(self) -> None:
        self.executed: dict[str, Any] = {}

    def put_object(self, **_: Any) -> None:
        return

    def create_change_set(self, **_: Any) -> None:
        return

    def describe_change_set(self, **_: Any) -> Any:
        return {"Status": "CREATE_COMPLETE"}

    def execute_change_set(self, **request: Any) -> None:
        self.executed = request

    def describe_stacks(self, **_: Any) -> Any:
        outputs = [{"OutputKey": "ArtefactBucket", "OutputValue": "artefacts"}]
        return {"Stacks": [{"StackStatus": "UPDATE_COMPLETE", "Outputs": outputs}]}


@pytest.mark.parametrize("exists", [False, True])
def test_a_first_deployment_that_is_rolled_back_keeps_nothing_that_would_be_in_the_next_ones_way(exists: bool) -> None:  # noqa: FBT001 - a case
    """An update is rolled back as the template says: what it made anew may have taken data over."""
    settings = DeploySettings(region="us-east-1", stack="s")
    values = judged(settings, Template.load(TEMPLATE))
    aws = KeepingCloudFormation()
    plan = Plan("0", exists, makes_artefact_bucket=False, changes=(Change("Add", "Table", "AWS::DynamoDB::Table"),))
    Deployment(settings, values, lambda _: aws, Artefact({})).execute(plan, lambda _: None)
    assert aws.executed["RetainExceptOnCreate"] is not exists

"""In which order CloudFormation makes the template's resources: who refers to another waits for it."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from templates import TEMPLATE

from infra.template_model import Template

RESOURCES: Mapping[str, Mapping[str, Any]] = Template.load(TEMPLATE).resources
CALLERS = [
    name
    for name, resource in RESOURCES.items()
    if resource["Type"] in ("AWS::Lambda::EventSourceMapping", "AWS::Pipes::Pipe", "AWS::Serverless::Function")
]


def named_in(value: Any) -> Iterator[str]:
    """Logical ids and parameters that an expression refers to."""
    if isinstance(value, list):
        for member in value:
            yield from named_in(member)
    elif isinstance(value, dict):
        for name, argument in value.items():
            if name == "Ref":
                yield argument
            elif name == "Fn::GetAtt":
                yield argument[0]
            elif name == "Fn::Sub":
                text = argument if isinstance(argument, str) else argument[0]
                yield from (found.split(".")[0] for found in re.findall(r"\$\{([^!}]+)\}", text))
            yield from named_in(argument)


def waits_for(name: str) -> set[str]:
    """Every resource that is there before the named one is begun."""
    reached: set[str] = set()
    ahead = [name]
    while ahead:
        resource = RESOURCES[ahead.pop()]
        declared = resource.get("DependsOn", [])
        direct = {*named_in(resource.get("Properties", {})), *([declared] if isinstance(declared, str) else declared)}
        new = (direct & RESOURCES.keys()) - reached
        reached |= new
        ahead += new
    return reached


def functions_of(caller: str) -> set[str]:
    known = {caller, *waits_for(caller)}
    return {name for name in known if RESOURCES[name]["Type"] == "AWS::Serverless::Function"}


@pytest.mark.parametrize("caller", CALLERS)
def test_nothing_runs_or_reads_as_a_role_before_its_policies_are_attached(caller: str) -> None:
    """Lambda refuses a mapping, and a traced function, whose role may not yet do what they need."""
    functions = functions_of(caller)
    assert functions
    roles = {role for function in functions for role in named_in(RESOURCES[function]["Properties"]["Role"])}
    roles |= set(named_in(RESOURCES[caller]["Properties"].get("RoleArn", {})))
    policies = {
        name
        for name, resource in RESOURCES.items()
        if resource["Type"] == "AWS::IAM::Policy" and roles & set(named_in(resource["Properties"]["Roles"]))
    }
    assert policies - waits_for(caller) == set()

"""An alarm sends a person to a runbook: there is one of that name, and it names the alarm."""

import re

import pytest
from templates import TEMPLATE

from infra.artefact import ROOT
from infra.template_model import Template

RUNBOOKS = (ROOT / "infra" / "RUNBOOKS.md").read_text(encoding="utf-8")
SECTIONS = {title.lower(): body for title, body in re.findall(r"(?ms)^## (.+?)$(.+?)(?=^## |\Z)", RUNBOOKS)}
ALARMS = {
    name: str(resource["Properties"]["AlarmDescription"])
    for name, resource in Template.load(TEMPLATE).resources.items()
    if resource["Type"] == "AWS::CloudWatch::Alarm"
}


@pytest.mark.parametrize("alarm", ALARMS)
def test_every_alarm_names_its_runbook_and_the_runbook_the_alarm(alarm: str) -> None:
    (name,) = re.findall(r"Runbook - (.+)\.$", ALARMS[alarm])
    assert alarm.removesuffix("Alarm") in SECTIONS[name.lower()]


def test_the_guide_names_every_parameter_that_reuses_something() -> None:
    guide = (ROOT / "infra" / "README.md").read_text(encoding="utf-8") + RUNBOOKS
    reusing = [name for name in Template.load(TEMPLATE).content["Parameters"] if name.startswith("Existing")]
    assert [name for name in reusing if name not in guide] == []

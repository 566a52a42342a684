"""Templates as CloudFormation would get them: after the SAM transform, and every policy statement in them."""

import functools
import json
import os
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from infra.local.checks import ROOT
from infra.template_model import Template

TEMPLATE = ROOT / "infra" / "template.yaml"
BOOTSTRAP = ROOT / "infra" / "bootstrap.yaml"

# In the emulator's environment: it deploys with this very translator.
_SYNTHESIZE = """
import json, sys
from samtranslator.translator.transform import transform
print(json.dumps(transform(json.load(sys.stdin), {}, lambda: {})))
"""


@functools.cache
def _synthesized(path: Path) -> str:
    done = subprocess.run(
        [str(ROOT / ".venv-stack" / "bin" / "python"), "-W", "ignore", "-c", _SYNTHESIZE],
        input=Template.load(path).body,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "AWS_DEFAULT_REGION": "us-east-1"},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def synthesized(path: Path = TEMPLATE) -> dict[str, Any]:
    """A copy of its own for each caller."""
    template: dict[str, Any] = json.loads(_synthesized(path))
    return template


@dataclass(frozen=True)
class Statement:
    owner: str
    """Logical id of the resource it stands in."""
    content: dict[str, Any]
    """The statement itself, not a copy."""

    @property
    def name(self) -> str:
        return f"{self.owner}.{self.content.get('Sid', '?')}"


def statements(template: Mapping[str, Any]) -> list[Statement]:
    return [
        Statement(logical_id, content)
        for logical_id, resource in template["Resources"].items()
        for content in _within(resource.get("Properties", {}))
    ]


def _within(value: Any) -> Iterator[dict[str, Any]]:
    if isinstance(value, list):
        for member in value:
            yield from _within(member)
    elif isinstance(value, dict):
        if value.get("Effect") in ("Allow", "Deny"):
            yield value
        else:
            for member in value.values():
                yield from _within(member)

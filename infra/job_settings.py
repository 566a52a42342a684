"""What a deployed stack tells the job's configuration: outputs of template.yaml by the key they fill."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import yaml

from config.errors import ConfigurationError
from config.settings import Settings
from config.yaml_files import load_model

FILLED: Final[Mapping[str, tuple[tuple[str, str], str]]] = {
    "StreamName": (("source", "stream"), "{}"),
    "BucketName": (("bucket", "name"), "{}"),
    "DeadLetterBucketName": (("bucket", "failed_batches"), "s3://{}/"),
    "DeadLetterKeyArn": (("bucket", "dead_letter_key"), "{}"),
}
"""Output to key, and the form of its value there."""


def fill(path: Path, outputs: Mapping[str, str], region: str) -> None:
    """The file with the stack's facts in it. Everything else stays, the comment it begins with too."""
    load_model(path, Settings, example="config/README.md")  # what is wrong with it was wrong before
    text = path.read_text(encoding="utf-8")
    content = filled(yaml.safe_load(text), outputs, region)
    Settings.model_validate(content)
    head = "".join(line for line in text.splitlines(keepends=True) if line.startswith("#"))
    path.write_text(head + yaml.safe_dump(content, sort_keys=False, allow_unicode=True), encoding="utf-8")


def filled(content: Mapping[str, Any], outputs: Mapping[str, str], region: str) -> dict[str, Any]:
    found = {**content, "aws": {**content["aws"], "region": region}}
    for output, ((section, key), form) in FILLED.items():
        if output not in outputs:
            raise ConfigurationError(f"the stack has no output {output}", hint="was it made by this template?")
        found[section] = {**found.get(section, {}), key: form.format(outputs[output])}
    if outputs["TableName"] not in found["tables"]:
        found["tables"] = [*found["tables"], outputs["TableName"]]
    return found

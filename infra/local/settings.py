"""`config/local.yaml`: what the embedded stack is made of. Loaded and checked once, before anything starts."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, StringConstraints, field_validator

from config.tables import Frozen
from config.yaml_files import load_model
from infra.deploy import DeploySettings
from infra.local.checks import ROOT


class JobSettings(Frozen):
    starting_position: Literal["trim_horizon", "latest"] = "trim_horizon"
    trigger_interval_ms: int = Field(default=0, ge=0)
    unhealthy_after_s: int = Field(default=120, ge=1)
    spark: dict[str, str] = Field(default_factory=dict)


class LocalSettings(Frozen):
    region: str = "us-east-1"
    stack: Annotated[str, StringConstraints(pattern=r"^[A-Za-z][A-Za-z0-9-]{0,50}$")] = "lakestream"
    """The CloudFormation stack's name; it begins the names of what it makes."""
    template: Path = ROOT / "infra" / "template.yaml"
    parameters: dict[str, str | int | bool] = Field(default_factory=dict)
    """The template's own, by name; what is not named has the template's default."""
    disk_free_gb_min: float = Field(default=2, ge=0)
    ready_within_s: float = Field(default=180, gt=0)
    stop_within_s: float = Field(default=30, gt=0)
    job: JobSettings = JobSettings()

    @property
    def deploy(self) -> DeploySettings:
        return DeploySettings(region=self.region, stack=self.stack, parameters=self.parameters)

    @field_validator("template")
    @classmethod
    def beside_the_code(cls, value: Path) -> Path:
        """A relative path is the project's, wherever the command is called."""
        return value if value.is_absolute() else ROOT / value


def load_local_settings(path: Path) -> LocalSettings:
    return load_model(path, LocalSettings, example="config/local.yaml")

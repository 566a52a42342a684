"""`config/local.yaml`: what the embedded stack is made of. Loaded and checked once, before anything starts."""

from pathlib import Path
from typing import Literal

import yaml
from pydantic import Field, ValidationError, field_validator

from config import limits
from config.errors import ConfigurationError
from config.tables import Frozen


class MappingSettings(Frozen):
    """The event source mapping's knobs, as AWS names and bounds them."""

    batch_size: int = Field(default=100, ge=1, le=limits.MAPPING_BATCH_RECORDS_MAX)
    window_s: int = Field(default=0, ge=0, le=limits.MAPPING_WINDOW_S_MAX)
    parallelization: int = Field(default=1, ge=1, le=limits.MAPPING_PARALLELIZATION_MAX)
    bisect: bool = True
    retries_max: int = Field(default=-1, ge=-1, le=10_000)
    age_max_s: int = Field(default=-1, ge=-1, le=604_800)


class DeliverySettings(Frozen):
    """Firehose's buffer: an object is written when either is reached."""

    buffer_s: int = Field(default=10, ge=0, le=900)
    buffer_bytes: int = Field(default=5 * 1024 * 1024, ge=1024 * 1024, le=128 * 1024 * 1024)


class JobSettings(Frozen):
    starting_position: Literal["trim_horizon", "latest"] = "trim_horizon"
    trigger_interval_ms: int = Field(default=0, ge=0)
    unhealthy_after_s: int = Field(default=120, ge=1)
    spark: dict[str, str] = Field(default_factory=dict)


class LocalSettings(Frozen):
    region: str = "us-east-1"
    table: str = Field(min_length=3, max_length=255)
    stream: str = Field(min_length=1, max_length=128)
    bucket: str = Field(min_length=3, max_length=63)
    archive_prefix: str = "archive/"
    disk_free_gb_min: float = Field(default=2, ge=0)
    ready_within_s: float = Field(default=180, gt=0)
    stop_within_s: float = Field(default=30, gt=0)
    mapping: MappingSettings = MappingSettings()
    delivery: DeliverySettings = DeliverySettings()
    job: JobSettings = JobSettings()

    @field_validator("archive_prefix")
    @classmethod
    def ends_as_a_folder(cls, value: str) -> str:
        if not value.endswith("/"):
            raise ValueError("must end with /")
        return value


def load_local_settings(path: Path) -> LocalSettings:
    try:
        return LocalSettings.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise ConfigurationError(f"cannot read {path}: {error.strerror}", hint="config/local.yaml is ours") from error
    except yaml.YAMLError as error:
        raise ConfigurationError(f"{path} is not YAML: {' '.join(str(error).split())}") from error
    except ValidationError as error:
        raise ConfigurationError.of_validation(path, error) from error

"""The streaming job's configuration: one frozen object, loaded and checked once, handed to whatever needs it."""

from pathlib import Path
from typing import Literal

import yaml
from pydantic import Field, ValidationError, model_validator

from config.errors import ConfigurationError
from config.tables import Frozen


class AwsSettings(Frozen):
    region: str
    endpoint: str | None = None
    """An emulator's address; None means AWS itself."""


class SourceSettings(Frozen):
    connector: Literal["lakestream", "databricks"] = "lakestream"
    stream: str
    starting_position: str = "trim_horizon"
    """`trim_horizon`, `latest`, or an ISO timestamp; only the first start without a checkpoint reads it."""
    consumer_mode: Literal["polling", "efo"] = "polling"
    consumer_name: str | None = None
    batch_rows_max: int = Field(default=20_000, ge=1)
    batch_bytes_max: int = Field(default=64 * 1024 * 1024, ge=1024 * 1024)
    fail_on_data_loss: bool = True
    service_credential: str | None = None


class LakeSettings(Frozen):
    """Where the tables live: `root` is a path, or `catalog` and `schema_` name a Unity Catalog schema."""

    root: str | None = None
    catalog: str | None = None
    schema_: str | None = Field(default=None, alias="schema")
    checkpoint: str

    @model_validator(mode="after")
    def one_home(self) -> "LakeSettings":
        if (self.root is None) == (self.catalog is None or self.schema_ is None):
            raise ValueError("give either root, or catalog and schema")
        return self


class TriggerSettings(Frozen):
    interval_ms: int = Field(default=0, ge=0)
    """0: the next batch starts when the last one ends."""


class HttpSettings(Frozen):
    """The job's /metrics and /healthz."""

    host: str = "127.0.0.1"
    port: int = Field(default=0, ge=0, le=65535)
    unhealthy_after_s: int = Field(default=120, ge=1)


class Settings(Frozen):
    aws: AwsSettings
    source: SourceSettings
    lake: LakeSettings
    tables: tuple[str, ...] = Field(min_length=1)
    """Source tables, each with a rules file in `tables_dir`."""
    tables_dir: Path = Path(__file__).parent / "tables"
    trigger: TriggerSettings = TriggerSettings()
    http: HttpSettings = HttpSettings()
    spark: dict[str, str] = Field(default_factory=dict)
    """Spark settings laid over ours, by name."""


def load_settings(path: Path) -> Settings:
    try:
        return Settings.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise ConfigurationError(
            f"cannot read {path}: {error.strerror}", hint="see config/local.yaml for an example"
        ) from error
    except yaml.YAMLError as error:
        raise ConfigurationError(f"{path} is not YAML: {' '.join(str(error).split())}") from error
    except ValidationError as error:
        raise ConfigurationError.of_validation(path, error) from error

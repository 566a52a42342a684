"""What a mapping may be told, with AWS's own bounds; the stack writes it from what was deployed."""

import uuid
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, StringConstraints, model_validator

from config.limits import MAPPING_BATCH_RECORDS_MAX, MAPPING_PARALLELIZATION_MAX, MAPPING_WINDOW_S_MAX
from config.tables import Frozen

ENDLESS = -1
_RETRIES_MAX = 10_000
_AGE_S_MIN = 60
"""Below it AWS allows only -1, though its parameter's range says otherwise."""
_AGE_S_MAX = 604_800
_FUNCTION_TIMEOUT_S_MAX = 900


class FunctionSettings(Frozen):
    handler: Annotated[str, StringConstraints(pattern=r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)+$")] = (
        "bridge_lambda.handler.handler"
    )
    env: dict[str, str] = Field(default_factory=dict)
    timeout_s: float = Field(default=60, gt=0, le=_FUNCTION_TIMEOUT_S_MAX)
    memory_mb: int = Field(default=512, ge=128, le=10_240)
    name: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]{1,64}$")] = "lakestream-bridge"
    code: Path | None = None
    """Folder to import the handler from, before all else; None takes the installed packages."""


class S3Destination(Frozen):
    bucket: str
    prefix: str = ""
    """Before AWS's own `aws/lambda/…` name; AWS has none."""


class OnFailure(Frozen):
    s3: S3Destination | None = None
    sqs: str | None = None
    """A queue's URL."""

    @model_validator(mode="after")
    def one_destination(self) -> "OnFailure":
        if (self.s3 is None) == (self.sqs is None):
            raise ValueError("give either s3 or sqs")
        return self


class Expiries(Frozen):
    attribute: str
    ledger: Path


class MappingSettings(Frozen):
    endpoint: str | None = None
    region: str
    table: str
    stream_arn: Annotated[str, StringConstraints(pattern=r"^arn:[^:]+:dynamodb:[^:]*:[^:]*:table/[^/]+/stream/.+$")]
    state_dir: Path
    uuid: str | None = None
    """The mapping's id; made from stream and function when AWS (or the emulator) gave none."""
    function: FunctionSettings = FunctionSettings()
    batch_size: int = Field(default=100, ge=1, le=MAPPING_BATCH_RECORDS_MAX)
    window_s: float = Field(default=0, ge=0, le=MAPPING_WINDOW_S_MAX)
    parallelization: int = Field(default=1, ge=1, le=MAPPING_PARALLELIZATION_MAX)
    bisect: bool = False
    retries_max: int = Field(default=ENDLESS, ge=ENDLESS, le=_RETRIES_MAX)
    age_max_s: int = Field(default=ENDLESS, ge=ENDLESS, le=_AGE_S_MAX)
    report_failures: bool = False
    on_failure: OnFailure | None = None
    starting_position: Literal["TRIM_HORIZON", "LATEST"] = "TRIM_HORIZON"
    expiries: Expiries | None = None
    """Where the emulator's stream does not say which deletions are expiries."""
    metrics_port: int | None = Field(default=None, ge=0, le=65535)
    backoff_first_s: float = Field(default=0.5, gt=0)
    backoff_longest_s: float = Field(default=30, gt=0)
    """AWS states no back-off for stream mappings; these are ours."""

    @model_validator(mode="after")
    def stream_of_table(self) -> "MappingSettings":
        if f":table/{self.table}/stream/" not in self.stream_arn:
            raise ValueError(f"stream_arn is not a stream of table {self.table!r}")
        return self

    @model_validator(mode="after")
    def age_is_allowed(self) -> "MappingSettings":
        if ENDLESS < self.age_max_s < _AGE_S_MIN:
            raise ValueError(f"age_max_s must be -1 or at least {_AGE_S_MIN}")
        return self

    @property
    def mapping_id(self) -> str:
        return self.uuid or str(uuid.uuid5(uuid.NAMESPACE_URL, f"{self.stream_arn}|{self.function.name}"))

    @property
    def function_arn(self) -> str:
        account = self.stream_arn.split(":")[4]
        return f"arn:aws:lambda:{self.region}:{account}:function:{self.function.name}"

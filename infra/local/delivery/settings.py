"""What a delivery may be told, with Firehose's own bounds; the stack writes it from what was deployed."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, StringConstraints, model_validator

from config.tables import Frozen
from infra.local.delivery.prefix import checked

_MIB = 1024 * 1024


class DeliverySettings(Frozen):
    endpoint: str | None = None
    region: str
    name: Annotated[str, StringConstraints(pattern=r"^[a-zA-Z0-9_.-]{1,64}$")] = "lakestream-archive"
    """The delivery stream's: objects are named after it."""
    stream: str
    bucket: str
    prefix: str = "archive/date=!{timestamp:yyyy-MM-dd}/hour=!{timestamp:HH}/"
    error_prefix: str | None = "archive-errors/!{firehose:error-output-type}/date=!{timestamp:yyyy-MM-dd}/"
    buffer_s: float = Field(default=300, ge=0, le=900)
    buffer_bytes: int = Field(default=5 * _MIB, ge=_MIB, le=128 * _MIB)
    """Before compression."""
    state_dir: Path
    starting_position: Literal["TRIM_HORIZON", "LATEST"] = "TRIM_HORIZON"
    """Firehose begins at LATEST; an archive that begins with the stream's first record can be replayed."""
    metrics_port: int | None = Field(default=None, ge=0, le=65535)

    @model_validator(mode="after")
    def prefixes_can_be_evaluated(self) -> "DeliverySettings":
        checked(self.prefix, self.error_prefix)
        return self

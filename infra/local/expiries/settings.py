"""What the expiries may be told; the stack writes it from what was deployed."""

from pathlib import Path

from pydantic import Field

from config.tables import Frozen


class ExpiriesSettings(Frozen):
    endpoint: str
    """Of an emulator: AWS expires items itself."""
    region: str
    table: str
    attribute: str
    """Holds the time of expiry, epoch seconds as a number."""
    ledger: Path
    every_s: float = Field(default=5, gt=0)
    """AWS promises days."""
    metrics_port: int | None = Field(default=None, ge=0, le=65535)

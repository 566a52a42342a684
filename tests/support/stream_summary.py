"""Kinesis as far as it says since when a stream keeps what was put into it."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any


@dataclass
class StreamSummary:
    created: datetime
    retention_h: int = 24

    def describe_stream_summary(self, **_: str) -> dict[str, Any]:
        return {
            "StreamDescriptionSummary": {
                "RetentionPeriodHours": self.retention_h,
                "StreamCreationTimestamp": self.created,
            }
        }

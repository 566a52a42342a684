"""The envelopes of record, in `envelopes/`: stream record and rules in, the exact line out.

The bridge's tests hold the writer to them, the job's tests the reader; the two share no code but these files. A line
that has to change is a change of the contract; LAKESTREAM_GOLDEN=write makes the writer's test rewrite them for review.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent / "envelopes"


@dataclass(frozen=True)
class Golden:
    path: Path
    content: Mapping[str, Any]

    @property
    def line(self) -> bytes | None:
        """What goes to Kinesis; None where the rules keep the change back."""
        line: str | None = self.content["line"]
        return None if line is None else line.encode()


def golden_envelopes() -> list[Golden]:
    return [Golden(path, json.loads(path.read_text(encoding="utf-8"))) for path in sorted(FOLDER.glob("*.json"))]

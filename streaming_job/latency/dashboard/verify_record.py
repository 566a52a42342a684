"""The last answer of `lakestream verify`, from the file it leaves beside stack.json; read when that changes."""

import json
from datetime import datetime
from pathlib import Path
from typing import Any

_COUNTS = ("source_items", "lake_rows", "missing", "extra", "stale", "different", "unproven")


class VerifyRecord:
    """`{"at": ISO time, "tables": {name: report}}`; a file that is absent or cannot be read is no verification."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._seen: tuple[int, int] | None = None
        self._value: dict[str, Any] | None = None

    def read(self) -> dict[str, Any] | None:
        if self._path is None:
            return None
        try:
            stat = self._path.stat()
            if (seen := (stat.st_mtime_ns, stat.st_size)) != self._seen:
                self._seen, self._value = seen, _summary(json.loads(self._path.read_text(encoding="utf-8")))
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            self._value = None
        return self._value


def _summary(record: dict[str, Any]) -> dict[str, Any]:
    reports = record["tables"].values()
    counts = {name: sum(int(report[name]) for report in reports) for name in _COUNTS}
    differences = counts["missing"] + counts["extra"] + counts["stale"] + counts["different"]
    verdict = "different" if differences else "unproven" if counts["unproven"] or not reports else "equal"
    return {"at_s": datetime.fromisoformat(record["at"]).timestamp(), "verdict": verdict, **counts}

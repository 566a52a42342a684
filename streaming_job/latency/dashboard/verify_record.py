"""Each table's last answer of `lakestream verify`, from the file it leaves beside stack.json; read as that changes."""

import json
from datetime import datetime
from pathlib import Path
from typing import Any, Final

_DIFFERENCES: Final = ("missing", "extra", "stale", "different")
_COUNTS: Final = ("source_items", "lake_rows", *_DIFFERENCES, "unproven")
UNREADABLE: Final = (OSError, ValueError, KeyError, TypeError, AttributeError)
"""What a record that is absent or damaged fails with."""


class VerifyRecord:
    """`{"tables": {name: report and "at", an ISO time}}`; a file that is absent, empty or damaged is none."""

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
                self._seen, self._value = seen, summary(json.loads(self._path.read_text(encoding="utf-8")))
        except UNREADABLE:
            self._value = None
        return self._value


def summary(record: dict[str, Any]) -> dict[str, Any]:
    """The worst that is known of any table, the tables it is known of, and since when: their oldest answer."""
    reports = record["tables"]
    counts = {name: sum(int(report[name]) for report in reports.values()) for name in _COUNTS}
    different = [table for table, report in reports.items() if any(report[name] for name in _DIFFERENCES)]
    unproven = [table for table, report in reports.items() if report["unproven"]]
    verdict = "different" if different else "unproven" if unproven else "equal"
    tables = different or unproven or list(reports)
    at_s = min(datetime.fromisoformat(reports[table]["at"]).timestamp() for table in tables)
    return {"at_s": at_s, "verdict": verdict, "tables": tables, **counts}

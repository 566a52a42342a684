"""Where an object lies below its prefix: in a folder a day and hour, UTC, of its oldest change, or in one of a name.

Firehose files an archive by day and hour; their names order by time. A snapshot's objects lie in a folder of its own.
"""

import re
from datetime import UTC, datetime
from typing import Final

HOUR_MS: Final = 3_600_000
DATED: Final = "date="
"""How the names of an archive's folders begin."""
_folder: Final = re.compile(r"date=\d{4}-\d{2}-\d{2}/hour=\d{2}/").match
_MARKERS: Final = (".", "_")
"""How names begin that browsers and Hadoop leave."""


def folder_at(ms: int) -> str:
    return f"{datetime.fromtimestamp(ms / 1000, UTC):date=%Y-%m-%d/hour=%H/}"


def split(name: str, *, dated: bool) -> tuple[str, str] | None:
    """Folder, and name in it; None where it is no object of ours."""
    if dated:
        found = _folder(name)
        folder, rest = (found[0], name[found.end() :]) if found else ("", "")
    else:
        head, _, rest = name.partition("/")
        folder, rest = f"{head}/", rest if rest.endswith(".gz") else ""
    return (folder, rest) if rest and not rest.startswith(_MARKERS) else None

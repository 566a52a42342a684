"""What a command asks of the job that holds a table, and the job's answer: properties of `current`, as the lease is.

Whoever may write to the table may ask; there is nothing to set up, for paths and catalogs alike. A commit of metadata
by somebody else makes a merge in flight try again, and nothing more.
"""

from typing import Final

from streaming_job.pipeline.lease import Clock
from streaming_job.pipeline.merge import LakeTable
from streaming_job.pipeline.properties import read

MAINTAIN: Final = "lakestream.maintain"
"""When all upkeep was asked for, in milliseconds since 1970."""
MAINTAINED: Final = "lakestream.maintained"
"""The answer: which request it is to, and what each task came to."""
REBUILD: Final = "lakestream.rebuild"
"""When somebody last changed what stands in the table being rebuilt beside this one."""

_ASKED: Final = (MAINTAIN, REBUILD)
_LOOK_EVERY_MS: Final = 5_000


def ask(table: LakeTable, name: str, now_ms: int) -> None:
    """A request that is asked twice within a millisecond is one."""
    table.set_properties({name: str(now_ms)})


class Desk:
    """Where the job looks for requests. What stood there when it opened the table was asked of somebody else."""

    def __init__(self, table: LakeTable, clock: Clock) -> None:
        self._table = table
        self._clock = clock
        self._next_ms = 0
        self._seen = self._asked()
        # Asked while nobody held the table, and not answered: it is ours to do.
        answer = read(table.properties().get(MAINTAINED)) or {}
        if self._seen.get(MAINTAIN) != answer.get("asked_ms"):
            self._seen.pop(MAINTAIN, None)

    def look(self) -> dict[str, int]:
        """When each of the requests that are new was made, by name."""
        if self._clock() < self._next_ms:
            return {}
        self._next_ms = self._clock() + _LOOK_EVERY_MS
        self._table.refresh()
        asked = self._asked()
        new = {name: at_ms for name, at_ms in asked.items() if self._seen.get(name) != at_ms}
        self._seen = asked
        return new

    def _asked(self) -> dict[str, int]:
        properties = self._table.properties()
        return {name: int(properties[name]) for name in _ASKED if name in properties}

"""A table's log as engine `rust` tends it: a commit must not cost more for each commit before it.

On a disk delta-rs lists the log's folder, a look at each file, wherever it wants to know the newest version. A job that
commits every second has tens of thousands there before the day is over.
"""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from deltalake import DeltaTable, PostCommitHookProperties

_LIST_EVERY_S: Final = 600.0
"""What is tidied away is a day old at least: so long nobody's commit can have come and gone."""
_CHECKPOINT_INTERVAL: Final = "100"
"""Delta's own, where the table does not say."""


def after_commit(table: DeltaTable) -> PostCommitHookProperties:
    """What is too old goes once for each checkpoint; asked at every commit, delta-rs looks through all of the log."""
    interval = int(table.metadata().configuration.get("delta.checkpointInterval") or _CHECKPOINT_INTERVAL)
    return PostCommitHookProperties(create_checkpoint=True, cleanup_expired_logs=table.version() % interval == 0)


class LogFolder:
    def __init__(self, path: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._folder = Path(path) / "_delta_log"
        self._is_on_disk = "://" not in path
        self._clock = clock
        self._listed_at = clock()

    def may_have_grown(self, version: int) -> bool:
        """Whether somebody may have committed since; where not, there is nothing to list. In a bucket a listing begins
        where it is told to, and costs the same however long the log is.
        """
        now = self._clock()
        if not self._is_on_disk or now - self._listed_at > _LIST_EVERY_S:
            self._listed_at = now
            return True
        return (self._folder / f"{version + 1:020d}.json").exists()

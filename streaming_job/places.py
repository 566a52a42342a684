"""Which of a configuration's places are folders of this machine."""

from pathlib import Path
from typing import Final

from streaming_job.spark import on_databricks

_DATABRICKS_ONLY: Final = ("/Volumes/", "/Workspace/", "dbfs:/")


def local_folder(place: str) -> Path | None:
    """None where it is a bucket's, or a workspace's that is looked at from elsewhere."""
    path = place.removeprefix("file://")
    if "://" in path or (path.startswith(_DATABRICKS_ONLY) and not on_databricks()):
        return None
    return Path(path)

"""A Delta table taken away for good: its folder, its objects, or its name in the catalog."""

import shutil
from pathlib import Path
from urllib.parse import urlsplit

from config.errors import LakestreamError
from config.settings import Settings
from streaming_job.aws import client
from streaming_job.objects import Bucket
from streaming_job.pipeline.locations import Location
from streaming_job.pipeline.opening import Tables


class NotDroppedError(LakestreamError):
    """It lies where nothing can be deleted from here."""


def drop(place: Location, settings: Settings, tables: Tables) -> None:
    """Harmless where it is gone."""
    if place.path is None:
        tables.drop(place)
        return
    address = urlsplit(place.path)
    if address.scheme in ("s3", "s3a"):
        bucket, prefix = Bucket(client(settings.aws, "s3"), address.netloc), address.path.strip("/") + "/"
        for found in bucket.listed(prefix):
            bucket.delete(found.name)
    elif address.scheme in ("", "file"):
        shutil.rmtree(Path(address.path), ignore_errors=True)
    else:
        raise NotDroppedError(f"{place} cannot be deleted from here", hint="delete it by hand: nothing uses it")

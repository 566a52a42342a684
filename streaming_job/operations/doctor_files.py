"""Checks of the archive as a source: it can be listed, and what lies in it can be read."""

from collections.abc import Iterator
from typing import Any

from config.settings import Settings
from streaming_job.files.listing import Archive
from streaming_job.files.options import archive_of
from streaming_job.objects import Bucket
from streaming_job.operations.doctor_findings import Finding, note, ok


def archives(settings: Settings, s3: Any) -> Iterator[Finding]:
    bucket, prefixes = archive_of(settings)
    for prefix in prefixes:
        check = f"archive {bucket.name}/{prefix}"
        objects = Bucket(s3, bucket.name)
        archive = Archive(objects, prefix)
        first = next(iter(archive.look("")), None)
        if first is None:
            yield note(check, "no object of an archive lies there yet", "is the delivery stream running?")
            continue
        folder, found = first
        objects.body(f"{prefix}{folder}{found[0].name}")
        yield ok(check, f"the job may read it; its oldest folder is {folder}")
        if archive.strangers:
            names = ", ".join(sorted(archive.strangers)[:3])
            yield note(check, f"what is none of an archive's is passed over: {names}", "move it away, or leave it")

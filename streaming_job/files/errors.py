"""What stops a query on an archive."""

from config.errors import LakestreamError


class ArchiveSourceError(LakestreamError):
    exit_code = 3


class OffsetError(ArchiveSourceError):
    """The checkpoint is of another source, another bucket or a newer release."""


class ObjectLostError(ArchiveSourceError):
    """An object was there when a batch was planned, and is gone."""

    @classmethod
    def of(cls, place: str) -> "ObjectLostError":
        return cls(
            f"{place} is gone, and its changes were not read",
            hint="put it back, or load the span from a replica or the stream; to go on without it, set "
            "source.fail_on_data_loss to false (a reject then stands for it)",
        )

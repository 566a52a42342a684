"""What the source is given: the job's settings, as the one option that travels to wherever Spark makes it."""

from typing import Final

from config.errors import ConfigurationError
from config.settings import AwsSettings, BucketSettings, FilesSettings, Settings
from config.tables import Frozen
from streaming_job.kinesis.option_values import InitialPosition, initial_position

UNPACKED: Final = 8
"""How much larger an archive's lines are than its objects: gzip makes envelopes a sixth to an eighth."""
_OPTION: Final = "settings"


class FilesOptions(Frozen):
    aws: AwsSettings
    bucket: str
    prefixes: tuple[str, ...]
    stream: str
    """Whose changes they are: it stands in the rows, as if they had been read from it."""
    starting_position: str
    fail_on_data_loss: bool
    stored_bytes_max: int
    files: FilesSettings

    @classmethod
    def of(cls, settings: Settings) -> "FilesOptions":
        source = settings.source
        if source.options:
            raise ConfigurationError(
                "source.options are Auto Loader's where connector is files, and this is not Databricks",
                hint="what our own source takes stands under source.files",
            )
        bucket, prefixes = archive_of(settings)
        options = cls(
            aws=settings.aws,
            bucket=bucket.name,
            prefixes=prefixes,
            stream=source.stream,
            starting_position=source.starting_position,
            fail_on_data_loss=source.fail_on_data_loss,
            stored_bytes_max=max(1, source.batch_bytes_max // UNPACKED),
            files=source.files,
        )
        options.start()
        return options

    def start(self) -> InitialPosition:
        try:
            return initial_position(self.starting_position)
        except ValueError as error:
            raise ConfigurationError(f"source.starting_position: {error}") from error

    def as_spark_options(self) -> dict[str, str]:
        return {_OPTION: self.model_dump_json()}

    @classmethod
    def from_spark_options(cls, options: dict[str, str]) -> "FilesOptions":
        return cls.model_validate_json(options[_OPTION])


def archive_of(settings: Settings) -> tuple[BucketSettings, tuple[str, ...]]:
    """The bucket, and the prefixes that objects land under."""
    if settings.bucket is None:
        raise ConfigurationError("connector files needs a bucket", hint="add `bucket: {name: …}`")
    return settings.bucket, settings.source.files.prefixes or (settings.bucket.archive_prefix,)

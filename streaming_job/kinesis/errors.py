"""What can go wrong between Spark and Kinesis, split by what the reader does about it: retry, reopen, or stop.

The classes that stop the query say what happened, with the shard and position where there is one, and how to mend it.
"""

from config.errors import LakestreamError


class RetryableError(Exception):
    """The same call may succeed in a moment: back off and try again, within the budget."""


class ThrottledError(RetryableError):
    """The shard's read limit is used up; counted apart because another consumer may be the cause."""


class TransientError(RetryableError):
    """Reset, timeout, 5xx: nothing is known about the call's effect, and reads have none."""


class IteratorExpiredError(RetryableError):
    """Iterators live five minutes: take a new one at the last position."""


class SourceError(LakestreamError):
    """Stops the query."""

    exit_code = 3


class OptionError(SourceError):
    """An option is unknown, missing, or out of range; nothing was read."""

    exit_code = 2

    @classmethod
    def of(cls, option: str, problem: str, *, hint: str) -> "OptionError":
        return cls(f"option {option!r}: {problem}", hint=hint)


class StreamMissingError(SourceError):
    """No stream of that name in that region and account."""


class DeniedError(SourceError):
    """Credentials are missing, wrong, or not allowed to read the stream."""


class OffsetError(SourceError):
    """The checkpoint's offset cannot be read by this query: another stream, or a newer version."""


class DataLossError(SourceError):
    """Records that the query has not read are no longer in the stream, or that cannot be ruled out."""

    @classmethod
    def of(cls, where: str, what: str) -> "DataLossError":
        return cls(
            f"{where}: {what}",
            hint="load the missing span from the archive or rebuild the tables; to go on without it, set "
            "failOnDataLoss=false (the loss is then counted), or start with a new checkpoint",
        )


class UnavailableError(SourceError):
    """Kinesis did not answer within the retry budget; a restart continues at the same position."""


class RejectedError(SourceError):
    """Kinesis refused a call for a reason that trying again does not change."""

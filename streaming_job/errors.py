"""What can go wrong in the streaming job, split by what the caller does about it.

LakestreamError
├── StopJobError            end the job; nothing is lost, a person must act
│   ├── LeaseHeldError      another writer has the table
│   ├── LeaseLostError      another writer took the table over while we ran
│   ├── EngineRefusedError  the table carries a feature its engine cannot write
│   ├── HalfATableError     `current` or `history` is gone while the other holds changes
│   ├── CheckpointDamagedError   a file of it cannot be read
│   ├── JobFailedError      the query ended by itself
│   └── SparkGoneError      Spark's process ended under us
└── TableFailedError        park this table's changes, go on with the others, try again later
    ├── CommitConflictError          somebody else commits to the table, again and again
    └── ClaimCheckUnreachableError   the images' object cannot be fetched now
"""

from config.errors import LakestreamError


class StopJobError(LakestreamError):
    exit_code = 3


class LeaseHeldError(StopJobError):
    """One writer a table: the message names the one who holds it and until when."""


class LeaseLostError(StopJobError):
    """A newer fencing token stands in the table; whatever we had in hand was not committed."""


class EngineRefusedError(StopJobError):
    """Writing with this engine would break the table or its readers; nothing was written."""


class HalfATableError(StopJobError):
    """A new table in the place of the lost one would look complete and not be it."""


class CheckpointDamagedError(StopJobError):
    """Where the query stands cannot be told; nothing was started."""


class JobFailedError(StopJobError):
    """The streaming query ended by itself; the checkpoint stands where the last batch was committed."""

    exit_code = 1


class SparkGoneError(StopJobError):
    """Killed from outside, or out of memory; what was committed stands."""

    exit_code = 1


class TableFailedError(LakestreamError):
    """One table cannot be written now. Its changes are parked; the other tables go on."""


class CommitConflictError(TableFailedError):
    pass


class ClaimCheckUnreachableError(TableFailedError):
    pass

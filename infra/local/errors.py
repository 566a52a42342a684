"""Why the embedded stack did not start, stop or answer: what happened, what to do, and the exit code."""

from config.errors import LakestreamError


class StackError(LakestreamError):
    """Base of what `lakestream local` reports."""


class NotPossibleError(StackError):
    """A check before the start failed: nothing was started, nothing was written."""

    exit_code = 2


class NotReadyError(StackError):
    """Something was started and did not come up: all of it has been ended again."""

    exit_code = 3


class NoStackError(StackError):
    """The command needs a running stack and there is none in this folder."""

    exit_code = 4

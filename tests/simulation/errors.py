"""What ends a piece of a run: a process that is gone, or a promise that was not kept."""

AT_REST = "everything comes to rest"
"""The promise that no fault, once mended, leaves a shard blocked or a loop running."""


class KilledError(BaseException):
    """The process is gone: no `except Exception` may survive it."""


class ViolationError(Exception):
    """A promise was not kept. `promise` is the checker's name: shrinking keeps to the same one."""

    def __init__(self, promise: str, what: str) -> None:
        super().__init__(f"{promise}: {what}")
        self.promise = promise
        self.what = what

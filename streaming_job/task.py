"""`lakestream …` as a Databricks wheel task: the same words, and an end that Databricks understands.

There a task is done when its entry point returns, and has failed when it raises; sys.exit, which commands end with,
would be a failure even with 0.
"""

import sys
from collections.abc import Sequence

from config.errors import LakestreamError
from streaming_job.cli import app

_EXIT_CODES = "`lakestream --help` says what exit codes mean"


class TaskFailedError(LakestreamError):
    """The command ended otherwise than done."""


def run(words: Sequence[str]) -> None:
    """TaskFailedError, or what the command raised, unless it was done."""
    try:
        app(list(words))
    except SystemExit as end:
        if end.code not in (0, None):
            raise TaskFailedError(f"lakestream {' '.join(words)}: exit code {end.code}", hint=_EXIT_CODES) from None


def main() -> None:
    run(sys.argv[1:])

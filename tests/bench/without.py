"""`lakestream` with one of its improvements taken away: `python -m tests.bench.without "rows left in a file" run …`."""

import sys
from collections.abc import Callable, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import Any, Final
from unittest.mock import patch

from streaming_job import cli, job
from streaming_job.pipeline import current, history, merge_rust, rust_files, rust_memory, writer
from streaming_job.pipeline.rust_log import LogFolder


def _rows_through_tasks() -> None:
    """Each batch's rows by Spark's executor, as any sink takes them."""
    patch.object(job.Job, "_spool_folder", lambda _: nullcontext()).start()
    patch.object(job, "left_rows", lambda _: None).start()


def _new_rows_wait() -> None:
    patch.object(current, "split", lambda _, rows: (rows.slice(0, 0), rows)).start()


def _one_after_the_other() -> None:
    beside = writer.TableWriter._history_beside

    @contextmanager
    def before(self: writer.TableWriter, *arguments: Any) -> Any:
        with beside(self, *arguments) as writing:
            writing.result()
            yield writing

    patch.object(writer.TableWriter, "_history_beside", before).start()


def _specs_without(module: Any, **left_out: None) -> None:
    spec = module.spec
    patch.object(module, "spec", lambda *arguments: replace(spec(*arguments), **left_out)).start()


def _no_index() -> None:
    """Nor rows that are written first: without an index no key is surely new."""
    _specs_without(current, found_by=None)


def _known_keys_merged() -> None:
    patch.object(rust_memory, "_REPLACED_MAX", -1).start()


def _files_by_queries() -> None:
    patch.object(rust_files.RowFiles, "around", lambda *_: None).start()


def _history_merged() -> None:
    _specs_without(history, dated_by=None)


def _log_listed() -> None:
    """As delta-rs does it: looked through before and after every commit."""
    patch.object(LogFolder, "may_have_grown", lambda *_: True).start()
    patch.object(merge_rust, "after_commit", lambda _: None).start()
    patch.object(rust_memory, "after_commit", lambda _: None).start()


def _checksummed_checkpoints() -> None:
    patch.object(job, "write_checkpoints_quickly", lambda *_: None).start()


@dataclass(frozen=True)
class Improvement:
    instead: str
    take_away: Callable[[], None]


IMPROVEMENTS: Final[Mapping[str, Improvement]] = {
    "rows left in a file": Improvement("rows through Spark's tasks", _rows_through_tasks),
    "new rows first": Improvement("one merge for all of a batch's rows", _new_rows_wait),
    "history beside current": Improvement("history first, then current", _one_after_the_other),
    "index of keys": Improvement("merges of current by key alone", _no_index),
    "known keys replaced": Improvement("delta-rs' merge for the rows that are there", _known_keys_merged),
    "files written by us": Improvement("replaced rows' files by queries of delta-rs", _files_by_queries),
    "history appended": Improvement("a merge for what is surely new, too", _history_merged),
    "log listed less": Improvement("the log looked through as delta-rs does", _log_listed),
    "plain checkpoint files": Improvement("Spark's checkpoints as Hadoop writes them", _checksummed_checkpoints),
}


def main() -> None:
    IMPROVEMENTS[sys.argv.pop(1)].take_away()
    cli.main()


if __name__ == "__main__":
    main()

"""Processes of our own that flatten parts of a large batch: what a batch costs in Python is mostly that.

A small batch is flattened where it is: handing rows over and back costs more than they do. The first large one starts
the processes, and goes without them; those that follow are divided. What a process does not do - it ended, or failed -
is done here, so that it decides how long a batch takes, never what comes of it.
"""

import logging
import os
import pickle
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import pairwise
from typing import IO, Any, Final

import pyarrow as pa
from pyspark.sql.types import StructType

from config.tables import TableConfig
from streaming_job.pipeline.arrow import from_ipc, table, to_ipc
from streaming_job.pipeline.flatten import Flattened, Flattener, Part

log = logging.getLogger("lakestream.pipeline")

PART_ROWS_MIN: Final = 1_000
"""Of telemetry 0.1 s of work, which two more copies of its bytes are worth."""
_NEEDED: Final = ["new", "types"]
_READY: Final = "ready"


class Worker:
    """The near end of one process."""

    def __init__(self) -> None:
        # What we can import, it can.
        path = os.pathsep.join(filter(None, sys.path))
        self._process = subprocess.Popen(
            [sys.executable, "-m", "streaming_job.pipeline.flatten_workers"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": path},
        )
        self._is_ready = self._is_asked = False

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def is_ready(self) -> bool:
        """Its imports take a second, for which no batch waits."""
        if not self._is_ready and select.select([self._answers], [], [], 0)[0]:
            with suppress(EOFError):  # it has ended
                self._is_ready = self._answer() == _READY
        return self._is_ready

    @property
    def is_fit(self) -> bool:
        """Not where it ended, nor where an answer that nobody fetched would be taken for the next one's."""
        return not self._is_asked and self._process.poll() is None

    def ask(self, config: TableConfig, known: StructType | None, changes: pa.Table) -> None:
        """To be followed by `part`."""
        self._is_asked = True
        with suppress(OSError):  # it has ended, which `part` finds
            pickle.dump((config, known, to_ipc(changes.select(_NEEDED))), self._questions)
            self._questions.flush()

    def part(self) -> Part | None:
        """None where it could not do it."""
        try:
            answer = self._answer()
        except (EOFError, OSError, pickle.UnpicklingError):
            return None  # it has ended
        self._is_asked = False
        if answer is None:
            return None
        rows, packed, unplaced, kept = answer
        columns = from_ipc(packed)
        held = {name: columns[name].combine_chunks() for name in columns.column_names}
        return Part(rows, held, unplaced, kept)

    def end(self) -> None:
        """It keeps nothing that is worth waiting for."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._questions, self._answers):
            with suppress(OSError):
                pipe.close()

    def _answer(self) -> Any:
        return pickle.load(self._answers)  # noqa: S301 - of a process of ours

    @property
    def _questions(self) -> IO[bytes]:
        assert self._process.stdin is not None
        return self._process.stdin

    @property
    def _answers(self) -> IO[bytes]:
        assert self._process.stdout is not None
        return self._process.stdout


class Workers:
    """All of a job's, for whichever of its tables has a large batch."""

    def __init__(self, count: int, part_rows_min: int = PART_ROWS_MIN) -> None:
        self._count = count
        self._part_rows_min = part_rows_min
        self._started = False
        self._lock = threading.Lock()
        self._free: list[Worker] = []

    @contextmanager
    def borrow(self, rows: int) -> Iterator[Sequence[Worker]]:
        """As many as there are parts to be had of so many rows, and free; often none."""
        wanted = min(self._count, rows // self._part_rows_min - 1)
        if wanted < 1:
            yield ()
            return
        with self._lock:
            if not self._started:
                self._start()
            taken = [worker for worker in self._free if worker.is_ready][:wanted]
            self._free = [worker for worker in self._free if worker not in taken]
        try:
            yield taken
        finally:
            with self._lock:
                self._free += taken
                self._let_go_of_unfit()

    def _start(self) -> None:
        self._started = True
        try:
            for _ in range(self._count):
                self._free.append(Worker())
        except OSError as error:
            log.warning("no process to flatten in; the job does it itself", extra={"reason": str(error)})

    def _let_go_of_unfit(self) -> None:
        for worker in [each for each in self._free if not each.is_fit]:
            self._free.remove(worker)
            log.warning(
                "a process that flattens ended; the job goes on without it",
                extra={"pid": worker.pid, "processes_left": len(self._free)},
            )
            worker.end()

    def end(self) -> None:
        with self._lock:
            for worker in self._free:
                worker.end()
            self._free = []


class SharedFlattener:
    """As `Flattener`, with other processes where a batch is large."""

    def __init__(self, config: TableConfig, workers: Workers) -> None:
        self._config = config
        self._own = Flattener(config)
        self._workers = workers

    def rows(self, changes: pa.Table, known: StructType | None) -> Flattened:
        with self._workers.borrow(changes.num_rows) as workers:
            if not workers:
                return self._own.rows(changes, known)
            ours, *theirs = _divided(changes, 1 + len(workers))
            for worker, part in zip(workers, theirs, strict=True):
                worker.ask(self._config, known, part)
            try:
                parts = [self._own.part(ours, known)]
            finally:
                # Whatever became of ours: a process whose answer nobody fetched is of no more use.
                answers = [worker.part() for worker in workers]
            parts += [answer or self._own.part(part, known) for answer, part in zip(answers, theirs, strict=True)]
        return self._own.join(changes, known, parts)


def _divided(changes: pa.Table, parts: int) -> list[pa.Table]:
    bounds = [changes.num_rows * part // parts for part in range(parts + 1)]
    return [changes.slice(start, end - start) for start, end in pairwise(bounds)]


# --- the far end ------------------------------------------------------------------------------------------------------


def serve(questions: IO[bytes], answers: IO[bytes]) -> None:
    """Until there are no more questions."""
    flatteners: dict[str, tuple[TableConfig, Flattener]] = {}
    pickle.dump(_READY, answers)
    answers.flush()
    while True:
        try:
            config, known, packed = pickle.load(questions)  # noqa: S301 - of the process that started us
        except EOFError:
            return
        held = flatteners.get(config.table)
        if held is None or held[0] != config:
            held = flatteners[config.table] = config, Flattener(config)
        pickle.dump(_part(held[1], known, from_ipc(packed)), answers)
        answers.flush()


def _part(flattener: Flattener, known: StructType | None, changes: pa.Table) -> Any:
    try:
        part = flattener.part(changes, known)
    except Exception:  # noqa: BLE001 - whoever asked does it himself, and meets the same
        return None
    return part.rows, to_ipc(table(part.columns)), part.unplaced, part.kept


def main() -> None:
    # Ctrl-C reaches every process of a terminal: when to end is the job's to say.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    # Whatever is printed is no answer.
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    serve(sys.stdin.buffer, answers)


if __name__ == "__main__":
    main()

"""One shard's record processor, as the library's daemon starts it: `python -m streaming_job.latency.probe.processor`.

Its standard input and output belong to the daemon. It keeps nothing: what it sees goes to the hub, and a checkpoint is
written only after the hub has it. Where the hub is gone it ends, and its daemon ends with it.
"""

import json
import os
import socket
import sys
import time
from typing import Any, Final

from amazon_kclpy import kcl
from amazon_kclpy.v3 import processor

from streaming_job.latency.probe.observation import observe
from streaming_job.latency.probe.wire import SOCKET_VARIABLE, TAKEN

CHECKPOINT_S: Final = 2.0
"""After a kill so much of a shard is handed over again."""


class HubLink:
    def __init__(self, path: str) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.connect(path)

    def tell(self, message: dict[str, Any]) -> None:
        try:
            self._socket.sendall(json.dumps(message, separators=(",", ":")).encode() + b"\n")
            if self._socket.recv(1) == TAKEN:
                return
        except OSError as error:
            sys.stderr.write(f"probe: the hub is gone: {error}\n")
        # The library's own loop swallows exceptions; this ends the process.
        raise SystemExit(1)


# The library has no types.
class ShardProcessor(processor.RecordProcessorBase):  # type: ignore[misc]
    def __init__(self, hub: HubLink) -> None:
        self._hub = hub
        self._next_checkpoint_s = time.monotonic() + CHECKPOINT_S
        self._is_unsaved = False

    def initialize(self, given: Any) -> None:
        after = str(given.sequence_number)
        self._hub.tell({"began": given.shard_id, "after": after if after.isdigit() else None})

    def process_records(self, given: Any) -> None:
        observations = [
            observe(
                record.sequence_number,
                round(record.approximate_arrival_timestamp.timestamp() * 1000),
                record.binary_data,
            ).packed()
            for record in given.records
        ]
        self._hub.tell({"records": observations, "behind_ms": given.millis_behind_latest or 0})
        self._is_unsaved = self._is_unsaved or bool(observations)
        if self._is_unsaved and time.monotonic() >= self._next_checkpoint_s:
            self._checkpoint(given.checkpointer)

    def lease_lost(self, _given: Any) -> None:
        self._hub.tell({"ended": True})

    def shard_ended(self, given: Any) -> None:
        self._checkpoint(given.checkpointer)
        self._hub.tell({"ended": True})

    def shutdown_requested(self, given: Any) -> None:
        self._checkpoint(given.checkpointer)

    def _checkpoint(self, checkpointer: Any) -> None:
        try:
            checkpointer.checkpoint()
        except kcl.CheckpointError as error:
            # The lease is another's by now, or the table was busy: what was not written down comes again.
            sys.stderr.write(f"probe: no checkpoint: {error}\n")
            return
        self._is_unsaved = False
        self._next_checkpoint_s = time.monotonic() + CHECKPOINT_S


if __name__ == "__main__":
    kcl.KCLProcess(ShardProcessor(HubLink(os.environ[SOCKET_VARIABLE]))).run()

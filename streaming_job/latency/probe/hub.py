"""Where the shards' processors tell what they see: a socket in a folder of our own, one connection a processor.

Each message is a line of JSON, answered when it has been taken: only then does a processor write a checkpoint. A
processor whose connection ends has lost its shard; one that cannot reach us ends, and its daemon with it.
"""

import json
import socketserver
import threading
from pathlib import Path
from typing import Any

from streaming_job.latency.probe.findings import Findings
from streaming_job.latency.probe.observation import Observation
from streaming_job.latency.probe.wire import TAKEN


class _Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True


class Hub:
    def __init__(self, path: Path, findings: Findings) -> None:
        self._server = _Server(str(path), _handler(findings))
        self._thread = threading.Thread(target=self._server.serve_forever, name="probe-hub", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()


def _handler(findings: Findings) -> type[socketserver.StreamRequestHandler]:
    class Handler(socketserver.StreamRequestHandler):
        shard = ""

        def handle(self) -> None:
            for line in self.rfile:
                self._take(json.loads(line))
                self.wfile.write(TAKEN)

        def finish(self) -> None:
            if self.shard:
                findings.ended(self.shard)
            super().finish()

        def _take(self, message: dict[str, Any]) -> None:
            match message:
                case {"began": shard, "after": after}:
                    self.shard = shard
                    findings.began(shard, after)
                case {"records": records, "behind_ms": behind_ms}:
                    findings.took(self.shard, map(Observation.unpacked, records), behind_ms)
                case {"ended": _}:
                    findings.ended(self.shard)
                    self.shard = ""

    return Handler

"""A proxy between the source and an emulator that breaks calls on demand and counts what it saw."""

import json
import socket
import struct
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import urllib3

Body = dict[str, Any]


@dataclass
class Fault:
    """What happens to the next `times` calls of `operation`."""

    kind: str
    operation: str = "GetRecords"
    times: int = 1
    seconds: float = 0.0


_ERRORS = {
    "throttle": (400, "ProvisionedThroughputExceededException"),
    "expired": (400, "ExpiredIteratorException"),
    "internal": (500, "InternalFailure"),
    "unavailable": (503, "ServiceUnavailable"),
    "denied": (400, "AccessDeniedException"),
    "kms": (400, "KMSAccessDeniedException"),
    "missing": (400, "ResourceNotFoundException"),
}


@dataclass
class BreakingProxy:
    target: str
    seen: Counter[str] = field(default_factory=Counter)
    broken: Counter[str] = field(default_factory=Counter)
    rewrite: Callable[[str, Body], Body] | None = None
    """Changes answers on their way back, for what no emulator does: trimming."""
    _faults: list[Fault] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _pool: urllib3.PoolManager = field(default_factory=lambda: urllib3.PoolManager(maxsize=32, retries=False))
    url: str = ""

    def breaks(self, *faults: Fault) -> None:
        with self._lock:
            self._faults.extend(faults)

    def heal(self) -> None:
        with self._lock:
            self._faults.clear()

    def _fault(self, operation: str) -> Fault | None:
        with self._lock:
            self.seen[operation] += 1
            for fault in self._faults:
                if fault.operation == operation and fault.times > 0:
                    fault.times -= 1
                    self.broken[fault.kind] += 1
                    return fault
        return None

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        operation = handler.headers.get("X-Amz-Target", "").split(".")[-1]
        body = handler.rfile.read(int(handler.headers.get("Content-Length", "0")))
        fault = self._fault(operation)
        if fault is not None and fault.kind == "reset":
            # Linger of zero seconds: closing sends a reset instead of a farewell.
            handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            handler.close_connection = True
            handler.connection.close()
            return
        if fault is not None and fault.kind == "slow":
            threading.Event().wait(fault.seconds)
        if fault is not None and fault.kind in _ERRORS:
            status, code = _ERRORS[fault.kind]
            content = json.dumps({"__type": code, "message": "broken on demand"}).encode()
            _send(handler, status, content, len(content))
            return
        refused = None
        if fault is not None and fault.kind == "partial":
            body, refused = _every_other(body)
        reply = self._forward(handler, body)
        content = reply.data if refused is None else _with_refused(reply.data, refused)
        if self.rewrite is not None and reply.status == 200:
            content = json.dumps(self.rewrite(operation, json.loads(content or b"{}"))).encode()
        cut = len(content) // 2 if fault is not None and fault.kind == "cut" else len(content)
        _send(handler, reply.status, content[:cut], len(content))
        if cut < len(content):
            handler.close_connection = True

    def _forward(self, handler: BaseHTTPRequestHandler, body: bytes) -> urllib3.BaseHTTPResponse:
        headers = {name: value for name, value in handler.headers.items() if name.lower() != "content-length"}
        return self._pool.request("POST", self.target, body=body, headers=headers, preload_content=True)


def _every_other(body: bytes) -> tuple[bytes, int]:
    """A PutRecords call with each second record taken out; how many it had."""
    call = json.loads(body)
    count = len(call["Records"])
    call["Records"] = call["Records"][::2]
    return json.dumps(call).encode(), count


def _with_refused(content: bytes, count: int) -> bytes:
    """The answer as Kinesis gives it when it took each second record only."""
    answer = json.loads(content)
    taken = iter(answer["Records"])
    refused = {"ErrorCode": "ProvisionedThroughputExceededException", "ErrorMessage": "broken on demand"}
    answer["Records"] = [refused if at % 2 else next(taken) for at in range(count)]
    answer["FailedRecordCount"] = count // 2
    return json.dumps(answer).encode()


def _send(handler: BaseHTTPRequestHandler, status: int, content: bytes, length: int) -> None:
    handler.send_response(status)
    handler.send_header("Content-Type", "application/x-amz-json-1.1")
    handler.send_header("Content-Length", str(length))
    handler.end_headers()
    handler.wfile.write(content)


@contextmanager
def breaking_proxy(target: str) -> Iterator[BreakingProxy]:
    proxy = BreakingProxy(target)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            try:
                proxy.answer(self)
            except OSError:
                # The client gave up waiting for a slow answer.
                self.close_connection = True

        def log_message(self, *_: object) -> None:
            """Quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    proxy.url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield proxy
    finally:
        server.shutdown()
        server.server_close()
        thread.join()

"""The inside of an execution environment: a process that imports the handler once and runs it, event by event.

    python -m infra.local.mapping.environment FD handler [code folder]

It speaks over the socket FD, pickled nothing, JSON only. When the mapping is gone, so is this process, at once: an
invocation that outlived its mapping could write older changes after newer ones.
"""

import importlib
import json
import os
import queue
import sys
import threading
import time
import traceback
from multiprocessing.connection import Connection
from types import SimpleNamespace
from typing import Any


class Context(SimpleNamespace):
    """What Lambda's Python runtime hands a handler besides the event."""

    deadline_ms: int

    def get_remaining_time_in_millis(self) -> int:
        return max(0, self.deadline_ms - int(time.time() * 1000))


def _context(header: dict[str, Any]) -> Context:
    environment = os.environ
    return Context(
        aws_request_id=header["request_id"],
        function_name=environment["AWS_LAMBDA_FUNCTION_NAME"],
        function_version=environment["AWS_LAMBDA_FUNCTION_VERSION"],
        invoked_function_arn=header["function_arn"],
        memory_limit_in_mb=environment["AWS_LAMBDA_FUNCTION_MEMORY_SIZE"],
        log_group_name=environment["AWS_LAMBDA_LOG_GROUP_NAME"],
        log_stream_name=environment["AWS_LAMBDA_LOG_STREAM_NAME"],
        identity=SimpleNamespace(cognito_identity_id=None, cognito_identity_pool_id=None),
        client_context=None,
        deadline_ms=header["deadline_ms"],
    )


def _receive(connection: Connection, events: "queue.SimpleQueue[tuple[bytes, bytes]]") -> None:
    try:
        while True:
            events.put((connection.recv_bytes(), connection.recv_bytes()))
    except (EOFError, OSError):
        os._exit(0)  # the mapping ended, killed or not: stop in the middle of whatever runs


def _answer(connection: Connection, header: dict[str, Any], payload: bytes = b"") -> None:
    sys.stdout.flush()
    connection.send_bytes(json.dumps(header).encode())
    connection.send_bytes(payload)


def _failure(error: BaseException) -> dict[str, Any]:
    traceback.print_exc()
    return {"ok": False, "error": type(error).__name__, "message": str(error)}


def _invoke(connection: Connection, handler: Any, header: dict[str, Any], event: bytes) -> None:
    os.environ["_X_AMZN_TRACE_ID"] = header["trace_id"]
    try:
        response = handler(json.loads(event), _context(header))
    except Exception as error:  # noqa: BLE001 - whatever a handler raises is the answer, as in Lambda
        return _answer(connection, _failure(error))
    try:
        payload = json.dumps(response).encode()
    except (TypeError, ValueError) as error:
        return _answer(connection, _failure(error) | {"error": "Runtime.MarshalError"})
    return _answer(connection, {"ok": True}, payload)


def main() -> None:
    descriptor, handler_path, *code = sys.argv[1:]
    connection = Connection(int(descriptor))
    events: queue.SimpleQueue[tuple[bytes, bytes]] = queue.SimpleQueue()
    threading.Thread(target=_receive, args=(connection, events), daemon=True).start()
    if code:
        sys.path.insert(0, code[0])
    module, _, function = handler_path.rpartition(".")
    try:
        handler = getattr(importlib.import_module(module), function)
    except BaseException as error:  # noqa: BLE001 - an import may raise anything, SystemExit included
        _answer(connection, _failure(error))
        return
    _answer(connection, {"ok": True})
    while True:
        header, event = events.get()
        _invoke(connection, handler, json.loads(header), event)


if __name__ == "__main__":
    main()

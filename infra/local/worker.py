"""What the local workers (mapping, delivery) share: settings, JSON log lines, metrics, signals, AWS clients."""

import argparse
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

from botocore.exceptions import BotoCoreError, ClientError, HTTPClientError
from botocore.exceptions import ConnectionError as ServiceUnreachable
from prometheus_client import CollectorRegistry
from pydantic import ValidationError

from config.errors import ConfigurationError, LakestreamError
from config.settings import AwsSettings, HttpSettings
from config.tables import Frozen
from streaming_job import aws
from streaming_job.http import HttpServer, metrics_application

_Settings = TypeVar("_Settings", bound=Frozen)

ServiceError = (BotoCoreError, ClientError)


class Log:
    """One JSON object a line on stdout, from any thread, never torn."""

    def __init__(self, worker: str) -> None:
        self._worker = worker
        self._lock = threading.Lock()

    def info(self, event: str, **fields: Any) -> None:
        self._write("info", event, fields)

    def warning(self, event: str, **fields: Any) -> None:
        self._write("warning", event, fields)

    def problem(self, event: str, **fields: Any) -> None:
        self._write("error", event, fields)

    def passed_on(self, line: str) -> None:
        """A line that the function wrote: as it is when it is JSON (a log line, an EMF metric), wrapped when not."""
        if line.startswith("{") and line.endswith("}"):
            self._line(line)
        elif line:
            self._write("info", "function_output", {"line": line})

    def _write(self, level: str, event: str, fields: dict[str, Any]) -> None:
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        self._line(
            json.dumps({"ts": now, "level": level, "worker": self._worker, "event": event, **fields}, default=str)
        )

    def _line(self, line: str) -> None:
        with self._lock:
            sys.stdout.write(line + "\n")
            sys.stdout.flush()


def load(path: Path, model: type[_Settings]) -> _Settings:
    try:
        return model.model_validate(json.loads(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise ConfigurationError(f"cannot read {path}: {error.strerror}") from error
    except json.JSONDecodeError as error:
        raise ConfigurationError(f"{path} is not JSON: {error}") from error
    except ValidationError as error:
        what = ConfigurationError.of_validation(path, error).what
        raise ConfigurationError(what, hint=f"{model.__module__} lists every key") from error


def serve_metrics(registry: CollectorRegistry, port: int | None) -> int | None:
    """The port that /metrics answers on; None when none is asked for."""
    if port is None:
        return None
    server = HttpServer(metrics_application(registry), HttpSettings(port=port))
    server.start()
    return server.port


def client(service: str, *, endpoint: str | None, region: str, connections_max: int = 10) -> Any:
    """One attempt a call: the workers pace their own retries, and count them."""
    settings = AwsSettings(region=region, endpoint=endpoint)
    return aws.client(settings, service, attempts=1, connections=connections_max, read_timeout_s=30)


_PASSING = {"ThrottlingException", "LimitExceededException", "ProvisionedThroughputExceededException", "SlowDown"}
_SERVER_ERROR = 500


def is_passing(error: Exception) -> bool:
    """Whether the same call may succeed later: the service cannot be reached, is busy, or failed on its own."""
    if isinstance(error, ServiceUnreachable | HTTPClientError):
        return True
    if isinstance(error, ClientError):
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        return error_code(error) in _PASSING or status >= _SERVER_ERROR
    return False


def error_code(error: Exception) -> str:
    return str(error.response.get("Error", {}).get("Code", "")) if isinstance(error, ClientError) else ""


def one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def backoff_s(failures: int, *, first_s: float, longest_s: float) -> float:
    return float(min(longest_s, first_s * 2 ** min(failures - 1, 20)))


def _stop_on_signals(stop: threading.Event) -> None:
    """A thread sets the event: a handler would run in the main thread, which may hold the event's lock just then."""
    ours, theirs = os.pipe()
    os.set_blocking(theirs, False)
    signal.set_wakeup_fd(theirs)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)

    def wait() -> None:
        os.read(ours, 1)
        stop.set()

    threading.Thread(target=wait, daemon=True).start()


def main(worker: str, run: Callable[[Path, Log, threading.Event], None]) -> int:
    """Runs a worker until SIGTERM or SIGINT; an error a person can mend is one line on stderr, not a trace."""
    parser = argparse.ArgumentParser(prog=f"python -m infra.local.{worker}")
    parser.add_argument("--settings", type=Path, required=True, metavar="FILE.json")
    arguments = parser.parse_args()
    stop = threading.Event()
    _stop_on_signals(stop)
    log = Log(worker)
    started = time.monotonic()
    try:
        run(arguments.settings, log, stop)
    except LakestreamError as error:
        log.problem("failed", what=error.what, hint=error.hint)
        sys.stderr.write(f"{worker}: {error}\n")
        return error.exit_code
    log.info("stopped", ran_s=round(time.monotonic() - started, 3))
    return 0

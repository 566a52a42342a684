"""Where the handler runs: a pool of execution environments, each a process of its own, one event at a time."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from typing import Any

from config.settings import AwsSettings
from infra.local.mapping.outcome import Failed, NotInvoked, Outcome, Returned
from infra.local.mapping.settings import FunctionSettings
from streaming_job.aws import emulator_credentials

_START_S_MAX = 60.0
"""Lambda gives an init phase 10 s; a loaded machine may need longer, and a slow start is not what is tested."""
_INHERITED = (
    "PATH",
    "PYTHONPATH",
    "LD_LIBRARY_PATH",
    "LANG",
    "LC_ALL",
    "HOME",
    "TMPDIR",
    "VIRTUAL_ENV",
    "NO_PROXY",
    "no_proxy",
)
_CREDENTIALS = (
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "AWS_PROFILE",
    "AWS_CONFIG_FILE",
    "AWS_SHARED_CREDENTIALS_FILE",
    "AWS_EC2_METADATA_DISABLED",
)


def variables(function: FunctionSettings, *, endpoint: str | None, region: str) -> dict[str, str]:
    """Lambda's reserved variables, credentials, and what the function was configured with; nothing else of ours."""
    inherited = {name: os.environ[name] for name in (*_INHERITED, *_CREDENTIALS) if name in os.environ}
    made_up = emulator_credentials(AwsSettings(region=region, endpoint=endpoint))
    given = {name.upper(): value for name, value in made_up.items()}
    reserved = {
        "AWS_REGION": region,
        "AWS_DEFAULT_REGION": region,
        "AWS_EXECUTION_ENV": f"AWS_Lambda_python{sys.version_info.major}.{sys.version_info.minor}",
        "AWS_LAMBDA_FUNCTION_NAME": function.name,
        "AWS_LAMBDA_FUNCTION_VERSION": "$LATEST",
        "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": str(function.memory_mb),
        "AWS_LAMBDA_INITIALIZATION_TYPE": "on-demand",
        "AWS_LAMBDA_RUNTIME_API": "127.0.0.1:9001",  # by which code tells that it runs in Lambda; nobody listens
        "AWS_LAMBDA_LOG_GROUP_NAME": f"/aws/lambda/{function.name}",
        "LAMBDA_TASK_ROOT": str(function.code or os.getcwd()),  # noqa: PTH109 - a string is what the variable holds
        "_HANDLER": function.handler,
        "TZ": ":UTC",
        "PYTHONUNBUFFERED": "1",
    }
    emulator = {"AWS_ENDPOINT_URL": endpoint} if endpoint else {}
    return inherited | given | emulator | function.env | reserved


def _trace_id() -> str:
    """Not sampled: there is no X-Ray daemon here to tell."""
    return f"Root=1-{int(time.time()):08x}-{uuid.uuid4().hex[:24]};Parent={uuid.uuid4().hex[:16]};Sampled=0"


class Environment:
    """One process. Killed when it takes too long, and never reused after a failure of its own."""

    def __init__(self, function: FunctionSettings, env: dict[str, str], output: Callable[[str], None]) -> None:
        self._function = function
        ours, theirs = Pipe()
        log_stream = f"{time.strftime('%Y/%m/%d', time.gmtime())}/[$LATEST]{uuid.uuid4().hex}"
        try:
            self._process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "infra.local.mapping.environment", str(theirs.fileno()), function.handler),
                    *([str(function.code)] if function.code else []),
                ],
                env=env | {"AWS_LAMBDA_LOG_STREAM_NAME": log_stream},
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                start_new_session=True,
            )
        finally:
            theirs.close()
        self._connection: Connection[Any, Any] = ours
        self._is_ended = False
        self._output = threading.Thread(target=self._forward, args=(output,), daemon=True)
        self._output.start()

    def start(self) -> Outcome:
        """Waits until the handler is imported."""
        answer = self._receive(_START_S_MAX, "Runtime.InitTimeout")
        return answer if isinstance(answer, Failed) else Returned(None)

    def invoke(self, event: bytes, *, function_arn: str) -> Outcome:
        deadline_ms = int((time.time() + self._function.timeout_s) * 1000)
        header = {
            "request_id": str(uuid.uuid4()),
            "function_arn": function_arn,
            "deadline_ms": deadline_ms,
            "trace_id": _trace_id(),
        }
        try:
            self._connection.send_bytes(json.dumps(header).encode())
            self._connection.send_bytes(event)
        except OSError:
            return self._ended()
        return self._receive(self._function.timeout_s, "Sandbox.Timedout")

    def _receive(self, within_s: float, timeout_error: str) -> Outcome:
        try:
            if not self._connection.poll(within_s):
                self.end()
                return Failed(timeout_error, f"timed out after {within_s:g} seconds")
            header = json.loads(self._connection.recv_bytes())
            payload = self._connection.recv_bytes()
        except (EOFError, OSError):
            return self._ended()
        if not header["ok"]:
            return Failed(header["error"], header["message"])
        return Returned(json.loads(payload) if payload else None)

    def _ended(self) -> Failed:
        self.end()
        return Failed("Runtime.ExitError", f"the function's process ended with status {self._process.returncode}")

    @property
    def lives(self) -> bool:
        return self._process.poll() is None

    def end(self) -> None:
        """The process, and whatever it started, by its process group."""
        if self._is_ended:
            return
        self._is_ended = True
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._connection.close()

    def _forward(self, output: Callable[[str], None]) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as lines:
            for line in lines:
                output(line.rstrip("\n"))


class Functions:
    """Environments on demand: one for each invocation that runs at the same time, kept warm for the next."""

    def __init__(
        self, function: FunctionSettings, *, env: dict[str, str], function_arn: str, output: Callable[[str], None]
    ) -> None:
        self._function = function
        self._env = env
        self._arn = function_arn
        self._output = output
        self._idle: list[Environment] = []
        self._all: set[Environment] = set()
        self._lock = threading.Lock()
        self.started = 0

    def warm(self) -> Outcome:
        """One environment ahead of the first change, so that it does not wait for an import."""
        environment = self._take()
        if isinstance(environment, Environment):
            self._give_back(environment)
            return Returned(None)
        return environment

    def invoke(self, event: bytes) -> Outcome:
        environment = self._take()
        if not isinstance(environment, Environment):
            return environment
        outcome = environment.invoke(event, function_arn=self._arn)
        self._give_back(environment)
        return outcome

    def _take(self) -> Environment | Failed | NotInvoked:
        with self._lock:
            while self._idle:
                environment = self._idle.pop()
                if environment.lives:
                    return environment
                self._drop(environment)
        try:
            environment = Environment(self._function, self._env, self._output)
        except OSError as error:
            return NotInvoked(f"no process for the function: {error.strerror}")
        with self._lock:
            self._all.add(environment)
            self.started += 1
        outcome = environment.start()
        if isinstance(outcome, Failed):
            with self._lock:
                self._drop(environment)
            return outcome
        return environment

    def _give_back(self, environment: Environment) -> None:
        with self._lock:
            if environment.lives:
                self._idle.append(environment)
            else:
                self._drop(environment)

    def _drop(self, environment: Environment) -> None:
        environment.end()
        self._all.discard(environment)

    def end(self) -> None:
        with self._lock:
            for environment in tuple(self._all):
                self._drop(environment)
            self._idle.clear()

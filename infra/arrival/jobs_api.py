"""What the trigger asks of Databricks' jobs, over HTTP: a few calls, each tried again while there is time.

The standard library alone: the SDK would be most of the function's cold start.
"""

import http.client
import json
import random
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol
from urllib.parse import urlencode, urlsplit

TIMEOUT_S: Final = 10.0
RESERVE_MS: Final = 3_000.0
"""Left for saying what came of it."""
BACK_OFF_S: Final = 0.5
BACK_OFF_S_MAX: Final = 8.0
_LOOPBACK: Final = frozenset({"127.0.0.1", "localhost", "::1"})
_SAID_MAX: Final = 300


class ArrivalError(Exception):
    """No run was started. The queue keeps what arrived, and the trigger is called with it again."""

    def __init__(self, what: str, *, hint: str) -> None:
        super().__init__(what)
        self.what = what
        self.hint = hint


class TokenRefusedError(ArrivalError):
    """Expired, revoked, or without the right to run the job: somebody has to mend it."""


class RefusedError(ArrivalError):
    """Asked for what cannot be, as a job that does not exist."""


class UnavailableError(ArrivalError):
    """Throttled, failing, slow or out of reach for as long as there was time."""


class _AgainError(Exception):
    def __init__(self, what: str, wait_s: float | None = None) -> None:
        super().__init__(what)
        self.wait_s = wait_s


@dataclass(frozen=True, slots=True)
class Run:
    run_id: int
    state: str
    result: str
    """How it ended: SUCCESS, or why not; empty before."""
    start_ms: int
    page: str

    @classmethod
    def of_json(cls, run: Mapping[str, Any]) -> "Run":
        status = run.get("status", {})
        return cls(
            run_id=int(run["run_id"]),
            state=str(status.get("state", "")),
            result=str(status.get("termination_details", {}).get("code", "")),
            start_ms=int(run.get("start_time") or 0),
            page=str(run.get("run_page_url", "")),
        )


class Clock(Protocol):
    def sleep(self, seconds: float) -> None: ...


@dataclass(slots=True)
class JobsApi:
    host: str
    job_id: int
    token: Callable[[], str]
    remaining_ms: Callable[[], float]
    clock: Clock
    timeout_s: float = TIMEOUT_S
    retries: int = 0

    def settings(self) -> Mapping[str, Any]:
        found: Mapping[str, Any] = self._call("GET", "jobs/get", {"job_id": self.job_id})["settings"]
        return found

    def newest_runs(self) -> list[Run]:
        """The newest first, ended ones too."""
        answer = self._call("GET", "jobs/runs/list", {"job_id": self.job_id, "limit": 20})
        return [Run.of_json(run) for run in answer.get("runs", ())]

    def run(self, run_id: int) -> Run:
        return Run.of_json(self._call("GET", "jobs/runs/get", {"run_id": run_id}))

    def run_now(self, token: str) -> int:
        """The run's id. Asked again with the same token, Databricks starts no other."""
        asked = {"job_id": self.job_id, "idempotency_token": token, "queue": {"enabled": True}}
        return int(self._call("POST", "jobs/run-now", asked)["run_id"])

    def _call(self, method: str, path: str, asked: Mapping[str, Any]) -> dict[str, Any]:
        attempt = 0
        while True:
            try:
                return self._once(method, f"/api/2.2/{path}", asked)
            except _AgainError as error:
                wait_s = error.wait_s if error.wait_s is not None else _back_off_s(attempt)
                if self.remaining_ms() < RESERVE_MS + wait_s * 1000:
                    hint = "it is tried again by itself; if it stays so, is DatabricksHost the workspace's?"
                    raise UnavailableError(f"{path}: {error}", hint=hint) from error
                attempt += 1
                self.retries += 1
                self.clock.sleep(wait_s)

    def _once(self, method: str, path: str, asked: Mapping[str, Any]) -> dict[str, Any]:
        connection = _connection(self.host, self._patience_s())
        query, body = (f"?{urlencode(asked)}", None) if method == "GET" else ("", json.dumps(asked))
        try:
            headers = {"Authorization": f"Bearer {self.token()}", "User-Agent": "lakestream-arrival"}
            connection.request(method, path + query, body, headers)
            response = connection.getresponse()
            said = response.read()
        except (OSError, http.client.HTTPException) as error:
            raise _AgainError(f"no answer: {type(error).__name__}") from error
        finally:
            connection.close()
        return _sorted(response, path, said)

    def _patience_s(self) -> float:
        return min(self.timeout_s, max(0.1, (self.remaining_ms() - RESERVE_MS) / 1000))


def _sorted(response: http.client.HTTPResponse, path: str, said: bytes) -> dict[str, Any]:
    """The answer; or the error, by what is to be done about it."""
    status = response.status
    if status == 429 or status >= 500:
        raise _AgainError(f"answered {status}", _seconds(response.headers.get("Retry-After")))
    if status in (401, 403):
        raise TokenRefusedError(
            f"Databricks refuses the token ({status}): {_text(said)}",
            hint="put a new token into the secret; whose it is must have CAN_MANAGE_RUN on the job",
        )
    try:
        answer = json.loads(said)
    except ValueError:
        answer = None
    if status != 200 or not isinstance(answer, dict):
        raise RefusedError(
            f"{path} answered {status}: {_text(said)}", hint="are DatabricksHost and ArrivalJobId those of the job?"
        )
    return answer


def _text(said: bytes) -> str:
    return " ".join(said.decode(errors="replace").split())[:_SAID_MAX]


def _seconds(retry_after: str | None) -> float | None:
    return float(retry_after) if retry_after is not None and retry_after.isdigit() else None


def _back_off_s(attempt: int) -> float:
    """Full jitter: those who were turned away together do not come back together."""
    return random.uniform(0.1, min(BACK_OFF_S_MAX, BACK_OFF_S * 2**attempt))  # noqa: S311 - no cryptography


def _connection(host: str, timeout_s: float) -> http.client.HTTPConnection:
    parts = urlsplit(host)
    if parts.hostname and parts.scheme == "https":
        return http.client.HTTPSConnection(
            parts.hostname, parts.port, timeout=timeout_s, context=ssl.create_default_context()
        )
    if parts.hostname in _LOOPBACK and parts.scheme == "http":
        return http.client.HTTPConnection(parts.hostname, parts.port, timeout=timeout_s)
    raise RefusedError(f"{host!r} is no https address", hint="DatabricksHost begins with https://")

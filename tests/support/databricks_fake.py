"""Databricks' HTTP API for jobs, as far as we speak to it: a real server on loopback that fails, throttles and is slow.

Runs go on by the number of looks at them, not by time, so that no test depends on how fast it is.
"""

import itertools
import json
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

TOKEN = "dapi-valid"
ACTIVE = frozenset({"BLOCKED", "PENDING", "QUEUED", "RUNNING", "TERMINATING", "WAITING"})


@dataclass(frozen=True)
class Fault:
    """What the next request meets in place of its answer, or after its work was done."""

    status: int | None = None
    retry_after: str | None = None
    body: Any = None
    delay_s: float = 0.0
    cut: bool = False
    """The connection ends without an answer."""
    after_work: bool = False
    """The request has its effect all the same: what a client sees that did not wait long enough."""
    path: str = ""
    """Only of requests whose path ends so."""


@dataclass
class Run:
    run_id: int
    job_id: int
    state: str
    start_time: int
    result: str | None = None
    looks: int = 0
    token: str | None = None
    parameters: dict[str, Any] = field(default_factory=dict)

    @property
    def is_active(self) -> bool:
        return self.state in ACTIVE


class FakeDatabricks:
    """State, behind a lock; tests set it and look at it directly."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.tokens = {TOKEN}
        self.jobs: dict[int, dict[str, Any]] = {}
        self.runs: list[Run] = []
        self.folders: dict[str, list[dict[str, Any]]] = {}
        self.faults: deque[Fault] = deque()
        self.requests: list[tuple[str, str]] = []
        self.looks_until_running = 1
        self.looks_until_ended = 1
        self.begins = True
        """Whether runs leave PENDING."""
        self.keeps_running = True
        """Whether a continuous job that is not paused gets its next run; it waits after failures."""
        self.hidden: set[int] = set()
        """Runs that lists do not show yet."""
        self.most_at_once = 0
        self.lock = threading.RLock()
        self._ids = itertools.count(1_000)

    def add_job(self, name: str, job_id: int = 7, **settings: Any) -> int:
        self.jobs[job_id] = {"name": name, "max_concurrent_runs": 1, **settings}
        return job_id

    def add_run(self, job_id: int, state: str = "PENDING", *, start_time: int | None = None, **more: Any) -> Run:
        started = int(time.time() * 1000) if start_time is None else start_time
        run = Run(next(self._ids), job_id, state, started, **more)
        self.runs.append(run)
        return run

    def calls(self, path: str) -> int:
        return sum(1 for _, asked in self.requests if asked.endswith(path))

    # --- what the platform does by itself

    def _look(self, run: Run) -> None:
        run.looks += 1
        if run.state == "PENDING" and self.begins and run.looks > self.looks_until_running:
            run.state, run.looks = "RUNNING", 0
        elif run.state == "TERMINATING" and run.looks > self.looks_until_ended:
            run.state, run.result = "TERMINATED", run.result or "CANCELED"
        self._begin_queued(run.job_id)

    def _begin_queued(self, job_id: int) -> None:
        of_job = [run for run in self.runs if run.job_id == job_id]
        at_work = [run for run in of_job if run.is_active and run.state != "QUEUED"]
        queued = [run for run in of_job if run.state == "QUEUED"]
        if queued and not at_work:
            queued[0].state, queued[0].looks, queued[0].start_time = "PENDING", 0, int(time.time() * 1000)
        continuous = self.jobs.get(job_id, {}).get("continuous", {})
        resumed = bool(continuous) and continuous.get("pause_status", "UNPAUSED") == "UNPAUSED"
        if resumed and self.keeps_running and not at_work and not queued:
            self.add_run(job_id)
        self.most_at_once = max(self.most_at_once, len(at_work))

    # --- the API

    def answer(self, path: str, query: dict[str, Any], body: dict[str, Any]) -> tuple[int, Any]:
        if path.startswith("/api/2.0/fs/directories"):
            return self._folder(path.removeprefix("/api/2.0/fs/directories"))
        handler: Callable[..., tuple[int, Any]] | None = {
            "/api/2.2/jobs/list": self._list_jobs,
            "/api/2.2/jobs/get": self._get_job,
            "/api/2.2/jobs/update": self._update_job,
            "/api/2.2/jobs/run-now": self._run_now,
            "/api/2.2/jobs/runs/list": self._list_runs,
            "/api/2.2/jobs/runs/get": self._get_run,
            "/api/2.2/jobs/runs/cancel-all": self._cancel_all,
        }.get(path)
        if handler is None:
            return 404, {"error_code": "ENDPOINT_NOT_FOUND", "message": f"No API found for {path}"}
        return handler(**query, **body)

    def _list_jobs(self, name: str | None = None, **_: Any) -> tuple[int, Any]:
        found = [
            {"job_id": job_id, "settings": settings}
            for job_id, settings in self.jobs.items()
            if name is None or settings["name"].lower() == name.lower()
        ]
        return 200, {"jobs": found, "has_more": False}

    def _get_job(self, job_id: Any, **_: Any) -> tuple[int, Any]:
        settings = self.jobs.get(int(job_id))
        if settings is None:
            return 400, {"error_code": "INVALID_PARAMETER_VALUE", "message": f"Job {job_id} does not exist."}
        return 200, {"job_id": int(job_id), "settings": settings}

    def _update_job(self, job_id: int, new_settings: dict[str, Any], **_: Any) -> tuple[int, Any]:
        self.jobs[job_id] |= new_settings
        self._begin_queued(job_id)
        return 200, {}

    def _run_now(self, job_id: int, idempotency_token: str | None = None, **more: Any) -> tuple[int, Any]:
        settings = self.jobs.get(job_id)
        if settings is None:
            return 400, {"error_code": "INVALID_PARAMETER_VALUE", "message": f"Job {job_id} does not exist."}
        for run in self.runs:
            if idempotency_token is not None and run.token == idempotency_token:
                if run.state == "DELETED":
                    return 400, {"error_code": "INVALID_PARAMETER_VALUE", "message": "The run was deleted."}
                return 200, {"run_id": run.run_id}
        busy = sum(run.is_active for run in self.runs if run.job_id == job_id)
        queues = more.get("queue", settings.get("queue", {})).get("enabled", False)
        state = "PENDING" if busy < settings.get("max_concurrent_runs", 1) else "QUEUED" if queues else "SKIPPED"
        run = self.add_run(job_id, state, start_time=0 if state == "QUEUED" else None, token=idempotency_token)
        if state == "SKIPPED":
            run.state, run.result = "TERMINATED", "SKIPPED"
        run.parameters = more
        self._begin_queued(job_id)
        return 200, {"run_id": run.run_id}

    def _list_runs(self, job_id: Any = None, active_only: str = "false", limit: Any = 20, **_: Any) -> tuple[int, Any]:
        if job_id is not None:
            self._begin_queued(int(job_id))
        found = [
            run
            for run in reversed(self.runs)
            if (job_id is None or run.job_id == int(job_id))
            and run.state != "DELETED"
            and run.run_id not in self.hidden
            and (active_only != "true" or run.is_active)
        ]
        for run in found:
            self._look(run)
        return 200, {"runs": [self._described(run) for run in found[: int(limit)]], "has_more": False}

    def _get_run(self, run_id: Any, **_: Any) -> tuple[int, Any]:
        for run in self.runs:
            if run.run_id == int(run_id):
                self._look(run)
                return 200, self._described(run)
        return 400, {"error_code": "INVALID_PARAMETER_VALUE", "message": f"Run {run_id} does not exist."}

    def _cancel_all(self, job_id: int, **_: Any) -> tuple[int, Any]:
        for run in self.runs:
            if run.job_id == job_id and run.is_active:
                run.state, run.looks = "TERMINATING", 0
        return 200, {}

    def _folder(self, path: str) -> tuple[int, Any]:
        if path not in self.folders:
            return 404, {"error_code": "NOT_FOUND", "message": f"{path} is not there"}
        return 200, {"contents": self.folders[path]}

    def _described(self, run: Run) -> dict[str, Any]:
        ended = {"termination_details": {"code": run.result, "message": ""}} if run.result else {}
        return {
            "run_id": run.run_id,
            "job_id": run.job_id,
            "start_time": run.start_time,
            "run_page_url": f"{self.url}/jobs/{run.job_id}/runs/{run.run_id}",
            "status": {"state": run.state, **ended},
        }


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    fake: FakeDatabricks

    def do_GET(self) -> None:
        self._serve({})

    def do_POST(self) -> None:
        self._serve(json.loads(self.rfile.read(int(self.headers.get("Content-Length", 0))) or "{}"))

    def log_message(self, *_: Any) -> None:
        return

    def _serve(self, body: dict[str, Any]) -> None:
        parts = urlsplit(self.path)
        query = {name: values[-1] for name, values in parse_qs(parts.query).items()}
        fake = self.fake
        with fake.lock:
            if parts.path.startswith("/api/"):
                fake.requests.append((self.command, parts.path))
            fault = self._fault(parts.path)
            if fault is None or fault.after_work:
                status, answer = self._worked(parts.path, query, body)
        if fault is not None:
            time.sleep(fault.delay_s)
            if fault.cut:
                self.close_connection = True
                return
            if fault.status is not None:
                status, answer = fault.status, fault.body or {"error_code": "FAULT", "message": "as the test asked"}
            elif not fault.after_work:
                with fake.lock:
                    status, answer = self._worked(parts.path, query, body)
        self._send(status, answer, fault.retry_after if fault else None)

    def _fault(self, path: str) -> Fault | None:
        if self.fake.faults and path.startswith("/api/") and path.endswith(self.fake.faults[0].path):
            return self.fake.faults.popleft()
        return None

    def _worked(self, path: str, query: dict[str, Any], body: dict[str, Any]) -> tuple[int, Any]:
        if not path.startswith("/api/"):
            return 404, {"message": "not here"}
        if self.headers.get("Authorization", "").removeprefix("Bearer ") not in self.fake.tokens:
            return 403, {"error_code": "PERMISSION_DENIED", "message": "Invalid access token."}
        return self.fake.answer(path, query, body)

    def _send(self, status: int, answer: Any, retry_after: str | None) -> None:
        content = answer.encode() if isinstance(answer, str) else json.dumps(answer).encode()
        try:
            self.send_response(status)
            self.send_header("Content-Type", "text/html" if isinstance(answer, str) else "application/json")
            self.send_header("Content-Length", str(len(content)))
            if retry_after is not None:
                self.send_header("Retry-After", retry_after)
            self.end_headers()
            self.wfile.write(content)
        except OSError:
            self.close_connection = True  # a client that did not wait


@contextmanager
def running_databricks() -> Iterator[FakeDatabricks]:
    handler = type("Handler", (_Handler,), {})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    fake = handler.fake = FakeDatabricks(f"http://127.0.0.1:{server.server_address[1]}")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield fake
    finally:
        server.shutdown()
        server.server_close()
        thread.join()

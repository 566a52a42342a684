"""The job's own small web server: /metrics for Prometheus, /healthz for whoever supervises it."""

import socket
import threading
from collections.abc import Iterable

import uvicorn
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from config.errors import ConfigurationError
from config.settings import HttpSettings
from streaming_job.health import Health

LOOPBACK_HOSTS = ("127.0.0.1", "localhost", "[::1]")


def application(
    registry: CollectorRegistry, health: Health, allowed_hosts: Iterable[str] = LOOPBACK_HOSTS
) -> Starlette:
    def metrics(_: Request) -> Response:
        return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)

    def healthz(_: Request) -> Response:
        verdict = health.verdict()
        return JSONResponse(
            {"state": verdict.state, "reason": verdict.reason}, status_code=200 if verdict.healthy else 503
        )

    return Starlette(
        routes=[Route("/metrics", metrics), Route("/healthz", healthz)],
        # A page of another origin cannot reach us by a name of its own that resolves to loopback.
        middleware=[Middleware(TrustedHostMiddleware, allowed_hosts=list(allowed_hosts))],
    )


class HttpServer:
    """Serves an application from a thread; the port is taken, or refused, when it is made."""

    def __init__(self, app: Starlette, settings: HttpSettings) -> None:
        self._socket = _bind(settings)
        self.url = f"http://{settings.host}:{self._socket.getsockname()[1]}"
        self._server = uvicorn.Server(uvicorn.Config(app, log_level="warning", access_log=False, lifespan="off"))
        self._thread = threading.Thread(
            target=self._server.run, kwargs={"sockets": [self._socket]}, name="http", daemon=True
        )

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._server.should_exit = True
        self._thread.join(timeout=5)
        self._socket.close()


def _bind(settings: HttpSettings) -> socket.socket:
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((settings.host, settings.port))
        listener.listen()
    except OSError as error:
        listener.close()
        raise ConfigurationError(
            f"cannot listen on {settings.host}:{settings.port}: {error.strerror}",
            hint="http.port names another port, or 0 for a free one",
        ) from error
    return listener

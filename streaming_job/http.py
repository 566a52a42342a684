"""The job's own small web server: /metrics for Prometheus, /healthz for whoever supervises it."""

import socket
import threading
from collections.abc import Iterable
from urllib.parse import urlsplit

import uvicorn
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from config.errors import ConfigurationError
from config.settings import HttpSettings
from streaming_job.health import Health

LOOPBACK_HOSTS = ("127.0.0.1", "localhost", "[::1]")


class OwnOriginOnly:
    """A page of another origin gets nothing, not even an answer that its browser would hide from it.

    A person may follow a link from anywhere; no page may fetch or embed.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and _is_foreign(Headers(scope=scope)):
            await PlainTextResponse("asked by a page of another origin\n", status_code=403)(scope, receive, send)
        else:
            await self._app(scope, receive, send)


def _is_foreign(headers: Headers) -> bool:
    origin = headers.get("origin")
    if origin is not None and urlsplit(origin).netloc != headers.get("host"):
        return True
    elsewhere = headers.get("sec-fetch-site") in ("cross-site", "same-site")
    return elsewhere and headers.get("sec-fetch-mode") != "navigate"


def guards(allowed_hosts: Iterable[str] = LOOPBACK_HOSTS) -> list[Middleware]:
    """A page of another origin cannot reach us by a name of its own that resolves to our address, nor by ours."""
    return [Middleware(TrustedHostMiddleware, allowed_hosts=list(allowed_hosts)), Middleware(OwnOriginOnly)]


def metrics_application(registry: CollectorRegistry) -> Starlette:
    """For a process that has nothing else to say."""
    return Starlette(routes=[_metrics_of(registry)], middleware=guards())


def _metrics_of(registry: CollectorRegistry) -> Route:
    def metrics(_: Request) -> Response:
        return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)

    return Route("/metrics", metrics)


def application(
    registry: CollectorRegistry, health: Health, allowed_hosts: Iterable[str] = LOOPBACK_HOSTS
) -> Starlette:
    def healthz(_: Request) -> Response:
        verdict = health.verdict()
        return JSONResponse(
            {"state": verdict.state, "reason": verdict.reason}, status_code=200 if verdict.healthy else 503
        )

    return Starlette(routes=[_metrics_of(registry), Route("/healthz", healthz)], middleware=guards(allowed_hosts))


class HttpServer:
    """Serves an application from a thread; the port is taken, or refused, when it is made."""

    def __init__(self, app: Starlette, settings: HttpSettings) -> None:
        self._socket = _bind(settings)
        self.port = int(self._socket.getsockname()[1])
        self.url = f"http://{settings.host}:{self.port}"
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
            hint="name another port in the configuration, or 0 for a free one",
        ) from error
    return listener

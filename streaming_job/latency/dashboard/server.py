"""The page's web server: static files, the series as JSON, and one server-sent event a second."""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Final

import orjson
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import FileResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from streaming_job.http import LOOPBACK_HOSTS, guards
from streaming_job.latency.dashboard.access import SecurityHeaders, TokenRequired
from streaming_job.latency.dashboard.feed import Feed
from streaming_job.latency.dashboard.series import RESOLUTIONS

STATIC: Final = Path(__file__).parent / "static"
PAGES_MAX: Final = 64
"""Streams of events open at once; each costs the machine a little every second."""
_RETRY_MS: Final = 1_000
_REVALIDATE: Final = {"cache-control": "no-cache"}


def application(feed: Feed, *, allowed_hosts: Sequence[str] = LOOPBACK_HOSTS, token: str | None = None) -> Starlette:
    async def index(_: Request) -> Response:
        return FileResponse(STATIC / "index.html", headers=_REVALIDATE)

    async def series(request: Request) -> Response:
        asked = request.query_params.get("range_s", str(RESOLUTIONS[0].range_s))
        if not asked.isascii() or not asked.isdigit() or len(asked) > 9:
            return PlainTextResponse("range_s is a whole number of seconds\n", status_code=400)
        return Response(orjson.dumps(feed.series(int(asked), time.time())), media_type="application/json")

    async def events(_: Request) -> Response:
        if feed.subscribers >= PAGES_MAX:
            return PlainTextResponse("too many pages are open\n", status_code=503, headers={"retry-after": "10"})
        return StreamingResponse(_events(feed), media_type="text/event-stream", headers={"x-accel-buffering": "no"})

    middleware = [
        Middleware(SecurityHeaders),
        *guards(allowed_hosts),
    ]
    if token is not None:
        middleware.append(Middleware(TokenRequired, token=token))
    return Starlette(
        routes=[
            Route("/", index),
            Route("/api/series", series),
            Route("/api/events", events),
            Mount("/static", _Static(directory=STATIC)),
        ],
        middleware=middleware,
    )


class _Static(StaticFiles):
    """Asked again each time, answered 304 when unchanged: the page and its modules must be of one version."""

    def file_response(self, *args: object, **kwargs: object) -> Response:
        response = super().file_response(*args, **kwargs)  # type: ignore[arg-type]
        response.headers.update(_REVALIDATE)
        return response


async def _events(feed: Feed) -> AsyncIterator[bytes]:
    """The newest snapshot, whenever there is one: a slow page misses some in between, and sees that by the number."""
    news, loop, me = asyncio.Event(), asyncio.get_running_loop(), object()

    def wake() -> None:
        loop.call_soon_threadsafe(news.set)

    feed.subscribe(me, wake)
    try:
        yield f"retry: {_RETRY_MS}\n\n".encode()
        sent = 0
        while not feed.closed:
            news.clear()
            if feed.snapshot is not None and feed.snapshot.number != sent:
                sent = feed.snapshot.number
                yield b"id: %d\ndata: %b\n\n" % (sent, orjson.dumps(feed.snapshot.body))
            await news.wait()
    finally:
        feed.unsubscribe(me)

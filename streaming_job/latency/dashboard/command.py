"""`lakestream dashboard`: which processes to ask, where to listen, who may look; then until it is stopped."""

import json
import secrets
import signal
import socket
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from urllib.parse import urlsplit

from config.errors import ConfigurationError
from config.settings import HttpSettings
from streaming_job.http import LOOPBACK_HOSTS, HttpServer
from streaming_job.latency.dashboard.feed import Feed, Ticker
from streaming_job.latency.dashboard.scrape import Scraper, Source
from streaming_job.latency.dashboard.server import application


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    host: str = "127.0.0.1"
    port: int = 0
    token: str | None = None
    allowed_hosts: tuple[str, ...] = ()
    target_ms: float = 2_000.0


@dataclass(frozen=True, slots=True)
class Subject:
    """What the page is about."""

    sources: tuple[Source, ...]
    title: str = ""
    verify_file: Path | None = None


def of_stack(stack_file: Path) -> Subject:
    """Every process of an embedded stack that publishes figures, the job first."""
    try:
        stack = json.loads(stack_file.read_text(encoding="utf-8"))
        urls: dict[str, str] = stack["metrics"]
        title = ", ".join(stack["tables"])
    except FileNotFoundError as error:
        raise ConfigurationError(
            f"there is no {stack_file}", hint="start a stack with `lakestream local up`, or name --metrics URL"
        ) from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigurationError(f"{stack_file} is not a stack's description: {error!r}") from error
    if not urls:
        raise ConfigurationError(f"{stack_file} names no process with figures", hint="name them with --metrics URL")
    ordered = sorted(urls.items(), key=lambda item: item[0] != "job")
    return Subject(tuple(Source(name, url) for name, url in ordered), title, stack_file.parent / "verify.json")


def of_urls(urls: Sequence[str], title: str = "", verify_file: Path | None = None) -> Subject:
    """`URL` or `name=URL`; the first is the job's."""
    sources = []
    for place, given in enumerate(urls):
        name, found, url = given.partition("=")
        if not found or "://" in name:
            name, url = ("job" if place == 0 else urlsplit(given).netloc), given
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ConfigurationError(f"--metrics {given}: not an http address", hint="http://127.0.0.1:9464/metrics")
        sources.append(Source(name, url))
    return Subject(tuple(sources), title, verify_file)


def serve(subject: Subject, options: Options, say: Callable[[str], None]) -> None:
    """Until SIGTERM or SIGINT; `say` gets the address once it listens."""
    token = options.token
    if not _is_loopback(options.host) and token is None:
        token = secrets.token_urlsafe(24)
    scrapers = [Scraper(source) for source in subject.sources]
    feed = Feed(scrapers, target_ms=options.target_ms, title=subject.title, verify_file=subject.verify_file)
    app = application(feed, allowed_hosts=_allowed(options), token=token)
    server = HttpServer(app, HttpSettings(host=options.host, port=options.port))
    ticker = Ticker(feed, scrapers)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    server.start()
    ticker.start()
    say(f"{server.url}/" + (f"?token={token}" if token else ""))
    stop.wait()
    ticker.stop()
    server.stop()


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _allowed(options: Options) -> tuple[str, ...]:
    own = () if _is_loopback(options.host) else (options.host, socket.gethostname(), socket.getfqdn())
    return tuple(dict.fromkeys((*LOOPBACK_HOSTS, *own, *options.allowed_hosts)))

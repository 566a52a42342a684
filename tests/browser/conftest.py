"""A real browser, a real server of the page, and processes it asks over HTTP, whose figures the test decides."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field

import pytest
from playwright.sync_api import Browser, Page, Playwright, sync_playwright

from config.settings import HttpSettings
from streaming_job.http import HttpServer
from streaming_job.latency.dashboard.feed import Feed, Ticker
from streaming_job.latency.dashboard.scrape import Scraper, Source
from streaming_job.latency.dashboard.server import application
from tests.browser.processes import FedJob, FedMapping

CHROMIUM = ("chromium", "chromium-browser", "google-chrome")
FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


@pytest.fixture(scope="session")
def playwright() -> Iterator[Playwright]:
    with sync_playwright() as started:
        yield started


@pytest.fixture(scope="session")
def browser(playwright: Playwright) -> Iterator[Browser]:
    """The system's Chromium: Playwright's own would be a download of its own."""
    path = next((found for name in CHROMIUM if (found := shutil.which(name))), None)
    if path is None:
        pytest.skip(f"none of {', '.join(CHROMIUM)} is installed: the page's tests need one")
    started = playwright.chromium.launch(executable_path=path, args=FLAGS)
    yield started
    started.close()


@dataclass
class Stage:
    """Everything behind one page."""

    job: FedJob
    mapping: FedMapping
    feed: Feed
    url: str
    end_server: Callable[[], None]
    start_server: Callable[[], None]


@pytest.fixture
def stage() -> Iterator[Stage]:
    with ExitStack() as cleanup:
        job, mapping = FedJob(), FedMapping()
        cleanup.callback(mapping.stop)
        cleanup.callback(job.stop)
        scrapers = [Scraper(Source("job", job.url)), Scraper(Source("mapping", mapping.url))]
        feed = Feed(scrapers, target_ms=2_000, title="chargeminder-car-telemetry")
        ticker = Ticker(feed, scrapers)
        ticker.start()
        cleanup.callback(ticker.stop)
        servers = [HttpServer(application(feed), HttpSettings())]
        servers[0].start()
        port = int(servers[0].url.rsplit(":", 1)[1])

        def end_server() -> None:
            # The feed goes on; only its open streams end, as when the server's process is killed.
            feed.close()
            servers.pop().stop()

        def start_server() -> None:
            feed.closed = False
            servers.append(HttpServer(application(feed), HttpSettings(port=port)))
            servers[-1].start()

        cleanup.callback(lambda: end_server() if servers else None)
        yield Stage(job, mapping, feed, servers[0].url, end_server, start_server)


@dataclass
class Watched:
    """A page together with everything its console and its network said."""

    page: Page
    console: list[str] = field(default_factory=list)
    requested: list[str] = field(default_factory=list)


@pytest.fixture
def open_page(browser: Browser, stage: Stage) -> Iterator[Callable[..., Watched]]:
    with ExitStack() as cleanup:

        def opened(*, width: int = 1280, height: int = 900, scheme: str = "light", path: str = "/") -> Watched:
            context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme)  # type: ignore[arg-type]
            cleanup.callback(context.close)
            page = context.new_page()
            watched = Watched(page)
            page.on("console", lambda said: watched.console.append(f"{said.type}: {said.text}"))
            page.on("pageerror", lambda error: watched.console.append(f"error: {error}"))
            page.on("request", lambda request: watched.requested.append(request.url))
            page.goto(stage.url + path)
            return watched

        yield opened

"""The page as a person sees it, in a real Chromium; every wait is for something to be seen, none for a time."""

import re
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect
from prometheus_client.parser import text_string_to_metric_families

from streaming_job.files.watch import Progress
from tests.browser.conftest import Stage, Watched
from tests.browser.processes import HOPS_MS, TABLE

Open = Callable[..., Watched]
SHOTS = Path("build/screenshots")


def published(url: str) -> dict[tuple[str, ...], float]:
    """/metrics as it is now: (name, label values...) to value."""
    with urllib.request.urlopen(url, timeout=5) as answer:  # noqa: S310 - the test's own server
        text = answer.read().decode()
    return {
        (sample.name, *(sample.labels[label] for label in sorted(sample.labels))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def state_is(page: Page, state: str) -> None:
    expect(page.locator("html")).to_have_attribute("data-state", state, timeout=15_000)


def row(page: Page, panel: str, name: str) -> list[str]:
    """The exact values behind the cells of one row."""
    found = page.locator(f"#{panel} tbody tr").filter(has=page.get_by_role("rowheader", name=name, exact=True))
    expect(found).to_have_count(1)
    values: list[str] = found.locator("data").evaluate_all("cells => cells.map(cell => cell.value)")
    return values


def test_the_figures_on_the_page_equal_those_at_metrics(stage: Stage, open_page: Open) -> None:
    stage.mapping.sent(130)
    stage.job.commit(100)
    stage.job.commit(30, hops_ms=HOPS_MS | {"wait": 900})
    stage.job.metrics.duplicates.labels(TABLE).inc(4)
    stage.job.metrics.rejects.inc(2)
    stage.job.metrics.rescued.labels(TABLE).inc(3)
    stage.job.metrics.parked.labels(TABLE).set(5)
    stage.job.is_behind(321)
    page = open_page().page
    expect(page.locator("#fact-changes data")).to_have_attribute("value", "130")
    expect(page.locator("#fact-changes data")).to_have_text("130")
    said = published(stage.job.url)

    for fact, name in (("rejects", "lakestream_rejects_total"), ("changes", "lakestream_changes_total")):
        expect(page.locator(f"#fact-{fact} data")).to_have_attribute(
            "value", f"{next(value for key, value in said.items() if key[0] == name):.0f}"
        )
    shown = row(page, "panel-tables", TABLE)
    quantiles = [said["lakestream_hop_ms", "origin_to_commit", q, TABLE] for q in ("0.5", "0.95", "0.99")]
    assert [float(value) for value in shown] == pytest.approx([130, *quantiles, 4, 3, 5, 0])
    for hop, label in (("kinesis_to_batch", "waiting in Kinesis"), ("bridge", "in the bridge")):
        expected = [said["lakestream_hop_ms", hop, q, TABLE] for q in ("0.5", "0.95", "0.99")]
        assert [float(value) for value in row(page, "panel-hops", label)] == pytest.approx([*expected, 0])
    assert row(page, "panel-shards", "shardId-0")[0] == "321"
    expect(page.locator("#number")).to_have_attribute("value", re.compile(rf"^{quantiles[1]:.3f}"[:-1]))


def test_before_the_first_change_the_page_says_so_and_draws_empty_charts(stage: Stage, open_page: Open) -> None:
    watched = open_page()
    state_is(watched.page, "empty")
    expect(watched.page.locator("#sentence")).to_have_text("No change has arrived yet.")
    expect(watched.page.locator("#chart-hops .blank")).to_be_visible()
    expect(watched.page.locator("#fact-verify")).to_contain_text("never")
    expect(watched.page.locator("#fact-probe")).to_contain_text("not running")
    stage.mapping.sent(10)
    stage.job.commit(10)
    state_is(watched.page, "fresh")
    expect(watched.page.locator("#chart-freshness .blank")).to_be_hidden()
    assert watched.console == []


def test_a_stopped_job_is_said_to_be_stopped_and_a_job_that_is_back_to_be_fresh(stage: Stage, open_page: Open) -> None:
    stage.job.commit()
    watched = open_page()
    state_is(watched.page, "fresh")
    stage.job.stop()
    stage.mapping.sent(10)
    state_is(watched.page, "stopped")
    expect(watched.page.locator("html")).to_have_attribute("data-level", "bad")
    expect(watched.page.locator("#sentence")).to_have_text("The job is stopped.")
    expect(watched.page.locator("#panel-sources")).to_contain_text("does not answer")
    expect(watched.page.locator("#fact-changes data")).to_have_text("10")
    stage.job.come_back()
    stage.job.commit()
    state_is(watched.page, "fresh")
    assert watched.console == []


def test_where_the_job_reads_the_archive_the_page_says_so(stage: Stage, open_page: Open) -> None:
    archive = Progress(behind_ms=4_000, objects=3, bytes=900)
    stage.job.metrics.source.update_archives({"bucket/archive": archive})
    stage.job.commit()
    watched = open_page()
    expect(watched.page.locator("#panel-hops")).to_contain_text("waiting in the archive")
    expect(watched.page.locator("#chart-hops .legend")).to_contain_text("waiting in the archive")
    expect(watched.page.locator("#panel-shards")).to_contain_text("archive")
    expect(watched.page.locator("#detail")).to_contain_text("in the archive")
    assert watched.console == []


def test_while_the_job_commits_nothing_the_lag_grows_and_afterwards_its_hop_is_named(
    stage: Stage, open_page: Open
) -> None:
    stage.job.commit()
    page = open_page().page
    state_is(page, "fresh")
    stage.mapping.sent(10)
    state_is(page, "late")
    expect(page.locator("#number-says")).to_have_text("the oldest change still waiting")
    expect(page.locator("#detail")).to_contain_text("in Kinesis")
    first = float(page.locator("#number").get_attribute("value") or 0)
    page.wait_for_function("before => Number(document.getElementById('number').value) > before + 1500", arg=first)
    stage.job.commit(200, hops_ms=HOPS_MS | {"wait": 20_000})
    expect(page.locator("#detail")).to_have_text("Most of the time goes by waiting in Kinesis.", timeout=15_000)
    expect(page.locator("#sentence")).to_have_text("Late.")
    expect(page.locator("#chart-hops .legend li").filter(has_text="waiting in Kinesis").locator("b")).to_have_text(
        "20.0 s"
    )


def test_a_page_that_lost_its_server_says_so_and_comes_back_by_itself(stage: Stage, open_page: Open) -> None:
    stage.job.commit()
    page = open_page().page
    state_is(page, "fresh")
    stage.end_server()
    expect(page.locator("html")).to_have_attribute("data-link", "lost", timeout=15_000)
    expect(page.locator("html")).to_have_attribute("data-level", "unknown")
    expect(page.locator("#sentence")).to_have_text("The page has lost its server.")
    expect(page.locator("#number")).to_have_text("\u2013")
    stage.start_server()
    expect(page.locator("html")).to_have_attribute("data-link", "live", timeout=30_000)
    state_is(page, "fresh")


def test_a_server_that_falls_silent_is_not_taken_for_a_fresh_lake(stage: Stage, open_page: Open) -> None:
    stage.job.commit()
    page = open_page().page
    state_is(page, "fresh")
    stage.feed.tick = lambda _now_s: None  # type: ignore[assignment, method-assign, return-value]
    expect(page.locator("html")).to_have_attribute("data-link", "stale", timeout=15_000)
    expect(page.locator("#sentence")).to_have_text("No news from the page's server.")
    expect(page.locator("html")).to_have_attribute("data-level", "unknown")


def test_the_page_asks_nobody_but_its_own_server_and_says_nothing_on_the_console(stage: Stage, open_page: Open) -> None:
    stage.job.commit()
    watched = open_page()
    state_is(watched.page, "fresh")
    for name in ("1 h", "24 h", "5 min"):
        watched.page.get_by_text(name, exact=True).click()
        expect(watched.page.locator("#chart-hops canvas")).to_be_visible()
    assert watched.console == []
    assert {url for url in watched.requested if not url.startswith(f"{stage.url}/")} == set()


def test_every_control_is_reached_and_worked_by_keyboard(stage: Stage, open_page: Open) -> None:
    stage.job.commit()
    page = open_page().page
    state_is(page, "fresh")
    page.keyboard.press("Tab")
    expect(page.get_by_text("Skip to the verdict")).to_be_focused()
    page.keyboard.press("Tab")
    expect(page.get_by_label("5 min")).to_be_focused()
    page.keyboard.press("ArrowRight")
    expect(page.get_by_label("1 h")).to_be_checked()
    page.keyboard.press("Tab")
    expect(page.locator("#theme")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("html")).to_have_attribute("data-theme", "light")
    page.keyboard.press("Enter")
    expect(page.locator("html")).to_have_attribute("data-theme", "dark")
    page.keyboard.press("Tab")
    table = page.locator("#chart-freshness").get_by_role("button", name="Table")
    expect(table).to_be_focused()
    page.keyboard.press("Tab")
    expect(page.locator("#chart-freshness .plot")).to_be_focused()
    page.keyboard.press("End")
    expect(page.locator("#chart-freshness .legend .at")).to_have_text(re.compile(r"\d\d:\d\d:\d\d"))


def test_each_chart_can_be_read_as_a_table_with_the_same_figures(stage: Stage, open_page: Open) -> None:
    stage.job.commit()
    page = open_page().page
    state_is(page, "fresh")
    figure = page.locator("#chart-freshness")
    figure.get_by_role("button", name="Table").click()
    expect(figure.locator("canvas")).to_be_hidden()
    newest = figure.locator("tbody tr").first
    p95 = published(stage.job.url)["lakestream_hop_ms", "origin_to_commit", "0.95", TABLE]
    expect(newest.locator("data").nth(1)).to_have_attribute("value", f"{p95:.3f}".rstrip("0"))
    expect(figure.get_by_role("columnheader", name="p95")).to_be_visible()


def test_the_verdict_is_a_live_region_that_speaks_only_when_it_changes(stage: Stage, open_page: Open) -> None:
    stage.job.commit()
    page = open_page().page
    state_is(page, "fresh")
    expect(page.get_by_role("banner")).to_be_visible()
    expect(page.get_by_role("main")).to_be_visible()
    expect(page.locator("[aria-live=polite]")).to_have_count(1)
    page.evaluate(
        "() => { window.spoken = 0; new MutationObserver(() => window.spoken++).observe("
        "document.getElementById('sentence'), {childList: true, characterData: true, subtree: true}); }"
    )
    as_of = page.locator("#as-of").text_content() or ""
    for _ in range(3):
        expect(page.locator("#as-of")).not_to_have_text(as_of)
        as_of = page.locator("#as-of").text_content() or ""
    assert page.evaluate("window.spoken") == 0


def test_a_page_open_for_a_day_holds_no_more_points_than_its_range(stage: Stage, open_page: Open) -> None:
    """The browser's own class is fed a day's events, in the page, as fast as it takes them."""
    page = open_page().page
    held = page.evaluate(
        """async () => {
          const { Series } = await import("/static/series.js");
          const held = [];
          for (const [step, range] of [[1, 300], [5, 3600], [60, 86400]]) {
            const series = new Series({ step_s: step, range_s: range, at_s: [], columns: { p95_ms: [] } });
            for (let s = 0; s < 86400; s++) {
              if (!series.take({ at_s: [s - s % step], columns: { p95_ms: [s] } })) throw new Error("refused");
            }
            held.push([series.at.length, series.columns.p95_ms.length, series.columns.p95_ms.at(-1)]);
          }
          return held;
        }"""
    )
    assert held == [[300, 300, 86_399], [720, 720, 86_399], [1_440, 1_440, 86_399]]


def test_hours_of_events_leave_the_browsers_memory_as_it_was(stage: Stage, open_page: Open) -> None:
    """Event after event as fast as the page draws them, then a collection, then the heap and the nodes are counted."""
    page = open_page().page
    stage.job.commit()
    state_is(page, "fresh")
    tick, start_s = stage.feed.tick, time.time() + 10
    stage.feed.tick = lambda _now_s: None  # type: ignore[assignment, method-assign, return-value]
    devtools = page.context.new_cdp_session(page)
    devtools.send("Performance.enable")

    def draw(first: int, last: int) -> None:
        for second in range(first, last):
            number = tick(start_s + second).number
            page.wait_for_function("number => Number(document.documentElement.dataset.number) >= number", arg=number)

    def held() -> tuple[float, float]:
        for _ in range(2):  # what the first frees may hold more
            devtools.send("HeapProfiler.collectGarbage")
        found = {each["name"]: each["value"] for each in devtools.send("Performance.getMetrics")["metrics"]}
        return found["JSHeapUsedSize"], found["Nodes"]

    for second in range(320):  # all five minutes of the range are there
        tick(start_s + second)
    draw(320, 500)
    heap, nodes = held()
    draw(500, 800)
    heap_after, nodes_after = held()
    assert nodes_after <= nodes * 1.02
    # What the browser itself moves about from one collection to the next was up to 270 kB here.
    assert heap_after - heap < 512 * 1024, "300 events of 4 kB each, were they kept, would be 1,200 kB"


def test_missing_seconds_are_a_gap_and_a_long_absence_fetches_anew(stage: Stage, open_page: Open) -> None:
    page = open_page().page
    taken = page.evaluate(
        """async () => {
          const { Series } = await import("/static/series.js");
          const series = new Series({ step_s: 1, range_s: 300, at_s: [10], columns: { p95_ms: [1] } });
          const point = (at) => ({ at_s: [at], columns: { p95_ms: [at] } });
          const taken = series.take(point(13));
          return [taken, series.at, series.columns.p95_ms, series.take(point(99)), series.take(point(5))];
        }"""
    )
    assert taken == [True, [10, 11, 12, 13], [1, None, None, 13], False, True]


@pytest.mark.parametrize("width", [400, 1280])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_runs_out_of_the_page_at_any_width_in_any_theme(
    stage: Stage, open_page: Open, width: int, scheme: str
) -> None:
    """Also writes the screenshots that a person looks at."""
    stage.mapping.sent(400)
    for share in range(1, 5):
        stage.job.commit(100, hops_ms={name: value * (0.8 + share / 10) for name, value in HOPS_MS.items()})
    page = open_page(width=width, scheme=scheme).page
    state_is(page, "fresh")
    expect(page.locator("html")).to_have_attribute("data-theme", scheme)
    stage.job.metrics.rejects.inc(2)
    expect(page.locator("#problem-list")).to_contain_text("2 rejects in 10 minutes")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    SHOTS.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=SHOTS / f"dashboard-{width}-{scheme}.png", full_page=True)


def test_names_from_outside_are_shown_as_text_never_as_markup(stage: Stage, open_page: Open) -> None:
    nasty = '<img src=x onerror="document.title=1">'
    stage.job.commit(table=nasty)
    watched = open_page()
    expect(watched.page.locator("#panel-tables")).to_contain_text(nasty)
    expect(watched.page.locator("#panel-tables img")).to_have_count(0)
    assert watched.console == []

"""Once a second: look at what every process said last, add a row to the series, decide the verdict, tell the pages."""

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, Protocol

from streaming_job.latency.dashboard import readings
from streaming_job.latency.dashboard.scrape import Answer, Samples, Scraper, Source, until_next
from streaming_job.latency.dashboard.series import History
from streaming_job.latency.dashboard.verdict import (
    ARCHIVE,
    KINESIS,
    ON_THE_WAY,
    SILENT_AFTER_S,
    Facts,
    problems,
    verdict,
)
from streaming_job.latency.dashboard.verify_record import VerifyRecord
from streaming_job.latency.hops import CHAIN

LATELY_S: Final = 600
_PROBE: Final = "lakestream_probe_"
_ANSWERS_WITHIN_S: Final = 0.3
"""After the scrapers began: most have answered, and the page is hardly later for it."""

Wake = Callable[[], None]


class Answering(Protocol):
    """A source that remembers its last answer."""

    @property
    def source(self) -> Source: ...
    @property
    def answer(self) -> Answer: ...


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What every page gets this second."""

    number: int
    body: dict[str, Any]


@dataclass(frozen=True, slots=True)
class _Look:
    """One look at all sources."""

    now_s: float
    answers: dict[str, Answer]
    job_name: str
    job_now: Samples
    """Empty while the job is silent."""
    row: dict[str, float | None]

    @property
    def job(self) -> Answer:
        return self.answers[self.job_name]

    @property
    def silent(self) -> list[str]:
        """Those, but for the job, that were there and are not now."""
        return [name for name, answer in self.answers.items() if name != self.job_name and _lost(answer, self.now_s)]

    @property
    def beside(self) -> list[str]:
        """Silent too, but no change waits for them."""
        return [name for name in self.silent if name not in ON_THE_WAY]


class Feed:
    """The state behind the page. Its memory is the series' fixed arrays, and one snapshot."""

    def __init__(
        self, sources: Sequence[Answering], *, target_ms: float, title: str = "", verify_file: Path | None = None
    ) -> None:
        self._sources = sources
        self._target_ms = target_ms
        self._title = title
        self._verify = VerifyRecord(verify_file)
        self._reader = readings.Reader()
        self._lock = threading.Lock()
        self._subscribers: dict[object, Wake] = {}
        self.history = History()
        self.snapshot: Snapshot | None = None
        self.closed = False

    def tick(self, now_s: float) -> Snapshot:
        looked = self._look(now_s)
        with self._lock:
            self.history.add(int(now_s), looked.row)
            lately = {
                name: self.history.tiers[1].added(name, int(now_s), LATELY_S) for name in ("rejects", "dead_letters")
            }
            points = self.history.latest(int(now_s))
        # Totals outlive the process that said them: after its end they are the last that is known.
        last_known = Samples.merged(answer.samples for answer in looked.answers.values())
        figures = readings.figures(last_known, looked.job.samples)
        verified = self._verify.read()
        keeping = readings.keeping(last_known, looked.job.samples, now_s)
        waits_in = ARCHIVE if looked.job.samples.of("lakestream_source_objects_total") else KINESIS
        facts = replace(self._facts(looked, points, figures["last_commit_s"]), keeping=keeping, waits_in=waits_in)
        body = {
            "at_s": now_s,
            "title": self._title,
            "target_ms": self._target_ms,
            "verdict": verdict(facts).as_dict(),
            "problems": [problem.as_dict() for problem in problems(figures, lately, verified, looked.beside)],
            "figures": figures,
            "waits_in": waits_in,
            "steps": self._reader.steps(looked.job_now),
            "lately": lately,
            "verify": verified,
            "probe": _probe(last_known),
            "sources": [_source(name, answer, now_s) for name, answer in looked.answers.items()],
            "points": points,
        }
        snapshot = Snapshot(self.snapshot.number + 1 if self.snapshot else 1, body)
        self.snapshot = snapshot
        self._wake_all()
        return snapshot

    def _look(self, now_s: float) -> _Look:
        answers = {source.source.name: source.answer for source in self._sources}
        job_name = self._sources[0].source.name
        up = [answer for answer in answers.values() if not _silent(answer, now_s)]
        everyone = Samples.merged(answer.samples for answer in up)
        said_at_s = min((answer.answered_at_s for answer in up if answer.answered_at_s is not None), default=now_s)
        job = answers[job_name]
        job_now = Samples() if _silent(job, now_s) else job.samples
        row = self._reader.row(everyone, job=job_now, said_at_s=said_at_s, now_s=now_s)
        return _Look(now_s, answers, job_name, job_now, row)

    def _facts(self, looked: _Look, points: list[dict[str, Any]], committed_s: float | None) -> Facts:
        newest = {name: values[-1] for name, values in points[0]["columns"].items()}
        hops = {hop: mean for hop in CHAIN if (mean := newest[f"{hop}_ms"]) is not None}
        job, row, now_s = looked.job, looked.row, looked.now_s
        return Facts(
            target_ms=self._target_ms,
            job_answered=job.answered_at_s is not None,
            job_silent_s=now_s - job.answered_at_s if job.failure and job.answered_at_s is not None else 0.0,
            job_refused=job.refused,
            job_ready=looked.job_now.total("lakestream_ready") != 0,
            job_stalled_s=looked.job_now.total("lakestream_stalled_seconds") or 0.0,
            path_silent=tuple(name for name in looked.silent if name in ON_THE_WAY),
            commit_age_s=now_s - committed_s if committed_s else None,
            p95_ms=row["p95_ms"],
            recent_ms=sum(hops.values()) if len(hops) == len(CHAIN) else None,
            lag_ms=max(row["waiting_ms"] or 0.0, row["behind_ms"] or 0.0),
            hops_recent_ms=hops,
            stream_backlog=row["backlog"] or 0.0,
        )

    def series(self, range_s: int, now_s: float) -> dict[str, Any]:
        """The columns of the resolution that covers a range."""
        tier = next((tier for tier in self.history.tiers if tier.resolution.range_s >= range_s), self.history.tiers[-1])
        with self._lock:
            return tier.shown(int(now_s))

    def subscribe(self, who: object, wake: Wake) -> None:
        with self._lock:
            self._subscribers[who] = wake

    def unsubscribe(self, who: object) -> None:
        with self._lock:
            self._subscribers.pop(who, None)

    @property
    def subscribers(self) -> int:
        return len(self._subscribers)

    def close(self) -> None:
        """Every open stream of events ends, so that the server can."""
        self.closed = True
        self._wake_all()

    def _wake_all(self) -> None:
        with self._lock:
            waiting = list(self._subscribers.values())
        for wake in waiting:
            wake()


class Ticker:
    """Runs the scrapers and ticks the feed on each second of the clock."""

    def __init__(self, feed: Feed, scrapers: Sequence[Scraper]) -> None:
        self._feed = feed
        self._scrapers = scrapers
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="ticker", daemon=True)

    def start(self) -> None:
        for scraper in self._scrapers:
            scraper.start()
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        for scraper in self._scrapers:
            scraper.stop()
        self._thread.join()
        self._feed.close()

    def _run(self) -> None:
        while not self._stopping.wait(until_next(_ANSWERS_WITHIN_S)):
            self._feed.tick(time.time())


def _silent(answer: Answer, now_s: float) -> bool:
    """No figures of now: it never answered, or not for longer than a slow answer takes."""
    if answer.answered_at_s is None:
        return True
    return answer.failure is not None and now_s - answer.answered_at_s >= SILENT_AFTER_S


def _lost(answer: Answer, now_s: float) -> bool:
    """It was there and is not now; one that never was is not part of this set-up."""
    return answer.answered_at_s is not None and _silent(answer, now_s)


def _source(name: str, answer: Answer, now_s: float) -> dict[str, Any]:
    state = "never" if answer.answered_at_s is None else "silent" if _silent(answer, now_s) else "answers"
    return {"name": name, "state": state, "failure": answer.failure, "answered_at_s": answer.answered_at_s}


def _probe(samples: Samples) -> dict[str, float] | None:
    """Whatever the independent consumer found; None while none runs."""
    found = {
        name.removeprefix(_PROBE): total
        for name in samples.by_name
        if name.startswith(_PROBE) and not name.endswith("_created") and (total := samples.total(name)) is not None
    }
    return found or None

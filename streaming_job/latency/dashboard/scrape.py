"""Asking each process for its /metrics, once a second, each from a thread of its own: a slow one delays no other."""

import http.client
import threading
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import urlsplit

from prometheus_client.parser import text_string_to_metric_families

EVERY_S: Final = 1.0
TIMEOUT_S: Final = 3.0
_BYTES_MAX: Final = 4 * 1024 * 1024

Labels = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Source:
    """One process that publishes figures; the first of a list is the job."""

    name: str
    url: str


@dataclass(frozen=True, slots=True)
class Sample:
    labels: Labels
    value: float


@dataclass(frozen=True, slots=True)
class Samples:
    """Everything one or more processes said, by the sample's name. Their names differ, so answers merge."""

    by_name: Mapping[str, tuple[Sample, ...]] = field(default_factory=dict)

    def of(self, name: str) -> tuple[Sample, ...]:
        return self.by_name.get(name, ())

    def total(self, name: str) -> float | None:
        """Over all labels; None when the figure is not published."""
        found = self.of(name)
        return sum(sample.value for sample in found) if found else None

    def most(self, name: str, **labels: str) -> float | None:
        """The largest among samples that carry these labels."""
        return max((s.value for s in self.of(name) if labels.items() <= s.labels.items()), default=None)

    def by_label(self, name: str, label: str) -> dict[str, float]:
        """Summed over the other labels."""
        sums: dict[str, float] = {}
        for sample in self.of(name):
            key = sample.labels.get(label, "")
            sums[key] = sums.get(key, 0.0) + sample.value
        return sums

    @classmethod
    def merged(cls, parts: Iterable["Samples"]) -> "Samples":
        together: dict[str, tuple[Sample, ...]] = {}
        for part in parts:
            for name, found in part.by_name.items():
                together[name] = together.get(name, ()) + found
        return cls(together)


@dataclass(frozen=True, slots=True)
class Answer:
    """The last word of one source. While it is silent its last figures stay known, as the last ones."""

    samples: Samples = field(default_factory=Samples)
    answered_at_s: float | None = None
    failure: str | None = None
    """Why the latest attempt brought nothing; None when it did."""
    refused: bool = False
    """Nobody listens there: the process is gone, not merely slow."""


def parse(text: str) -> Samples:
    """Without histograms' buckets, which no figure of the page needs and which are most of the text."""
    lines = (line for line in text.splitlines() if "_bucket{" not in line and not line.startswith("#"))
    found: dict[str, list[Sample]] = {}
    for family in text_string_to_metric_families("\n".join(lines) + "\n"):
        for sample in family.samples:
            found.setdefault(sample.name, []).append(Sample(sample.labels, sample.value))
    return Samples({name: tuple(samples) for name, samples in found.items()})


def fetch(url: str, timeout_s: float) -> str:
    """Straight to the address: a proxy meant for the outside has no part in this."""
    parts = urlsplit(url)
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    connection = kind(parts.hostname or "", parts.port, timeout=timeout_s)
    try:
        connection.request("GET", parts.path or "/metrics", headers={"Accept": "text/plain"})
        response = connection.getresponse()
        if response.status != http.client.OK:
            raise http.client.HTTPException(f"it answered {response.status}")
        body = response.read(_BYTES_MAX + 1)
        if len(body) > _BYTES_MAX:
            raise http.client.HTTPException(f"its answer is larger than {_BYTES_MAX} bytes")
        return body.decode()
    finally:
        connection.close()


class Scraper:
    """Keeps the last answer of one source up to date until it is stopped."""

    def __init__(self, source: Source, timeout_s: float = TIMEOUT_S) -> None:
        self.source = source
        self._timeout_s = timeout_s
        self._answer = Answer()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"scrape-{source.name}", daemon=True)

    @property
    def answer(self) -> Answer:
        return self._answer

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()

    def scrape(self) -> None:
        try:
            self._answer = Answer(parse(fetch(self.source.url, self._timeout_s)), time.time())
        except ConnectionRefusedError:
            self._failed("nobody listens there", refused=True)
        except TimeoutError:
            self._failed(f"no answer within {self._timeout_s:g} s")
        except (OSError, http.client.HTTPException, ValueError) as error:
            self._failed(str(error) or type(error).__name__)

    def _failed(self, why: str, *, refused: bool = False) -> None:
        last = self._answer
        self._answer = Answer(last.samples, last.answered_at_s, why, refused)

    def _run(self) -> None:
        # All on the full second, so that what different processes say is of the same time.
        while not self._stopping.wait(until_next(0.0)):
            self.scrape()


def until_next(offset_s: float) -> float:
    """Seconds until the clock next shows a full second and `offset_s`; never 0, so none is taken twice."""
    return EVERY_S - (time.time() - offset_s) % EVERY_S + 0.001

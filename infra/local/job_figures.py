"""What the job says of itself at /metrics, as the few figures a display needs."""

import urllib.error
from dataclasses import dataclass
from typing import Final

from prometheus_client.parser import text_string_to_metric_families

from infra.local.ports import open_directly
from streaming_job.latency.hops import WHOLE

_TIMEOUT_S: Final = 2.0


@dataclass(frozen=True, slots=True)
class JobFigures:
    changes: int = 0
    """Committed for the table since the job started."""
    freshness_ms: tuple[tuple[str, float], ...] = ()
    """Quantile and milliseconds from origin to queryable over the last minute, when there were any."""
    answered: bool = True


def read_figures(url: str, table: str) -> JobFigures:
    """The figures now; `answered` is False while the job does not."""
    try:
        with open_directly(url, _TIMEOUT_S) as response:
            text = response.read().decode()
    except (urllib.error.URLError, TimeoutError, ConnectionError):
        return JobFigures(answered=False)
    return parse_figures(text, table)


def parse_figures(text: str, table: str) -> JobFigures:
    changes = 0
    freshness = []
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.labels.get("table") != table:
                continue
            if sample.name == "lakestream_changes_total":
                changes = int(sample.value)
            elif sample.name == "lakestream_hop_ms" and sample.labels["hop"] == WHOLE:
                freshness.append((sample.labels["quantile"], sample.value))
    return JobFigures(changes, tuple(sorted(freshness)))

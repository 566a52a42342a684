"""What an option's text may say: durations, sizes, names, a place to start. Anything else is a ValueError."""

import json
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Final

_UNITS_MS: Final = {"ms": 1, "s": 1000, "m": 60_000, "min": 60_000, "h": 3_600_000, "": 1}
_UNITS_BYTES: Final = {"": 1, "b": 1, "k": 1024, "kb": 1024, "m": 1024**2, "mb": 1024**2, "g": 1024**3, "gb": 1024**3}
_QUANTITY = re.compile(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([a-z]*)\s*")


@dataclass(frozen=True)
class InitialPosition:
    """`trim_horizon`, `latest`, or a time."""

    kind: str
    at_ms: int = 0


LATEST: Final = InitialPosition("latest")


def _quantity(units: Mapping[str, int], what: str) -> Callable[[str], int]:
    def parse(text: str) -> int:
        match = _QUANTITY.fullmatch(text.lower())
        if match is None or match[2] not in units:
            raise ValueError(f"{text!r} is no {what}")
        return int(Decimal(match[1]) * units[match[2]])

    return parse


duration_ms = _quantity(_UNITS_MS, "duration such as 200ms, 10s, 2m")
size = _quantity(_UNITS_BYTES, "size such as 500kb, 64mb, 2gb")


def rate(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text!r} is no rate")
    return value


def boolean(text: str) -> bool:
    if text.lower() not in ("true", "false"):
        raise ValueError(f"{text!r} is neither true nor false")
    return text.lower() == "true"


def stream_names(text: str) -> tuple[str, ...]:
    names = tuple(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
    for name in names:
        if not re.fullmatch(r"[a-zA-Z0-9_.-]{1,128}", name):
            raise ValueError(f"{name!r} is no stream name")
    if not names:
        raise ValueError("no stream is named")
    return names


def consumer_mode(text: str) -> str:
    if text.lower() not in ("polling", "efo"):
        raise ValueError(f"{text!r} is neither polling nor efo")
    return text.lower()


def id_type(text: str) -> str:
    if text.lower() not in ("name", "arn"):
        raise ValueError(f"{text!r} is neither name nor ARN")
    return text.lower()


def initial_position(text: str) -> InitialPosition:
    """`latest`, `trim_horizon`, `earliest`, an ISO time, or Databricks' JSON with `at_timestamp` and `format`."""
    word = text.strip()
    if word.lower() in ("latest", "trim_horizon"):
        return InitialPosition(word.lower())
    if word.lower() == "earliest":
        return InitialPosition("trim_horizon")
    if word.startswith("{"):
        word = _databricks_time(word)
    try:
        moment = datetime.fromisoformat(word)
    except ValueError:
        raise ValueError(
            f"{text!r} is none of latest, trim_horizon, earliest, or a time such as 2026-01-31T10:00:00Z"
        ) from None
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return InitialPosition("at_timestamp", int(moment.timestamp() * 1000))


def _databricks_time(text: str) -> str:
    """Databricks writes {"at_timestamp": "06/25/2020 10:23:45 UTC", "format": "MM/dd/yyyy HH:mm:ss ZZZ"}."""
    try:
        value = json.loads(text)
        given = str(value["at_timestamp"]).strip()
    except (ValueError, KeyError, TypeError):
        raise ValueError(f'{text!r} is no JSON such as {{"at_timestamp": "2026-01-31T10:00:00Z"}}') from None
    match = re.fullmatch(r"(\d\d)/(\d\d)/(\d{4}) (\d\d:\d\d:\d\d)\s*(UTC|GMT|Z|[+-]\d\d:?\d\d)?", given)
    if match is None:
        return given
    month, day, year, time, zone = match.groups()
    return f"{year}-{month}-{day}T{time}{zone if zone and zone[0] in '+-' else '+00:00'}"

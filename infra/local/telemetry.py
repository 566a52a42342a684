"""Synthetic telemetry of connected cars: items as the webhooks store them, the same for the same generator and time."""

import json
import random
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

Item = dict[str, Any]
"""An item as plain Python: str, int, bool, None, list, dict."""

_Body = dict[str, Any]

SIGNALS_PER_ITEM = (20, 26)
"""Of the catalogue below, chosen anew for each item: 23 on average."""

_MAKES: tuple[tuple[str, tuple[str, ...], str], ...] = (
    ("BMW", ("i4", "iX", "330e"), "Europe/Berlin"),
    ("VOLKSWAGEN", ("ID.3", "ID.4", "e-Golf"), "Europe/Amsterdam"),
    ("TESLA", ("Model 3", "Model Y"), "America/Los_Angeles"),
    ("KIA", ("EV6", "Niro EV"), "Europe/London"),
    ("HYUNDAI", ("IONIQ 5", "KONA"), "Australia/Sydney"),
    ("RENAULT", ("Mégane E-Tech", "Zoe"), "Europe/Paris"),
)
_FLEET = 250
"""Cars that items are about; many items each."""


def _value(make: Callable[[random.Random], Any]) -> Callable[[random.Random], _Body]:
    return lambda rng: {"value": make(rng)}


def _measured(make: Callable[[random.Random], Any], unit: str) -> Callable[[random.Random], _Body]:
    return lambda rng: {"value": make(rng), "unit": unit}


def _one_of(*choices: Any) -> Callable[[random.Random], Any]:
    return lambda rng: rng.choice(choices)


def _flag(likely: float) -> Callable[[random.Random], bool]:
    return lambda rng: rng.random() < likely


def _real(low: float, high: float, digits: int) -> Callable[[random.Random], float]:
    return lambda rng: round(rng.uniform(low, high), digits)


def _whole(low: int, high: int) -> Callable[[random.Random], int]:
    return lambda rng: rng.randint(low, high)


def _tires(rng: random.Random) -> _Body:
    return {
        "values": [round(rng.uniform(210, 270), 1) for _ in range(4)],
        "unit": "kPa",
        "rowCount": 2,
        "columnCount": 2,
    }


def _position(rng: random.Random) -> _Body:
    return {
        "latitude": round(rng.uniform(35, 60), 6),
        "longitude": round(rng.uniform(-10, 25), 6),
        "heading": rng.randint(0, 359),
        "direction": rng.choice(("N", "E", "S", "W")),
    }


def _doors(rng: random.Random) -> _Body:
    return {"values": [{"row": place // 2, "column": place % 2, "isOpen": rng.random() < 0.05} for place in range(4)]}


SIGNALS: Mapping[str, tuple[tuple[str, Callable[[random.Random], _Body]], ...]] = {
    "Charge": (
        ("IsCharging", _value(_flag(0.3))),
        ("IsChargingCableConnected", _value(_flag(0.4))),
        ("IsFastChargerPresent", _value(_flag(0.1))),
        ("DetailedChargingStatus", _value(_one_of("CHARGING", "FULLY_CHARGED", "NOT_CHARGING", "CHARGING_PAUSED"))),
        (
            "ChargeLimits",
            lambda rng: {"values": [{"type": "global", "limit": rng.choice((70, 80, 90, 100))}], "unit": "percent"},
        ),
        ("ActiveLimit", _measured(_whole(50, 100), "percent")),
        ("Amperage", _measured(_real(0, 32, 1), "A")),
        ("AmperageMax", _measured(_whole(6, 32), "A")),
        ("Voltage", _measured(_real(220, 410, 1), "V")),
        ("Wattage", _measured(_real(0, 11, 3), "kW")),
        ("TimeToComplete", _measured(_whole(0, 600), "min")),
        ("EnergyAdded", _measured(_real(0, 70, 2), "kWh")),
        ("ChargerType", _value(_one_of("AC", "DC", None))),
    ),
    "TractionBattery": (
        ("StateOfCharge", _measured(_real(5, 100, 1), "percent")),
        ("NominalCapacity", _measured(_one_of(58, 64.8, 77.4, 83.9), "kWh")),
        ("Range", _measured(_real(20, 560, 1), "km")),
        ("MaxRangeChargeCounter", _value(_whole(0, 400))),
        ("IsHeaterActive", _value(_flag(0.1))),
    ),
    "Odometer": (("TraveledDistance", _measured(_real(100, 180_000, 2), "km")),),
    "Location": (
        ("PreciseLocation", _position),
        ("IsAtHome", _value(_flag(0.6))),
    ),
    "Closure": (
        ("IsLocked", _value(_flag(0.9))),
        ("Doors", _doors),
        ("FrontTrunk", lambda rng: {"isOpen": rng.random() < 0.02}),
        ("RearTrunk", lambda rng: {"isOpen": rng.random() < 0.03}),
        ("EngineCover", lambda rng: {"isOpen": rng.random() < 0.01}),
    ),
    "Climate": (
        ("ExternalTemperature", _measured(_real(-20, 42, 1), "celsius")),
        ("InternalTemperature", _measured(_real(-10, 50, 1), "celsius")),
    ),
    "Wheel": (("Tires", _tires),),
    "Motion": (("Speed", _measured(_real(0, 140, 1), "km/h")), ("IsMoving", _value(_flag(0.35)))),
    "LowVoltageBattery": (
        ("StateOfCharge", _measured(_whole(40, 100), "percent")),
        ("Status", _value(_one_of("OK", "LOW", "UNKNOWN"))),
    ),
    "ConnectivityStatus": (
        ("IsOnline", _value(_flag(0.97))),
        ("IsAsleep", _value(_flag(0.4))),
        ("IsDigitalKeyPaired", _value(_flag(0.2))),
    ),
    "ConnectivitySoftware": (
        ("CurrentFirmwareVersion", _value(lambda rng: f"{rng.randint(1, 9)}.{rng.randint(0, 40)}")),
    ),
    "VehicleIdentification": (
        ("Nickname", _value(_one_of("Blitz", "Grünspan", "", None))),
        ("ExteriorColor", _value(_one_of("black", "white", "red", "blue"))),
    ),
    "Diagnostics": (
        ("DTCCount", _value(_whole(0, 4))),
        ("IsServiceDue", lambda rng: {"isDue": rng.random() < 0.1, "distance": rng.randint(0, 30_000), "unit": "km"}),
    ),
}

CATALOGUE: tuple[tuple[str, str, Callable[[random.Random], _Body]], ...] = tuple(
    (group, name, make) for group, signals in SIGNALS.items() for name, make in signals
)


@dataclass(frozen=True)
class _Car:
    id: str
    user: str
    make: str
    model: str
    year: int
    timezone: str


def _fleet() -> tuple[_Car, ...]:
    rng = random.Random("fleet")
    cars = []
    for _ in range(_FLEET):
        make, models, timezone = rng.choice(_MAKES)
        cars.append(_Car(_uuid(rng), _uuid(rng), make, rng.choice(models), rng.randint(2016, 2026), timezone))
    return tuple(cars)


def _uuid(rng: random.Random) -> str:
    return str(uuid.UUID(int=rng.getrandbits(128), version=4))


_CARS = _fleet()


def telemetry_item(rng: random.Random, now_ms: int, *, event_id: str | None = None) -> Item:
    """One webhook's item. `meta.deliveredAt` is `now_ms`: the producer's own clock, where origin_ms comes from."""
    car = rng.choice(_CARS)
    chosen = rng.sample(CATALOGUE, rng.randint(*SIGNALS_PER_ITEM))
    signals = [_signal(group, name, make(rng), rng, now_ms) for group, name, make in chosen]
    return {
        "event_id": event_id or _uuid(rng),
        "recorded_at": datetime.fromtimestamp(now_ms // 1000, UTC).strftime("%Y-%m-%d %H:%M:%S"),
        "car_timezone": car.timezone,
        "record_type": "VEHICLE_STATE",
        "smartcar_user_id": car.user,
        "meta": {
            "mode": "LIVE",
            "deliveryId": _uuid(rng),
            "webhookId": "b6c5cb57-8a5c-4a47-8a0f-2f1d6e0f4c11",
            "signalCount": len(signals),
            "webhookName": "telemetry",
            "version": "4.0",
            "deliveredAt": now_ms,
        },
        "user": {"id": car.user},
        "vehicle": {"id": car.id, "make": car.make, "model": car.model, "year": car.year},
        "signals": signals,
        "triggers": [] if rng.random() < 0.7 else [{"type": "SIGNAL_UPDATED", "signal": signals[0]["code"]}],
    }


def _signal(group: str, name: str, body: _Body, rng: random.Random, now_ms: int) -> Item:
    updated_ms = now_ms - rng.randint(500, 120_000)
    return {
        "name": name,
        "code": f"{group}-{name}".lower(),
        "group": group,
        "body": json.dumps(body, separators=(",", ":"), ensure_ascii=False),
        "meta": {"retrievedAt": updated_ms + rng.randint(50, 450), "oemUpdatedAt": updated_ms},
    }


def to_dynamodb(item: Item) -> dict[str, Any]:
    """The same item in DynamoDB's JSON."""
    return {name: _typed(value) for name, value in item.items()}


def _typed(value: Any) -> dict[str, Any]:
    match value:
        case str():
            return {"S": value}
        case bool():
            return {"BOOL": value}
        case int():
            return {"N": str(value)}
        case None:
            return {"NULL": True}
        case list():
            return {"L": [_typed(member) for member in value]}
        case dict():
            return {"M": to_dynamodb(value)}
        case _:
            raise TypeError(f"telemetry holds no {type(value).__name__}")

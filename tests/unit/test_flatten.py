"""Images as columns, by the shipped rules and by small ones. The model suite holds the general case."""

import json
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyspark.sql.types import StructType

from config.tables import TableConfig, load_table
from streaming_job.pipeline.flatten import Flattener
from tests.support.flattening import b64, changes, flat_rows

SHIPPED = Path(__file__).parents[2] / "config" / "tables"
TELEMETRY = load_table(SHIPPED / "chargeminder-car-telemetry.yaml")
READINGS = load_table(SHIPPED / "charger-readings.yaml")


def config(**lake: Any) -> TableConfig:
    return TableConfig.model_validate(
        {"table": "t", "version": 1, "key": [{"name": "id"}], "lake": {"name": "t", **lake}}
    )


def flat(batch: pa.Table, rules: TableConfig, known: StructType | None = None) -> list[dict[str, Any]]:
    """Each row's columns that hold something."""
    return [_filled(row) for row in flat_rows(Flattener(rules).rows(batch, known))]


def utc(*parts: int) -> datetime:
    return datetime(*parts, tzinfo=UTC)  # type: ignore[misc,arg-type]


def _filled(row: dict[str, Any]) -> dict[str, Any]:
    keep = {name: value for name, value in row.items() if value is not None}
    if "_rescued" in keep:
        keep["_rescued"] = json.loads(keep["_rescued"])
    return keep


def values(rules: TableConfig, *images: str) -> list[dict[str, Any]]:
    found = flat(changes(list(images)), rules)
    return [{name: value for name, value in row.items() if name != "id"} for row in found]


def signal(group: str, name: str, body: str) -> dict[str, Any]:
    return {"group": group, "name": name, "code": f"{group}-{name}", "body": body, "meta": {"retrievedAt": 1}}


def event(**attributes: Any) -> str:
    item = {
        "event_id": "e1", "recorded_at": "2026-07-01 12:00:00", "car_timezone": "Europe/London", "record_type": "r",
        "meta": {"deliveredAt": 1_793_534_400_123, "signalCount": 1, "mode": "live"},
        "vehicle": {"make": "TESLA", "year": 2022}, "triggers": [], **attributes,
    }  # fmt: skip
    return json.dumps(item)


def event_changes(*images: str) -> pa.Table:
    return changes(list(images), attribute="event_id", prefix="e")


def test_telemetry_flattens_as_its_people_asked() -> None:
    image = event(
        signals=[
            signal("Charge", "IsCharging", '{"value":true}'),
            signal("Odometer", "TraveledDistance", '{"value":12345.67,"unit":"km"}'),
            signal("Location", "PreciseLocation", '{"latitude":51.5014,"longitude":-0.1419}'),
        ]
    )
    assert flat(event_changes(image), TELEMETRY) == [
        {
            "event_id": "e0",
            "recorded_at": utc(2026, 7, 1, 11),
            "car_timezone": "Europe/London",
            "record_type": "r",
            "meta_deliveredAt": 1_793_534_400_123,
            "meta_signalCount": 1,
            "meta_mode": "live",
            "vehicle_make": "TESLA",
            "vehicle_year": 2022,
            "triggers": "[]",
            "Charge_IsCharging": True,
            "Odometer_TraveledDistance_value": 12345.67,
            "Odometer_TraveledDistance_unit": "km",
            "Location_PreciseLocation_latitude": 51.5014,
            "Location_PreciseLocation_longitude": -0.1419,
        }
    ]


def test_a_signal_seen_first_with_one_field_and_then_with_several_keeps_its_column() -> None:
    flattener = Flattener(TELEMETRY)
    one = event_changes(event(signals=[signal("Tire", "Pressure", '{"value":2.5}')]))
    several = event_changes(event(signals=[signal("Tire", "Pressure", '{"value":2.5,"unit":"bar"}')]))
    first = flattener.rows(one, None)
    second = flattener.rows(several, first.schema)
    assert second.schema.names[len(first.schema) :] == ["Tire_Pressure_unit", "Tire_Pressure_value"]
    (row,) = flat_rows(second)
    assert (row["Tire_Pressure"], row["Tire_Pressure_value"], row["Tire_Pressure_unit"]) == (None, 2.5, "bar")
    (row,) = flat_rows(flattener.rows(one, second.schema))
    assert (row["Tire_Pressure"], row["Tire_Pressure_value"], row["Tire_Pressure_unit"]) == (2.5, None, None)


def test_a_body_that_is_not_json_is_rescued_and_its_neighbours_stand() -> None:
    signals = [
        signal("A", "Good", '{"value":1}'),
        signal("A", "Bad", "{oops"),
        {"group": "A"},
        "no signal",
        signal("A", "Good", '{"value":2}'),
    ]
    (row,) = flat(event_changes(event(signals=signals)), TELEMETRY)
    assert row["A_Good"] == 1
    assert row["_rescued"] == {
        "/signals/A/Bad": "{oops",
        "/signals/2": {"group": "A"},
        "/signals/3": "no signal",
        "/signals/4": signals[4],
    }


def test_what_a_signal_says_of_itself_becomes_columns_where_the_rule_names_it() -> None:
    pivot = {"list": "signals", "name": "{group}_{name}", "value": "body", "embedded": True, "fields": ["meta"]}
    image = json.dumps({"signals": [signal("A", "B", '{"value":1}')]})
    assert values(config(flatten={"pivot": [pivot]}), image) == [{"A_B": 1.0, "A_B_meta_retrievedAt": 1.0}]


def test_five_thousand_signals_fill_the_columns_allowed_and_the_rest_is_rescued() -> None:
    signals = [signal("G", f"S{i:04d}", f'{{"value":{i}}}') for i in range(5000)]
    rules = TELEMETRY.model_copy(
        update={
            "lake": TELEMETRY.lake.model_copy(
                update={"flatten": TELEMETRY.lake.flatten.model_copy(update={"columns_max": 200})}
            )
        }
    )
    (row,) = flat(event_changes(event(signals=signals)), rules)
    in_columns = {name: value for name, value in row.items() if name.startswith("G_S")}
    rescued = {path.rsplit("/", 1)[1]: value for path, value in row["_rescued"].items() if path.startswith("/signals/")}
    assert len(in_columns) + len(rescued) == 5000
    assert all(value == int(name.removeprefix("G_S")) for name, value in in_columns.items())
    assert all(value == int(name.removeprefix("S")) for name, value in rescued.items())


def test_an_image_of_900_kb_flattens() -> None:
    text = 'ä"\\\n' * 150_000
    assert values(config(), json.dumps({"text": text, "n": 1}, ensure_ascii=False)) == [{"text": text, "n": 1.0}]


@pytest.mark.parametrize("value", ["1" * 5000, "[" * 250 + "]" * 250], ids=["a number without end", "lists in lists"])
def test_an_image_the_parser_does_not_take_is_rescued_whole(value: str) -> None:
    image = f'{{"a":{value}}}'
    assert values(config(), image) == [{"_rescued": {"": image}}]


DECLARED: list[tuple[Any, dict[str, Any], list[str]]] = [
    ("bigint", {"12": 12, str(-(2**63)): -(2**63), "1E3": 1000, "5.0": 5}, ["1.5", str(2**63), '"5"']),
    ("decimal(38,0)", {"1" * 38: Decimal("1" * 38)}, ["0.5", "1E38", "1" * 39]),
    ("decimal(5,2)", {"999.99": Decimal("999.99"), "1.5": Decimal("1.5")}, ["1.005", "1e3", "true"]),
    ("double", {"1.5": 1.5, "1E+5": 1e5}, ['"1.5"', "[1]"]),
    ("boolean", {"true": True, "false": False}, ['"true"', "1"]),
    ("string", {'"x"': "x", '"1"': "1"}, ["1", "true", '["x"]']),
    ("json", {'"x"': '"x"', "1.50": "1.50", '{"a":[1.50,"b"]}': '{"a":[1.50,"b"]}'}, []),
    ("date", {'"2026-02-28"': date(2026, 2, 28)}, ['"2026-02-30"', '"2026"', "20260228"]),
    ({"type": "date", "format": "dd.MM.yyyy"}, {'"28.02.2026"': date(2026, 2, 28)}, ['"2026-02-28"']),
    (
        {"type": "timestamp", "unit": "ms"},
        {"1500": utc(1970, 1, 1, 0, 0, 1, 500_000), "0.5": utc(1970, 1, 1, 0, 0, 0, 500)},
        ["0.0005", "1E30", '"1500"'],
    ),
    ({"type": "timestamp", "unit": "s"}, {"1": utc(1970, 1, 1, 0, 0, 1)}, ["253402300800", '"x"']),
]


def test_a_declared_column_takes_what_fits_exactly_and_the_rest_is_rescued() -> None:
    """Each declaration is a column of its own, each value an item of its own."""
    rules = config(columns={f"c{i}": rule for i, (rule, _, _) in enumerate(DECLARED)})
    cases = [
        (f"c{i}", text, value, text in misfits)
        for i, (_, fits, misfits) in enumerate(DECLARED)
        for text, value in [*fits.items(), *((misfit, None) for misfit in misfits)]
    ]
    rows = values(rules, *(f'{{"{name}":{text}}}' for name, text, _, _ in cases))
    found = [
        (name, text, row.get(name), "_rescued" in row) for (name, text, _, _), row in zip(cases, rows, strict=True)
    ]
    assert found == cases


PLACED: list[tuple[str, str | None, datetime | None]] = [
    ("2026-07-01 12:00:00", "Europe/London", utc(2026, 7, 1, 11)),
    ("2026-01-01T12:00:00.5", "America/New_York", utc(2026, 1, 1, 17, 0, 0, 500_000)),
    ("2026-07-01T12:00:00Z", "Europe/London", utc(2026, 7, 1, 12)),
    ("2026-07-01T12:00:00+02:00", "Nowhere", utc(2026, 7, 1, 10)),
    ("2026-10-25 01:30:00", "Europe/London", utc(2026, 10, 25, 0, 30)),
    ("2026-07-01 12:00:00", "Europe/Atlantis", None),
    ("2026-07-01 12:00:00", None, None),
    ("12 o'clock", "Europe/London", None),
    ("2026-13-01 12:00:00", "Europe/London", None),
]


def test_a_time_is_placed_by_the_cars_zone_and_never_guessed() -> None:
    rules = config(columns={"at": "timestamp"}, time_zone={"attribute": "zone"})
    items = [{"at": text} | ({"zone": zone} if zone else {}) for text, zone, _ in PLACED]
    rows = values(rules, *map(json.dumps, items))
    assert [(row.get("at"), row.get("_rescued")) for row in rows] == [
        (moment, None if moment else {"/at": text}) for text, _, moment in PLACED
    ]


def test_a_time_in_a_stated_format_is_placed_by_the_tables_zone() -> None:
    rules = config(
        columns={"at": {"type": "timestamp", "format": "dd/MM/yyyy HH:mm"}}, time_zone={"zone": "Asia/Tokyo"}
    )
    (row,) = values(rules, '{"at":"01/07/2026 12:00"}')
    assert row["at"] == utc(2026, 7, 1, 3)


def test_a_number_a_double_spoils_is_in_its_column_and_rescued() -> None:
    exact, spoilt = "0.1", "12345678901234567890"
    rows = values(config(), f'{{"a":{exact}}}', f'{{"a":{spoilt}}}')
    assert rows == [{"a": 0.1}, {"a": 12345678901234567890.0, "_rescued": {"/a": int(spoilt)}}]


def test_binary_and_sets_are_told_from_text_and_lists_by_their_types() -> None:
    image = json.dumps({"raw": b64(b"\x00\xff"), "text": b64(b"\x00\xff"), "tags": ["a", "b"], "bad": "?"})
    frame = changes([image], [{"/new/raw": "B", "/new/tags": "SS", "/new/bad": "B"}])
    (row,) = flat(frame, config())
    assert row["raw"] == b"\x00\xff"
    assert row["text"] == b64(b"\x00\xff")
    assert row["tags"] == '["a","b"]'
    assert row["_rescued"] == {"/bad": "?"}


def test_the_readings_table_has_a_composite_key_of_number_and_binary() -> None:
    image = {
        "charger_id": 7, "reading_id": b64(b"r1"), "taken_at": 1_793_534_400, "energy_kwh": "EXACT",
        "installed_on": "28.02.2026", "signature": b64(b"\x01"), "phases": [{"volt": 230}, {"volt": 231.5}],
        "payload": '{"firmware":{"version":"1.2"},"errors":[]}', "operator": {"name": "o", "badges": {"x": [1]}},
        "meter": {"serial": 12345678901234567890}, "connectors": ["CCS", "Type2"],
    }  # fmt: skip
    text = json.dumps(image).replace('"EXACT"', "12345678901234567890.123456789012345678")
    table = pa.table(
        {
            "key": [f'{{"charger_id":7,"reading_id":"{b64(b"r1")}"}}'],
            "change_seq": ["1"],
            "new": [text],
            "types": [json.dumps({"/new/signature": "B", "/new/reading_id": "B", "/new/connectors": "SS"})],
        }
    )
    assert flat(table, READINGS) == [
        {
            "charger_id": 7,
            "reading_id": b"r1",
            "taken_at": utc(2026, 11, 1, 12),
            "installed_on": date(2026, 2, 28),
            "energy_kwh": Decimal("12345678901234567890.123456789012345678"),
            "meter_serial": Decimal(12345678901234567890),
            "signature": b"\x01",
            "phases_0_volt": 230.0,
            "phases_1_volt": 231.5,
            "payload_firmware_version": "1.2",
            "payload_errors": "[]",
            "operator_name": "o",
            "operator_badges": '{"x":[1]}',
            "connectors": '["CCS","Type2"]',
        }
    ]


def test_attributes_called_like_the_changes_own_fields_are_columns_all_the_same() -> None:
    image = json.dumps({"key": "k", "op": "o", "change_seq": "c", "_seq": "s", "_change": "x"})
    (row,) = values(config(), image)
    assert row == {"key": "k", "op": "o", "change_seq": "c", "x_seq": "s", "x_change": "x"}


def test_a_delete_has_its_key_and_nothing_else() -> None:
    frame = changes(['{"a":1}', None])
    assert flat(frame, config()) == [{"id": "0", "a": 1.0}, {"id": "1"}]


def test_items_that_are_nothing_but_a_key_flatten_before_any_column_is_known() -> None:
    frame = changes(['{"id":"0"}', None])
    assert flat(frame, config()) == [{"id": "0"}, {"id": "1"}]


def test_names_too_long_for_a_column_are_rescued_and_their_neighbours_stand() -> None:
    long, neighbour = "n" * 40_000, {"a": 1}
    (row,) = values(config(), json.dumps({long: {long: "x"}, **neighbour}))
    assert row == {"a": 1.0, "_rescued": {f"/{long}/{long}": "x"}}


def test_a_batch_that_brings_nothing_new_needs_no_new_column() -> None:
    batch = changes(['{"a":1}'])
    flattener = Flattener(config())
    known = flattener.rows(batch, None).schema
    assert flattener.rows(batch, known).schema == known
    assert Flattener(config()).rows(batch, known).schema == known


def test_ever_new_names_do_not_fill_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streaming_job.pipeline.image_tree._NODES_MAX", 50)
    flattener = Flattener(config(flatten={"columns_max": 5}))
    known = None
    for start in range(0, 200, 20):
        found = flattener.rows(changes([json.dumps({f"n{start + i}": i}) for i in range(20)]), known)
        known = found.schema
        assert flattener._tree.nodes <= 70
    assert len(found.schema) == 6
    assert found.rescued.null_count == 0

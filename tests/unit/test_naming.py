"""Names of columns and what they are learnt from. Pure."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyspark.sql.types import DoubleType, StringType, StructType

from config.tables import TableConfig
from streaming_job.pipeline.columns import ColumnTypeError, columns_of
from streaming_job.pipeline.naming import NAME_CHARS_MAX, distinct_name, plain_name, pointer, segments

SIGNALS = {"/signals": "{group}_{name}"}


def config(**lake: object) -> TableConfig:
    key = [{"name": "event_id"}]
    return TableConfig.model_validate({"table": "t", "version": 1, "key": key, "lake": {"name": "t", **lake}})


def test_no_attribute_takes_the_name_that_the_live_view_gives_to_the_time_of_writing() -> None:
    name = distinct_name("/Pipeline_Processed_At", {}, set[str]().__contains__)
    assert name.startswith("Pipeline_Processed_At_")
    assert len(name) == len("Pipeline_Processed_At_") + 8


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/vehicle/make", "vehicle_make"),
        ("/signals/Charge/IsCharging", "Charge_IsCharging"),
        ("/signals/Odometer/TraveledDistance/value", "Odometer_TraveledDistance_value"),
        ("/signals/3", "signals_3"),
        ("/a b", "a_b"),
        ("/x');DROP TABLE t;--", "x_DROP_TABLE_t_"),
        ("/a.b", "a_b"),
        ('/"q"', "x_q_"),
        ("/_seq", "x_seq"),
        ("/é", "x_"),
        ("/", "x_"),
        ("/a~1b/c~0d", "a_b_c_d"),
        ("/2nd", "2nd"),
    ],
)
def test_a_path_has_one_plain_name(path: str, name: str) -> None:
    assert plain_name(path, SIGNALS) == name


@given(st.lists(st.text(max_size=20), min_size=1, max_size=5))
def test_a_pointer_gives_its_segments_back(parts: list[str]) -> None:
    assert segments(pointer(parts)) == tuple(parts)


@given(st.lists(st.text(max_size=200), min_size=1, max_size=3), st.sets(st.text(max_size=5)))
def test_a_name_is_safe_short_and_free_whatever_the_path(parts: list[str], taken: set[str]) -> None:
    name = distinct_name(pointer(parts), SIGNALS, taken.__contains__)
    assert 0 < len(name) <= NAME_CHARS_MAX
    assert name.isascii()
    assert name.replace("_", "a").isalnum()
    assert not name.startswith("_")


def test_of_two_paths_with_one_name_the_first_keeps_it_and_the_other_gets_a_hash() -> None:
    columns = columns_of(config(), None).learn({("s", "/a_b"): 1})
    columns = columns.learn({("s", "/a/b"): 1, ("s", "/A_B"): 1})
    names = {column.path: column.name for column in columns.flattened}
    assert names["/a_b"] == "a_b"
    assert names["/a/b"].startswith("a_b_")
    assert names["/A_B"].startswith("A_B_")
    assert len({name.lower() for name in names.values()}) == 3


def test_an_attribute_that_would_get_the_keys_name_gets_another() -> None:
    columns = columns_of(config(), None).learn({("s", "/event/id"): 1, ("s", "/EVENT_ID"): 1})
    assert {"event_id"}.isdisjoint(column.name.lower() for column in columns.flattened)


def test_a_restart_finds_every_columns_path_in_its_comment() -> None:
    seen = {("s", "/a_b"): 1, ("s", "/a/b"): 1, ("j", "/list"): 1, ("n", "/n\n\x01'"): 2, ("x", "/raw"): 1}
    before = columns_of(config(), None).learn(seen)
    stored = StructType.fromJson(json.loads(before.schema().json()))
    after = columns_of(config(), stored)
    assert after.flattened == before.flattened
    assert after.learn(seen) == after


def test_a_column_whose_comment_was_rewritten_stays_with_the_path_that_has_its_name() -> None:
    stored = StructType().add("event_id", "string").add("vehicle_make", "string", True, {"comment": "Who built it"})
    columns = columns_of(config(), stored).learn({("s", "/vehicle/make"): 1})
    assert [(c.name, c.path) for c in columns.flattened] == [("vehicle_make", "/vehicle/make")]


def test_a_path_keeps_the_type_it_was_first_seen_with() -> None:
    columns = columns_of(config(), None).learn({("n", "/a"): 1})
    columns = columns.learn({("s", "/a"): 100})
    assert [(c.name, c.type) for c in columns.flattened] == [("a", DoubleType())]


def test_the_commonest_kind_of_a_batch_decides_and_text_where_two_are_as_common() -> None:
    columns = columns_of(config(), None).learn({("n", "/a"): 3, ("s", "/a"): 2, ("n", "/b"): 2, ("s", "/b"): 2})
    assert {c.name: c.type for c in columns.flattened} == {"a": DoubleType(), "b": StringType()}


def test_a_table_gets_no_more_columns_than_its_rules_allow() -> None:
    columns = columns_of(config(flatten={"columns_max": 10}), None)
    assert len(columns.learn({("s", f"/a{i}"): 1 for i in range(5000)}).flattened) == 10


def test_a_signal_seen_with_more_fields_keeps_its_column_and_gets_new_ones() -> None:
    pivot = {"list": "signals", "name": "{group}_{name}", "value": "body"}
    columns = columns_of(config(flatten={"pivot": [pivot]}), None).learn({("n", "/signals/Odometer/Total"): 1})
    columns = columns.learn({("n", "/signals/Odometer/Total/value"): 1, ("s", "/signals/Odometer/Total/unit"): 1})
    assert [c.name for c in columns.flattened] == ["Odometer_Total", "Odometer_Total_unit", "Odometer_Total_value"]


def test_rules_that_declare_another_type_than_the_table_has_are_refused() -> None:
    stored = columns_of(config(), None).learn({("n", "/a"): 1}).schema()
    with pytest.raises(ColumnTypeError, match="column a is double in the table, bigint in the rules"):
        columns_of(config(columns={"a": "bigint"}), stored)


def test_a_column_no_longer_declared_keeps_its_type() -> None:
    stored = columns_of(config(columns={"a": "decimal(38,2)"}), None).schema()
    (column,) = columns_of(config(), stored).flattened
    assert column.rule is not None
    assert column.rule.type == "decimal(38,2)"


@pytest.mark.parametrize(
    ("columns", "complaint"),
    [
        ({"a": "decimal(10,12)"}, "more decimals than digits"),
        ({"a": "decimal(39,0)"}, "pattern"),
        ({"a": {"type": "string", "unit": "s"}}, "unit goes with timestamp"),
        ({"a": {"type": "timestamp", "unit": "ms", "format": "yyyy"}}, "format goes with"),
    ],
)
def test_a_declaration_that_cannot_be_is_refused(columns: dict[str, object], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        config(columns=columns)


@pytest.mark.parametrize("zone", [{}, {"zone": "Europe/Atlantis"}])
def test_a_time_zone_rule_that_places_nothing_is_refused(zone: dict[str, str]) -> None:
    with pytest.raises(ValueError, match=r"IANA|attribute"):
        config(time_zone=zone)

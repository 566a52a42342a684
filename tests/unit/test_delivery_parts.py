"""The delivery's small parts: prefixes as Firehose evaluates them, the buffer, records as lines."""

import base64
import json
import re
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from aws_kinesis_agg.aggregator import RecordAggregator
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from infra.local.delivery.buffer import Buffer
from infra.local.delivery.framing import Framed, Record, frame
from infra.local.delivery.objects import name_of
from infra.local.delivery.prefix import PrefixError, checked, evaluate, java_format
from infra.local.delivery.settings import DeliverySettings

NOW = datetime(2026, 3, 4, 5, 6, 7, 89_000, tzinfo=UTC)


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("yyyy-MM-dd", "2026-03-04"),
        ("yyyy/MM/dd/HH", "2026/03/04/05"),
        ("yyyy'-'MM'-'dd", "2026-03-04"),
        ("yy M d H m s", "26 3 4 5 6 7"),
        ("uuuu", "2026"),
        ("HH:mm:ss.SSS", "05:06:07.089"),
        ("DDD", "063"),
        ("MMM", "Mar"),
        ("MMMM", "March"),
        ("'hour='HH", "hour=05"),
        ("'o''clock'", "o'clock"),
        ("''", "'"),
    ],
)
def test_timestamps_are_formatted_as_java_does(pattern: str, expected: str) -> None:
    assert java_format(pattern, NOW) == expected


@pytest.mark.parametrize(("pattern", "said"), [("YYYY", "use yyyy"), ("hh", "'h' is not supported"), ("'x", "no end")])
def test_a_pattern_that_would_be_guessed_at_is_refused(pattern: str, said: str) -> None:
    with pytest.raises(PrefixError, match=said):
        java_format(pattern, NOW)


def test_every_timestamp_of_a_prefix_is_the_same_moment_in_utc() -> None:
    elsewhere = NOW.astimezone(timezone(timedelta(hours=9)))
    prefix = "a/date=!{timestamp:yyyy-MM-dd}/hour=!{timestamp:HH}/"
    assert evaluate(prefix, elsewhere) == "a/date=2026-03-04/hour=05/"


def test_every_random_string_is_another_of_eleven_characters() -> None:
    first, second = evaluate("!{firehose:random-string}/!{firehose:random-string}", NOW).split("/")
    assert re.fullmatch(r"[A-Za-z0-9]{11}", first)
    assert first != second


def test_a_prefix_without_expressions_gets_the_default_time() -> None:
    assert checked("raw/", None) == ("raw/!{timestamp:yyyy/MM/dd/HH}/", None)


@pytest.mark.parametrize(
    ("prefix", "error_prefix", "said"),
    [
        ("a/!{firehose:error-output-type}/", "e/", "error_prefix only"),
        ("a/!{timestamp:yyyy}/", None, "error_prefix is needed"),
        ("a/!{timestamp:yyyy}/", "e/!{timestamp:yyyy}/", "error-output-type"),
        ("a/!{partitionKeyFromQuery:x}/", "e/!{firehose:error-output-type}/", "not an expression"),
        ("a/!{timestamp:yyyy", "e/!{firehose:error-output-type}/", "without an end"),
        ("a/!{firehose:!{timestamp:yyyy}}/", "e/!{firehose:error-output-type}/", "not an expression|inside another"),
        ("x" * 600, None, "longer"),
    ],
)
def test_a_prefix_that_firehose_refuses_is_refused(prefix: str, error_prefix: str | None, said: str) -> None:
    with pytest.raises(PrefixError, match=said):
        checked(prefix, error_prefix)


def test_an_object_is_named_after_the_delivery_stream_and_the_moment_of_writing() -> None:
    name = name_of("a/!{timestamp:HH}/", stream="raw", oldest=NOW, now=NOW + timedelta(hours=1))
    assert re.fullmatch(r"a/05/raw-1-2026-03-04-06-06-07-[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\.gz", name)


SETTINGS: dict[str, Any] = {"region": "us-east-1", "stream": "s", "bucket": "b", "state_dir": "state"}


@pytest.mark.parametrize(
    "wrong",
    [
        {"buffer_s": 901},
        {"buffer_s": -1},
        {"buffer_bytes": 1024},
        {"buffer_bytes": 129 * 1024 * 1024},
        {"prefix": "!{timestamp:YYYY}/"},
        {"name": "no spaces"},
        {"buffers": 1},
    ],
    ids=str,
)
def test_settings_that_firehose_would_refuse_are_refused(wrong: dict[str, Any]) -> None:
    DeliverySettings.model_validate(SETTINGS)
    with pytest.raises(ValidationError):
        DeliverySettings.model_validate(SETTINGS | wrong)


# --- buffer -----------------------------------------------------------------------------------------------------------


def framed(number: int, size: int = 10, minutes: int = 0) -> Framed:
    return Framed(Record(str(number), NOW + timedelta(minutes=minutes), b""), b"x" * (size - 1) + b"\n", b"")


def test_a_buffer_is_due_when_it_is_full() -> None:
    buffer = Buffer(bytes_max=100, wait_s=60)
    buffer.add("s", framed(1, 99), 0)
    assert buffer.due_in_s(0) == 60
    buffer.add("s", framed(2, 1), 0)
    assert buffer.due_in_s(0) == 0


def test_a_buffer_is_due_when_its_first_record_has_waited() -> None:
    buffer = Buffer(bytes_max=100, wait_s=60)
    assert buffer.due_in_s(1000) is None
    buffer.add("s", framed(1), 10)
    buffer.add("s", framed(2), 50)
    assert buffer.due_in_s(50) == 20
    assert buffer.due_in_s(71) == 0
    buffer.take()
    assert buffer.due_in_s(71) is None


def test_a_load_names_the_oldest_arrival_and_each_shards_span() -> None:
    buffer = Buffer(bytes_max=1000, wait_s=60)
    for shard, number, minutes in (("a", 5, 3), ("b", 1, 1), ("a", 6, 2), ("b", 2, 9)):
        buffer.add(shard, framed(number, minutes=minutes), 0)
    load = buffer.take()
    assert load.oldest == NOW + timedelta(minutes=1)
    assert load.spans == {"a": ("5", "6"), "b": ("1", "2")}
    assert load.records == 4
    assert len(buffer) == buffer.size == 0


# --- lines ------------------------------------------------------------------------------------------------------------


def lines_of(data: bytes) -> tuple[bytes, list[dict[str, Any]]]:
    result = frame(Record("7", NOW, data), now=NOW + timedelta(seconds=1))
    return result.lines, [json.loads(line) for line in result.errors.splitlines()]


@pytest.mark.parametrize("data", [b'{"a":1}\n', b'{"a":1}'])
def test_a_record_is_one_line_whether_or_not_it_brought_its_newline(data: bytes) -> None:
    assert lines_of(data) == (b'{"a":1}\n', [])


@pytest.mark.parametrize(
    ("data", "reason"), [(b"", "empty"), (b"\n", "empty"), (b"a\nb", "more than one"), (b"a\n\n", "more than one")]
)
def test_what_is_not_one_line_goes_to_the_error_output_whole(data: bytes, reason: str) -> None:
    lines, (error,) = lines_of(data)
    assert lines == b""
    assert base64.b64decode(error["rawData"]) == data
    assert reason in error["errorMessage"]
    assert error["arrivalTimestamp"] == int(NOW.timestamp() * 1000)
    assert error["attemptEndingTimestamp"] == error["arrivalTimestamp"] + 1000
    assert error["sequenceNumber"] == "7"


def test_aggregated_records_come_apart_into_their_lines() -> None:
    aggregator = RecordAggregator()
    for number in range(3):
        aggregator.add_user_record(str(number), f'{{"n":{number}}}'.encode())
    _, _, data = aggregator.clear_and_get().get_contents()
    assert lines_of(data)[0] == b'{"n":0}\n{"n":1}\n{"n":2}\n'


@given(st.lists(st.binary(max_size=40)))
def test_the_archive_holds_exactly_a_line_for_each_record_that_can_be_one(records: list[bytes]) -> None:
    output = b"".join(lines_of(data)[0] for data in records)
    failed = [error for data in records for error in lines_of(data)[1]]
    assert output.count(b"\n") + len(failed) == len(records)
    assert output == b"" or output.endswith(b"\n")

"""Options: each refusal names the option and how to mend it; the README's table is the code's."""

from pathlib import Path

import pytest

from streaming_job.kinesis.errors import OptionError
from streaming_job.kinesis.option_table import SPECS
from streaming_job.kinesis.option_values import InitialPosition
from streaming_job.kinesis.options import parse_options

README = Path(__file__).parents[2] / "streaming_job" / "kinesis" / "README.md"
GIVEN = {"streamName": "s"}


def test_only_the_stream_must_be_named_and_a_loss_stops_the_query_unless_told_otherwise() -> None:
    options = parse_options(GIVEN)
    assert options.streams == ("s",)
    assert options.fail_on_data_loss
    assert options.initial_position == InitialPosition("latest")


def test_names_are_known_in_any_case_as_spark_writes_them_small() -> None:
    given = {"streamname": "a, b", "maxrecordsperfetch": "77", "registeredconsumeridtype": "ARN", "consumermode": "efo"}
    with pytest.raises(OptionError, match="registeredConsumerId"):
        parse_options(given)
    options = parse_options({**given, "streamname": "a", "registeredconsumerid": "arn:x"})
    assert options.consumer_arn == "arn:x"
    assert options.fetch_records_max == 77


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("region", "mars-1", "us-east-1"),
        ("streamName", "", "no stream"),
        ("streamName", "no spaces allowed", "no stream name"),
        ("maxRecordsPerFetch", "0", "below 1"),
        ("maxRecordsPerFetch", "10001", "above 10000"),
        ("maxRecordsPerFetch", "many", "many"),
        ("minFetchPeriod", "100ms", "below 200"),
        ("minFetchPeriod", "soon", "no duration"),
        ("fetchBufferSize", "1 stone", "no size"),
        ("fetchBufferSize", "1kb", "below"),
        ("initialPosition", "yesterday", "trim_horizon"),
        ("initialPosition", '{"at": 1}', "at_timestamp"),
        ("consumerMode", "push", "polling"),
        ("consumerMode", "efo", "registeredConsumerId"),
        ("registeredConsumerIdType", "number", "ARN"),
        ("failOnDataLoss", "maybe", "true"),
        ("shardsPerTask", "0", "below 1"),
        ("maxFetchRate", "-1", "below 0"),
        ("streamARN", "arn:aws:kinesis:::stream/s", "streamName"),
        ("consumerNamePrefix", "x", "registeredConsumerId"),
        ("awsAccessKey", "AKID", "awsSecretKey"),
        ("awsSecretKey", "hidden", "awsAccessKey"),
        ("maxRecordPerFetch", "5", "is maxRecordsPerFetch meant"),
        ("xyz", "5", "streamName"),
    ],
)
def test_a_wrong_option_is_refused_by_name_with_the_mend(name: str, text: str, words: str) -> None:
    with pytest.raises(OptionError) as refused:
        parse_options({**GIVEN, name: text})
    assert words in str(refused.value)
    assert "option '" in str(refused.value)
    assert refused.value.hint


def test_two_ways_to_authenticate_are_refused() -> None:
    with pytest.raises(OptionError, match="serviceCredential"):
        parse_options({**GIVEN, "serviceCredential": "c", "roleArn": "arn:aws:iam::1:role/r"})


@pytest.mark.parametrize(
    ("text", "position"),
    [
        ("earliest", InitialPosition("trim_horizon")),
        ("TRIM_HORIZON", InitialPosition("trim_horizon")),
        ("2026-01-31T10:00:00Z", InitialPosition("at_timestamp", 1_769_853_600_000)),
        ("2026-01-31T10:00:00.250+01:00", InitialPosition("at_timestamp", 1_769_850_000_250)),
        ('{"at_timestamp": "2026-01-31T10:00:00Z"}', InitialPosition("at_timestamp", 1_769_853_600_000)),
        (
            '{"at_timestamp": "01/31/2026 10:00:00 UTC", "format": "MM/dd/yyyy HH:mm:ss ZZZ"}',
            InitialPosition("at_timestamp", 1_769_853_600_000),
        ),
    ],
)
def test_a_start_is_understood_in_databricks_words_and_as_an_iso_time(text: str, position: InitialPosition) -> None:
    assert parse_options({**GIVEN, "initialPosition": text}).initial_position == position


def test_every_option_of_databricks_that_has_no_effect_is_accepted_so_that_one_word_switches_the_source() -> None:
    ignored = [spec.name for spec in SPECS if spec.status == "accepted, no effect"]
    parse_options({**GIVEN, **dict.fromkeys(ignored, "7")})


def test_the_readme_has_each_option_with_its_default_status_and_meaning() -> None:
    table = "\n".join(f"| `{spec.name}` | {spec.default or '-'} | {spec.status} | {spec.meaning} |" for spec in SPECS)
    assert table in README.read_text(encoding="utf-8")

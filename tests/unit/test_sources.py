"""What each connector's source is told, from the same settings."""

from typing import Any

from config.limits import KINESIS_RETENTION_H_MAX
from config.settings import Settings
from streaming_job.kinesis.options import parse_options
from streaming_job.sources import source_frame


class Asked:
    """A session that only notes what it is asked for."""

    def __init__(self) -> None:
        self.format_name = ""
        self.given: dict[str, str] = {}
        self.registered: list[Any] = []
        self.readStream = self.dataSource = self

    def register(self, source: Any) -> None:
        self.registered.append(source.name())

    def format(self, name: str) -> "Asked":
        self.format_name = name
        return self

    def options(self, **given: str) -> "Asked":
        self.given = given
        return self

    def load(self, *_: str) -> "Asked":
        return self


def asked(connector: str, spool_folder: str | None = None, **source: Any) -> Asked:
    settings = Settings.model_validate(
        {
            "aws": {"region": "eu-central-1"},
            "source": {"connector": connector, "stream": "changes", **source},
            "bucket": {"name": "the-bucket"},
            "lake": {"root": "lake", "checkpoint": "checkpoint"},
            "tables": ["t"],
        }
    )
    session: Any = Asked()
    source_frame(session, settings, spool_folder=spool_folder)
    found: Asked = session
    return found


def test_both_kinesis_sources_are_told_the_same_and_options_by_name_come_last() -> None:
    ours = asked("lakestream", options={"maxBytesPerTrigger": "7"})
    theirs = asked("databricks", options={"minFetchPeriod": "200ms"})
    assert (ours.format_name, ours.registered, theirs.format_name) == (
        "lakestream_kinesis",
        ["lakestream_kinesis"],
        "kinesis",
    )
    assert {name: theirs.given[name] for name in theirs.given if name in ours.given} == {
        "streamName": "changes",
        "region": "eu-central-1",
        "initialPosition": "trim_horizon",
        "consumerMode": "polling",
        "failOnDataLoss": "true",
    }
    assert ours.given["maxBytesPerTrigger"] == "7"
    assert theirs.given["minFetchPeriod"] == "200ms"


def test_what_is_wanted_on_the_driver_is_read_there_however_old_unless_an_option_says_otherwise() -> None:
    year = parse_options(asked("lakestream", "a-folder").given)
    assert year.spool_folder == "a-folder"
    assert year.catch_up_behind_ms >= KINESIS_RETENTION_H_MAX * 3_600_000
    given = asked("lakestream", "a-folder", options={"catchUpThreshold": "2m"}).given
    assert parse_options(given).catch_up_behind_ms == 120_000
    assert "catchUpThreshold" not in asked("lakestream").given


def test_an_archive_is_read_by_our_own_source() -> None:
    found = asked("files")
    assert (found.format_name, found.registered, list(found.given)) == (
        "lakestream_files",
        ["lakestream_files"],
        ["settings"],
    )

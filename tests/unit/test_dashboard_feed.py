"""From /metrics text to the snapshot a page gets, without a network: the test says what each process answered."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from config.errors import ConfigurationError
from streaming_job.latency.dashboard.command import of_stack, of_urls
from streaming_job.latency.dashboard.feed import Feed
from streaming_job.latency.dashboard.readings import Increments, Reader, Waiting
from streaming_job.latency.dashboard.scrape import Answer, Samples, Source, parse
from streaming_job.latency.hops import CHAIN
from streaming_job.operations.verify import Report
from streaming_job.operations.verify_command import keep

NOW_S = 1_795_262_400.3


@dataclass
class SaidByTheTest:
    """A source whose last answer the test decides."""

    name: str
    answer: Answer = field(default_factory=Answer)

    @property
    def source(self) -> Source:
        return Source(self.name, f"http://127.0.0.1:1/{self.name}")

    def says(self, text: str, at_s: float) -> None:
        self.answer = Answer(parse(text), at_s)

    def is_gone(self) -> None:
        self.answer = Answer(self.answer.samples, self.answer.answered_at_s, "nobody listens there", refused=True)


def job_text(changes: int, committed_s: float, *, mean_ms: float = 100.0, rejects: int = 0) -> str:
    lines = [
        f'lakestream_changes_total{{table="cars"}} {changes}',
        f"lakestream_rejects_total {rejects}",
        f"lakestream_last_commit_timestamp_seconds {committed_s}",
        'lakestream_hop_ms{table="cars",hop="origin_to_commit",quantile="0.5"} 700',
        'lakestream_hop_ms{table="cars",hop="origin_to_commit",quantile="0.95"} 900',
        'lakestream_hop_ms{table="cars",hop="origin_to_commit",quantile="0.99"} 950',
        'lakestream_step_seconds_bucket{step="history",le="0.005"} 1',
        f'lakestream_step_seconds_sum{{step="history"}} {changes / 100}',
        f'lakestream_step_seconds_count{{step="history"}} {changes / 10}',
    ]
    for hop in CHAIN:
        lines.append(f'lakestream_hop_duration_ms_count{{table="cars",hop="{hop}"}} {changes}')
        lines.append(f'lakestream_hop_duration_ms_sum{{table="cars",hop="{hop}"}} {changes * mean_ms}')
    return "\n".join(lines)


def mapping_text(done: int) -> str:
    return (
        f'lakestream_mapping_records_done_total{{shard="s"}} {done}\nlakestream_mapping_backlog_records{{shard="s"}} 0'
    )


def test_a_batch_committed_shows_as_throughput_and_as_the_mean_of_each_hop() -> None:
    job, mapping = SaidByTheTest("job"), SaidByTheTest("mapping")
    feed = Feed([job, mapping], target_ms=2_000)
    for second, changes in enumerate((0, 50, 100)):
        job.says(job_text(changes, NOW_S + second - 0.5), NOW_S + second - 0.3)
        mapping.says(mapping_text(changes), NOW_S + second - 0.3)
        body = feed.tick(NOW_S + second).body
    newest = {name: values[-1] for name, values in body["points"][0]["columns"].items()}
    assert newest["out_per_s"] == newest["in_per_s"] == 50
    assert [newest[f"{hop}_ms"] for hop in CHAIN] == [100] * len(CHAIN)
    assert (newest["p50_ms"], newest["p95_ms"], newest["p99_ms"]) == (700, 900, 950)
    assert body["verdict"]["state"] == "fresh"
    assert body["steps"] == [{"step": "history", "mean_ms": 100.0, "total_times": 10.0}]


def test_the_page_counts_the_hours_that_are_left_of_the_retention_on_while_the_job_is_stopped() -> None:
    job, mapping = SaidByTheTest("job"), SaidByTheTest("mapping")
    feed = Feed([job, mapping], target_ms=2_000)
    kept = 'lakestream_source_retention_seconds{shard="s"} 86400'
    read = f'lakestream_source_read_until_timestamp_seconds{{shard="s"}} {NOW_S}'
    job.says("\n".join((job_text(1, NOW_S), kept, read)), NOW_S)
    mapping.says(mapping_text(1), NOW_S)
    assert feed.tick(NOW_S).body["verdict"]["state"] == "fresh"
    job.is_gone()
    assert feed.tick(NOW_S + 0.74 * 86_400).body["verdict"]["state"] == "stopped"
    later = feed.tick(NOW_S + 0.76 * 86_400).body["verdict"]
    assert (later["state"], later["number_ms"]) == ("endangered", pytest.approx(0.24 * 86_400_000))


def test_the_age_of_what_the_mapping_has_in_hand_is_held_against_the_tables_stream() -> None:
    job, mapping = SaidByTheTest("job"), SaidByTheTest("mapping")
    feed = Feed([job, mapping], target_ms=2_000)
    job.says(job_text(1, NOW_S), NOW_S)
    age = f'lakestream_mapping_iterator_age_seconds{{shard="s"}} {19 * 3_600}'
    for backlog, state in ((0, "fresh"), (7, "endangered")):
        waiting = f'lakestream_mapping_backlog_records{{shard="s"}} {backlog}'
        mapping.says(f"{age}\n{waiting}", NOW_S)
        assert feed.tick(NOW_S).body["verdict"]["state"] == state


def test_while_the_job_is_gone_the_wait_grows_and_its_lines_end_and_totals_stay() -> None:
    job, mapping = SaidByTheTest("job"), SaidByTheTest("mapping")
    feed = Feed([job, mapping], target_ms=2_000)
    done = 0
    for second in range(30):
        done += 10
        mapping.says(mapping_text(done), NOW_S + second - 0.3)
        if second < 10:
            job.says(job_text(done, NOW_S + second - 0.4), NOW_S + second - 0.3)
        else:
            job.is_gone()
        body = feed.tick(NOW_S + second).body
    assert body["verdict"]["state"] == "stopped"
    assert body["verdict"]["number_ms"] == pytest.approx(20_400, abs=500)
    columns = feed.series(300, NOW_S + 29)["columns"]
    assert columns["p95_ms"][-1] is None
    assert columns["waiting_ms"][-1] == pytest.approx(20_000, abs=1_500)
    assert body["figures"]["changes"] == 100
    assert body["sources"][0] == {
        "name": "job",
        "state": "silent",
        "failure": "nobody listens there",
        "answered_at_s": NOW_S + 8.7,
    }


def test_a_process_begun_anew_never_shows_as_negative_throughput() -> None:
    counter = Increments()
    assert [counter.since_last("in", value) for value in (100, 130, 5, 9, None, 12)] == [None, 30, 5, 4, None, 3]


def test_changes_that_go_by_in_a_commits_own_second_do_not_count_as_waiting() -> None:
    waiting = Waiting()
    for second in range(10):
        waiting.saw(came_in_after_s=second, committed_s=second + 0.6)
        assert waiting.ms(second + 1) == 0


def test_after_a_pause_the_wait_ends_with_the_first_commit() -> None:
    waiting = Waiting()
    waiting.saw(came_in_after_s=1, committed_s=1.5)
    for second in range(2, 20):
        waiting.saw(came_in_after_s=second, committed_s=1.5)
    assert waiting.ms(20) == 18_000
    waiting.saw(came_in_after_s=None, committed_s=20.5)
    assert waiting.ms(21) == 0


def test_a_job_that_answers_and_does_nothing_is_stalled_until_it_commits_again() -> None:
    """Its figures are those of a quiet stream; what /healthz knows is in two of them."""
    job = SaidByTheTest("job")
    feed = Feed([job], target_ms=2_000)
    quiet = f"lakestream_last_commit_timestamp_seconds {NOW_S - 300}"
    for stalled_s, state in ((0, "idle"), (150, "stalled"), (0, "idle")):
        ready = int(not stalled_s)
        job.says(f"{quiet}\nlakestream_ready {ready}\nlakestream_stalled_seconds {stalled_s}", NOW_S)
        said = feed.tick(NOW_S).body["verdict"]
        assert said["state"] == state
    job.says(f"{quiet}\nlakestream_ready 0\nlakestream_stalled_seconds 0", NOW_S)
    assert feed.tick(NOW_S).body["verdict"]["state"] == "idle", "it is being stopped: the batch in hand goes on"


def test_a_silent_mapping_leaves_nothing_called_fresh() -> None:
    job, mapping = SaidByTheTest("job"), SaidByTheTest("mapping")
    feed = Feed([job, mapping], target_ms=2_000)
    mapping.says(mapping_text(10), NOW_S - 1)
    job.says(job_text(10, NOW_S), NOW_S)
    feed.tick(NOW_S)
    mapping.is_gone()
    job.says(job_text(10, NOW_S + 9), NOW_S + 10)
    assert feed.tick(NOW_S + 10).body["verdict"]["state"] == "blind"


def test_a_silent_delivery_is_a_problem_and_no_doubt_about_freshness() -> None:
    job, delivery = SaidByTheTest("job"), SaidByTheTest("delivery")
    feed = Feed([job, delivery], target_ms=2_000)
    delivery.says("lakestream_delivery_records_total 5", NOW_S - 1)
    job.says(job_text(10, NOW_S), NOW_S)
    feed.tick(NOW_S)
    delivery.is_gone()
    job.says(job_text(10, NOW_S + 9), NOW_S + 10)
    body = feed.tick(NOW_S + 10).body
    assert body["verdict"]["state"] == "fresh"
    assert [problem["what"] for problem in body["problems"]] == ["delivery does not answer"]


def test_rejects_are_a_problem_for_ten_minutes_and_a_total_for_good() -> None:
    job = SaidByTheTest("job")
    feed = Feed([job], target_ms=2_000)

    def said(second: int, rejects: int) -> dict[str, Any]:
        job.says(job_text(second, NOW_S + second, rejects=rejects), NOW_S + second)
        return feed.tick(NOW_S + second).body

    said(0, 0)
    assert [problem["what"] for problem in said(1, 3)["problems"]] == ["3 rejects in 10 minutes"]
    later = said(700, 3)
    assert later["problems"] == []
    assert later["figures"]["rejects"] == 3


NO_DIFFERENCE = dict.fromkeys(("excluded", "missing", "extra", "stale", "different", "unproven"), 0)


def report_of(table: str, **counts: int) -> Report:
    return Report(table=table, source_items=9, lake_rows=9, examples={}, seconds=1.0, **{**NO_DIFFERENCE, **counts})


def test_a_difference_shows_until_that_table_is_verified_again_whatever_others_are(tmp_path: Path) -> None:
    file, both = tmp_path / "verify.json", ("cars", "depots")
    feed = Feed([SaidByTheTest("job")], target_ms=2_000, verify_file=file)
    keep([report_of("cars", stale=1), report_of("depots")], file, both)
    found_s = feed.tick(NOW_S).body["verify"]["at_s"]
    keep([report_of("depots")], file, both)
    body = feed.tick(NOW_S + 1).body
    assert (body["verify"]["verdict"], body["verify"]["at_s"]) == ("different", found_s)
    assert body["problems"][0]["what"] == "verify found differences between source and lake: cars"
    keep([report_of("cars")], file, both)
    verify = feed.tick(NOW_S + 2).body["verify"]
    assert (verify["verdict"], verify["lake_rows"]) == ("equal", 18)
    assert verify["at_s"] > found_s


def test_a_table_that_left_the_configuration_leaves_the_last_verify_and_a_broken_record_is_replaced(
    tmp_path: Path,
) -> None:
    file = tmp_path / "verify.json"
    feed = Feed([SaidByTheTest("job")], target_ms=2_000, verify_file=file)
    keep([report_of("cars", stale=1)], file, ["cars", "depots"])
    keep([report_of("depots")], file, ["depots"])
    assert feed.tick(NOW_S).body["verify"]["verdict"] == "equal"
    for broken in ("{", "[]", '{"tables": {"cars": 1}}', '{"tables": []}'):
        file.write_text(broken, encoding="utf-8")
        keep([report_of("depots")], file, ["cars", "depots"])
        assert feed.tick(NOW_S).body["verify"]["lake_rows"] == 9


def test_the_last_verify_shows_and_a_broken_record_is_no_verification(tmp_path: Path) -> None:
    file = tmp_path / "verify.json"
    feed = Feed([SaidByTheTest("job")], target_ms=2_000, verify_file=file)
    assert feed.tick(NOW_S).body["verify"] is None
    keep([report_of("cars", stale=1)], file, ["cars"])
    body = feed.tick(NOW_S + 1).body
    assert body["verify"]["verdict"] == "different"
    assert body["problems"][0]["what"] == "verify found differences between source and lake: cars"
    file.write_text("{", encoding="utf-8")
    assert feed.tick(NOW_S + 2).body["verify"] is None


def test_the_reader_holds_no_more_after_a_day_than_after_a_minute() -> None:
    reader = Reader()
    for second in range(0, 86_400, 120):
        job = parse(job_text(second, NOW_S + second))
        reader.row(job, job=job, said_at_s=NOW_S + second, now_s=NOW_S + second)
        reader.steps(job)
    assert len(reader._steps) == 61
    assert len(reader._hops) == len(CHAIN)
    assert len(reader.increments._last) <= 4


def test_figures_of_several_processes_merge_and_buckets_are_left_out() -> None:
    merged = Samples.merged([parse(job_text(7, 1.0)), parse(mapping_text(9))])
    assert merged.total("lakestream_changes_total") == 7
    assert merged.total("lakestream_mapping_records_done_total") == 9
    assert not any(name.endswith("_bucket") for name in merged.by_name)


def test_the_first_url_is_the_jobs_and_names_may_be_given() -> None:
    subject = of_urls(["http://127.0.0.1:1/metrics", "mapping=http://127.0.0.1:2/metrics", "http://h:3/m?a=b"])
    assert [source.name for source in subject.sources] == ["job", "mapping", "h:3"]


@pytest.mark.parametrize("url", ["ftp://h/metrics", "metrics", "http://"])
def test_an_address_that_is_none_is_refused_with_an_example(url: str) -> None:
    with pytest.raises(ConfigurationError, match=r"not an http address \(http://127"):
        of_urls([url])


def test_a_stacks_processes_come_from_its_description_the_job_first(tmp_path: Path) -> None:
    file = tmp_path / "stack.json"
    urls = {"mapping": "http://127.0.0.1:2/metrics", "job": "http://127.0.0.1:1/metrics"}
    file.write_text(json.dumps({"metrics": urls, "tables": {"cars": {}}}), encoding="utf-8")
    subject = of_stack(file)
    assert [source.name for source in subject.sources] == ["job", "mapping"]
    assert subject.title == "cars"


def test_without_a_stack_the_error_says_how_to_start_one(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="lakestream local up"):
        of_stack(tmp_path / "stack.json")
    (tmp_path / "stack.json").write_text("[]", encoding="utf-8")
    with pytest.raises(ConfigurationError, match="is not a stack's description"):
        of_stack(tmp_path / "stack.json")

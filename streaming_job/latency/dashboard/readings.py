"""From what the processes say of themselves to the page's figures: increments of counters, sums over labels."""

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from config.limits import DYNAMODB_STREAM_RETENTION_H
from streaming_job.latency.dashboard.scrape import Samples
from streaming_job.latency.dashboard.verdict import KINESIS, TABLE_STREAM, Keeping
from streaming_job.latency.hops import CHAIN, WHOLE
from streaming_job.latency.sketches import QUANTILES

STEPS_WITHIN_S: Final = 60
_ROWS_MAX: Final = 200
"""Of a table on the page; a stream with more shards shows the ones furthest behind."""

# Where a change is counted as it goes by; the first that is published counts.
_INTO_STREAM: Final = ("lakestream_bridge_records_sent_total", "lakestream_mapping_records_done_total")
_MAPPING: Final = "lakestream_mapping_"
_DEAD_LETTERS: Final = ("lakestream_bridge_records_dead_lettered_total", "lakestream_mapping_discarded_records_total")


class Increments:
    """How much each counter grew since it was last seen; a process begun anew counts from 0 again."""

    def __init__(self) -> None:
        self._last: dict[str, float] = {}

    def since_last(self, name: str, value: float | None) -> float | None:
        """None while there is nothing to compare with."""
        if value is None:
            return None
        before = self._last.get(name)
        self._last[name] = value
        if before is None:
            return None
        return value - before if value >= before else value


@dataclass(slots=True)
class _HopSum:
    """Sums may fall where clocks disagree, so only the count tells that the job began anew."""

    count: float = 0.0
    sum_ms: float = 0.0


@dataclass(slots=True)
class Waiting:
    """Since when a change is known to wait: the first that went into the stream after the last commit."""

    since_s: float | None = None
    _last_in_s: float | None = None

    def saw(self, *, came_in_after_s: float | None, committed_s: float | None) -> None:
        """`came_in_after_s`: changes went in between then and now. Those of a commit's own second count as its own."""
        if came_in_after_s is not None:
            self._last_in_s = came_in_after_s
            if self.since_s is None:
                self.since_s = came_in_after_s
        if committed_s is not None and self.since_s is not None and committed_s >= self.since_s:
            last_in_s = self._last_in_s
            self.since_s = last_in_s if last_in_s is not None and last_in_s > committed_s else None

    def ms(self, now_s: float) -> float:
        return 0.0 if self.since_s is None else max(0.0, (now_s - self.since_s) * 1000)


@dataclass
class Reader:
    """Turns one look at all processes into one row of the series and the figures beside the charts."""

    increments: Increments = field(default_factory=Increments)
    waiting: Waiting = field(default_factory=Waiting)
    _hops: dict[str, _HopSum] = field(default_factory=dict)
    _steps: deque[Mapping[str, tuple[float, float]]] = field(default_factory=lambda: deque(maxlen=STEPS_WITHIN_S + 1))
    _last_said_s: float | None = None
    _saw_job: bool = False
    _shown_steps: list[dict[str, Any]] = field(default_factory=list)

    def row(self, samples: Samples, *, job: Samples, said_at_s: float, now_s: float) -> dict[str, float | None]:
        """`samples` of whoever answers, `job` the job's alone: empty while it is silent, so its lines end there.

        `said_at_s`: the oldest of their answers. What came in since the look before came in after its answers.
        """
        came_in = self.increments.since_last("in", into_stream(samples))
        came_out = self.increments.since_last("out", counted(job, "lakestream_changes_total"))
        span_s = None if self._last_said_s is None else said_at_s - self._last_said_s
        self.waiting.saw(
            came_in_after_s=self._last_said_s if came_in else None,
            committed_s=job.most("lakestream_last_commit_timestamp_seconds"),
        )
        self._last_said_s = said_at_s
        return {
            **{f"p{quantile * 100:.0f}_ms": whole(job, quantile) for quantile in QUANTILES},
            "waiting_ms": self.waiting.ms(now_s),
            "behind_ms": job.most("lakestream_source_behind_ms"),
            "backlog": samples.total("lakestream_mapping_backlog_records"),
            "in_count": came_in,
            "in_s": span_s if came_in is not None else None,
            "out_count": came_out,
            "out_s": span_s if came_out is not None else None,
            "rejects": self.increments.since_last("rejects", job.total("lakestream_rejects_total")),
            "dead_letters": self.increments.since_last("dead_letters", dead_letters(samples)),
            **self._hop_increments(job),
        }

    def _hop_increments(self, job: Samples) -> dict[str, float | None]:
        counts = job.by_label("lakestream_hop_duration_ms_count", "hop")
        sums = job.by_label("lakestream_hop_duration_ms_sum", "hop")
        row: dict[str, float | None] = {}
        first_look, self._saw_job = not self._saw_job, self._saw_job or bool(job.by_name)
        for hop, count in counts.items():
            before, now = self._hops.get(hop, _HopSum()), _HopSum(count, sums.get(hop, 0.0))
            self._hops[hop] = now
            if first_look:
                continue
            start = before if count >= before.count else _HopSum()
            row[f"{hop}_count"] = count - start.count
            row[f"{hop}_sum_ms"] = now.sum_ms - start.sum_ms
        return row

    def steps(self, job: Samples) -> list[dict[str, Any]]:
        """Each step's mean over the last minute, none for one that did not run; a silent job's stay as they were."""
        if not job.by_name:
            return self._shown_steps
        sums = job.by_label("lakestream_step_seconds_sum", "step")
        counts = job.by_label("lakestream_step_seconds_count", "step")
        now = {step: (sums.get(step, 0.0), count) for step, count in counts.items()}
        if self._steps and any(count < self._steps[-1].get(step, _NONE)[1] for step, (_, count) in now.items()):
            self._steps.clear()  # the job began anew, and its counters with it
            self._steps.append({})
        self._steps.append(now)
        self._shown_steps = [_step(step, self._steps[0].get(step, _NONE), latest) for step, latest in now.items()]
        return self._shown_steps


_NONE: Final = (0.0, 0.0)


def _step(step: str, before: tuple[float, float], now: tuple[float, float]) -> dict[str, Any]:
    times = now[1] - before[1]
    return {"step": step, "mean_ms": (now[0] - before[0]) * 1000 / times if times else None, "total_times": now[1]}


def whole(job: Samples, quantile: float) -> float | None:
    """Origin to queryable, of the table where it is worst."""
    return job.most("lakestream_hop_ms", hop=WHOLE, quantile=str(quantile))


def counted(said: Samples, name: str) -> float | None:
    """A counter with labels is not published before it first counts: of a process that answers, that is a 0."""
    total = said.total(name)
    return 0.0 if total is None and said.by_name else total


def into_stream(samples: Samples) -> float | None:
    found = next((total for name in _INTO_STREAM if (total := samples.total(name)) is not None), None)
    return 0.0 if found is None and any(name.startswith(_MAPPING) for name in samples.by_name) else found


def dead_letters(samples: Samples) -> float | None:
    found = [total for name in _DEAD_LETTERS if (total := samples.total(name)) is not None]
    return sum(found) if found else None


def figures(samples: Samples, job: Samples) -> dict[str, Any]:
    """Totals exactly as published, since each process started."""
    return {
        "changes": counted(job, "lakestream_changes_total"),
        "duplicates": counted(job, "lakestream_duplicates_total"),
        "rejects": counted(job, "lakestream_rejects_total"),
        "rescued": counted(job, "lakestream_rescued_total"),
        "columns_added": counted(job, "lakestream_columns_added_total"),
        "parked": counted(job, "lakestream_parked"),
        "refused": counted(job, "lakestream_refused"),
        "unproven": counted(job, "lakestream_unproven"),
        "batches": job.total("lakestream_batches_total"),
        "batch_rows": job.total("lakestream_batch_rows"),
        "last_commit_s": job.most("lakestream_last_commit_timestamp_seconds") or None,
        "latency_flush_failures": job.total("lakestream_latency_flush_failures_total"),
        "into_stream": into_stream(samples),
        "dead_letters": dead_letters(samples),
        "archived": samples.total("lakestream_delivery_records_total"),
        "losses": job.total("lakestream_source_losses_total"),
        "trimmed": samples.total("lakestream_mapping_positions_trimmed_total"),
        "near_expiry": samples.total("lakestream_bridge_records_near_expiry_total"),
        "archive_failures": samples.total("lakestream_delivery_put_failures_total"),
        "skewed": sum(s.value for s in job.of("lakestream_hop_negative") if s.labels.get("hop") in (*CHAIN, WHOLE)),
        "tables": _tables(job),
        "shards": _shards(job, samples),
        "hops": _hops(job),
    }


def keeping(samples: Samples, job: Samples, now_s: float) -> Keeping | None:
    """The worst of both streams. What the job read last is what it has read, also when it is gone since."""
    kept_s = job.by_label("lakestream_source_retention_seconds", "shard")
    read_s = job.by_label("lakestream_source_read_until_timestamp_seconds", "shard")
    found = [_kept(KINESIS, now_s - read_s[shard], kept_s[shard]) for shard in read_s if kept_s.get(shard)]
    age_s = samples.by_label("lakestream_mapping_iterator_age_seconds", "shard")
    waiting = samples.by_label("lakestream_mapping_backlog_records", "shard")
    table_s = DYNAMODB_STREAM_RETENTION_H * 3_600
    found += [_kept(TABLE_STREAM, age_s.get(shard, 0.0), table_s) for shard, count in waiting.items() if count]
    return max(found, key=lambda each: each.used, default=None)


def _kept(stream: str, age_s: float, kept_s: float) -> Keeping:
    return Keeping(stream, max(0.0, age_s) / kept_s, (kept_s - age_s) * 1000)


def _tables(job: Samples) -> list[dict[str, Any]]:
    changes = job.by_label("lakestream_changes_total", "table")
    parts = {
        "duplicates": job.by_label("lakestream_duplicates_total", "table"),
        "rescued": job.by_label("lakestream_rescued_total", "table"),
        "columns_added": job.by_label("lakestream_columns_added_total", "table"),
        "parked": job.by_label("lakestream_parked", "table"),
    }
    return [
        {
            "table": table,
            "changes": changes[table],
            **{name: values.get(table, 0.0) for name, values in parts.items()},
            **{
                f"p{quantile * 100:.0f}_ms": job.most(
                    "lakestream_hop_ms", table=table, hop=WHOLE, quantile=str(quantile)
                )
                for quantile in QUANTILES
            },
        }
        for table in sorted(changes)[:_ROWS_MAX]
    ]


def _shards(job: Samples, samples: Samples) -> list[dict[str, Any]]:
    """The stream's shards by the job's reading, the table's by the mapping's: who is furthest behind comes first."""
    kinesis: list[dict[str, Any]] = [
        {"shard": shard, "of": "stream", "behind_ms": behind_ms, "backlog": None}
        for shard, behind_ms in job.by_label("lakestream_source_behind_ms", "shard").items()
    ]
    age_s = samples.by_label("lakestream_mapping_iterator_age_seconds", "shard")
    table: list[dict[str, Any]] = [
        {
            "shard": shard,
            "of": "table",
            # The mapping keeps the age of its last batch; with nothing in hand it says nothing about now.
            "behind_ms": age_s.get(shard, 0.0) * 1000 if backlog else 0.0,
            "backlog": backlog,
        }
        for shard, backlog in samples.by_label("lakestream_mapping_backlog_records", "shard").items()
    ]
    return sorted(kinesis + table, key=lambda row: (-row["behind_ms"], row["shard"]))[:_ROWS_MAX]


def _hops(job: Samples) -> list[dict[str, Any]]:
    """Every hop's quantiles over the last minute, of the table where it is worst."""
    counts = job.by_label("lakestream_hop_changes", "hop")
    negative = job.by_label("lakestream_hop_negative", "hop")
    return [
        {
            "hop": hop,
            "changes": count,
            "negative": negative.get(hop, 0.0),
            **{
                f"p{quantile * 100:.0f}_ms": job.most("lakestream_hop_ms", hop=hop, quantile=str(quantile))
                for quantile in QUANTILES
            },
        }
        for hop, count in counts.items()
    ]

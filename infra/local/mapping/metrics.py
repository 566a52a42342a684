"""What the mapping counts; names follow Lambda's own metrics where it has them."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram


class Metrics:
    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.records = Counter(
            "lakestream_mapping_records", "Changes read from the stream", ["shard"], registry=self.registry
        )
        self.records_done = Counter(
            "lakestream_mapping_records_done", "Changes the function is done with", ["shard"], registry=self.registry
        )
        self.polls = Counter("lakestream_mapping_polls", "GetRecords calls", ["shard"], registry=self.registry)
        self.invocations = Counter(
            "lakestream_mapping_invocations",
            "Invocations by what came of them: success, partial, error, not_invoked",
            ["outcome"],
            registry=self.registry,
        )
        self.discarded = Counter(
            "lakestream_mapping_discarded_records",
            "Changes given up, by condition",
            ["condition"],
            registry=self.registry,
        )
        self.destination_failures = Counter(
            "lakestream_mapping_destination_failures", "Failed writes to the destination", registry=self.registry
        )
        self.read_failures = Counter(
            "lakestream_mapping_read_failures", "Failed calls to the stream", registry=self.registry
        )
        self.restarts = Counter(
            "lakestream_mapping_positions_trimmed",
            "Shards read again from the trim horizon since their position had left the stream",
            registry=self.registry,
        )
        self.iterator_age_s = Gauge(
            "lakestream_mapping_iterator_age_seconds",
            "Age of the last change of the batch handed to the function",
            ["shard"],
            registry=self.registry,
        )
        self.backlog = Gauge(
            "lakestream_mapping_backlog_records", "Changes read and not yet done", ["shard"], registry=self.registry
        )
        self.duration_s = Histogram(
            "lakestream_mapping_invocation_seconds",
            "How long the function ran",
            buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60),
            registry=self.registry,
        )
        self.batch_records = Histogram(
            "lakestream_mapping_batch_records",
            "Changes in each event",
            buckets=(1, 2, 5, 10, 25, 50, 100, 250, 500, 1000, 10_000),
            registry=self.registry,
        )

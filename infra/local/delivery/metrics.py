"""What the delivery counts."""

from prometheus_client import CollectorRegistry, Counter, Gauge


class Metrics:
    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.records = Counter("lakestream_delivery_records", "Records delivered", registry=self.registry)
        self.errors = Counter(
            "lakestream_delivery_error_bytes", "Bytes delivered to the error output", registry=self.registry
        )
        self.objects = Counter("lakestream_delivery_objects", "Objects written", registry=self.registry)
        self.object_bytes = Counter(
            "lakestream_delivery_object_bytes", "Bytes written, compressed", registry=self.registry
        )
        self.put_failures = Counter("lakestream_delivery_put_failures", "Failed writes to S3", registry=self.registry)
        self.read_failures = Counter(
            "lakestream_delivery_read_failures", "Failed calls to Kinesis", registry=self.registry
        )
        self.buffered_bytes = Gauge(
            "lakestream_delivery_buffered_bytes", "Read and not yet delivered", registry=self.registry
        )
        self.freshness_s = Gauge(
            "lakestream_delivery_data_freshness_seconds",
            "Age of the oldest record that is read and not yet delivered",
            registry=self.registry,
        )
        self.behind_ms = Gauge(
            "lakestream_delivery_millis_behind_latest",
            "Distance from the stream's tip",
            ["shard"],
            registry=self.registry,
        )

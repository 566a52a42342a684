"""`python -m infra.local.delivery --settings FILE.json`: Kinesis to gzip NDJSON in S3, until SIGTERM."""

import sys
import threading
from pathlib import Path

from infra.local import worker
from infra.local.delivery.metrics import Metrics
from infra.local.delivery.objects import Bucket
from infra.local.delivery.positions import Positions
from infra.local.delivery.run import Delivery, open_positions
from infra.local.delivery.settings import DeliverySettings
from infra.local.delivery.source import KinesisStream
from infra.local.positions import StateFolder


def run(path: Path, log: worker.Log, stop: threading.Event) -> None:
    settings = worker.load(path, DeliverySettings)
    metrics = Metrics()
    with StateFolder(settings.state_dir):
        positions = Positions(settings.state_dir, settings.stream)
        port = worker.serve_metrics(metrics.registry, settings.metrics_port)
        log.info("started", delivery=settings.name, stream=settings.stream, metrics_port=port)
        source = KinesisStream(
            worker.client("kinesis", endpoint=settings.endpoint, region=settings.region), settings.stream
        )
        s3 = worker.client("s3", endpoint=settings.endpoint, region=settings.region)
        bucket = Bucket(s3, settings.bucket, metrics=metrics, log=log, stop=stop)
        bucket.check()
        open_positions(positions, source, settings, log, stop)
        if not stop.is_set():
            Delivery(
                settings, source=source, bucket=bucket, positions=positions, metrics=metrics, log=log, stop=stop
            ).run()


if __name__ == "__main__":
    sys.exit(worker.main("delivery", run))

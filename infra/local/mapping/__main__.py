"""`python -m infra.local.mapping --settings FILE.json`: a table's stream to the function, until SIGTERM."""

import sys
import threading
from pathlib import Path

from infra.local import worker
from infra.local.expiries.ledger import LedgerReader
from infra.local.mapping.bridge_metrics import BridgeMetrics
from infra.local.mapping.destination import destination
from infra.local.mapping.functions import Functions, variables
from infra.local.mapping.lane import Policy
from infra.local.mapping.metrics import Metrics
from infra.local.mapping.outcome import Failed
from infra.local.mapping.positions import Positions
from infra.local.mapping.settings import MappingSettings
from infra.local.mapping.shard import Parts
from infra.local.mapping.shards import Mapping
from infra.local.mapping.stream import DynamoDbStream, Stream
from infra.local.positions import StateFolder


def run(path: Path, log: worker.Log, stop: threading.Event) -> None:
    settings = worker.load(path, MappingSettings)
    metrics = Metrics()
    bridge = BridgeMetrics(metrics.registry)

    def output(line: str) -> None:
        bridge.saw(line)
        log.passed_on(line)

    with StateFolder(settings.state_dir):
        functions = Functions(
            settings.function,
            env=variables(settings.function, endpoint=settings.endpoint, region=settings.region),
            function_arn=settings.function_arn,
            output=output,
        )
        port = worker.serve_metrics(metrics.registry, settings.metrics_port)
        log.info("started", mapping=settings.mapping_id, table=settings.table, metrics_port=port)
        warmed = functions.warm()
        if isinstance(warmed, Failed):
            log.problem("function_does_not_start", error=warmed.error, message=warmed.message)
        try:
            parts = Parts(
                stream=_stream(settings),
                positions=Positions(settings.state_dir, settings.stream_arn),
                invoke=functions.invoke,
                destination=destination(settings),
                policy=_policy(settings),
                parallelization=settings.parallelization,
                metrics=metrics,
                log=log,
                stop=stop,
            )
            Mapping(parts, settings.starting_position).run()
        finally:
            functions.end()


def _stream(settings: MappingSettings) -> Stream:
    client = worker.client("dynamodbstreams", endpoint=settings.endpoint, region=settings.region, connections_max=50)
    if settings.expiries is None:
        return DynamoDbStream(client, settings.stream_arn)
    ledger = LedgerReader(settings.expiries.ledger, settings.expiries.attribute)
    return DynamoDbStream(client, settings.stream_arn, identified=ledger.identified)


def _policy(settings: MappingSettings) -> Policy:
    return Policy(
        batch_records_max=settings.batch_size,
        window_s=settings.window_s,
        bisect=settings.bisect,
        retries_max=settings.retries_max,
        age_max_s=settings.age_max_s,
        report_failures=settings.report_failures,
        backoff_first_s=settings.backoff_first_s,
        backoff_longest_s=settings.backoff_longest_s,
    )


if __name__ == "__main__":
    sys.exit(worker.main("mapping", run))

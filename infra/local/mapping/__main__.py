"""`python -m infra.local.mapping --settings FILE.json`: a table's stream to the function, until SIGTERM."""

import sys
import threading
from pathlib import Path

from infra.local import worker
from infra.local.lineage import Shard, readable
from infra.local.mapping.destination import destination
from infra.local.mapping.functions import Functions, variables
from infra.local.mapping.lane import Policy
from infra.local.mapping.metrics import Metrics
from infra.local.mapping.outcome import Failed
from infra.local.mapping.positions import Positions
from infra.local.mapping.settings import MappingSettings
from infra.local.mapping.shard import Parts, ShardReader
from infra.local.mapping.stream import DynamoDbStream, Stream
from infra.local.positions import StateFolder

_DISCOVER_EVERY_S = 5.0


class Mapping:
    """Reads every shard of the stream, a shard's children after the shard."""

    def __init__(self, parts: Parts, starting_position: str) -> None:
        self._parts = parts
        self._starting_position = starting_position
        self._readers: dict[str, ShardReader] = {}
        self._woken = threading.Event()

    def run(self) -> None:
        threading.Thread(target=self._wake_at_stop, daemon=True).start()
        try:
            while not self._parts.stop.is_set():
                self._woken.clear()
                self._collect()
                self._discover()
                self._woken.wait(_DISCOVER_EVERY_S)
        finally:
            self._parts.stop.set()
            for reader in self._readers.values():
                reader.stopped()
        self._collect()

    def _wake_at_stop(self) -> None:
        self._parts.stop.wait()
        self._woken.set()

    def _collect(self) -> None:
        """Shards read to their end make way for their children."""
        for shard, reader in tuple(self._readers.items()):
            if reader.failure is not None:
                raise reader.failure
            if reader.is_finished:
                self._parts.positions.finish(shard)
                del self._readers[shard]
                self._woken.set()

    def _discover(self) -> None:
        try:
            shards = self._parts.stream.shards()
        except worker.ServiceError as error:
            self._parts.metrics.read_failures.inc()
            self._parts.log.warning("discovery_failed", error=worker.one_line(error))
            return
        positions = self._parts.positions
        if positions.is_empty:
            self._first_sight(shards)
        positions.keep([shard.id for shard in shards] + list(self._readers))
        for shard in readable(shards, positions.finished):
            if shard.id not in self._readers:
                self._parts.log.info("shard_begun", shard=shard.id, after=positions.after(shard.id))
                reader = ShardReader(shard.id, self._parts, self._woken.set)
                self._readers[shard.id] = reader
                reader.begin()

    def _first_sight(self, shards: list[Shard]) -> None:
        """LATEST concerns the shards there are when the mapping is made; their children are read whole."""
        for shard in shards:
            if self._starting_position == "LATEST" and shard.closed:
                self._parts.positions.finish(shard.id)
            elif self._starting_position == "LATEST":
                self._parts.positions.begin(shard.id, "LATEST")


def run(path: Path, log: worker.Log, stop: threading.Event) -> None:
    settings = worker.load(path, MappingSettings)
    metrics = Metrics()
    with StateFolder(settings.state_dir):
        functions = Functions(
            settings.function,
            env=variables(settings.function, endpoint=settings.endpoint, region=settings.region),
            function_arn=settings.function_arn,
            output=log.passed_on,
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
    return DynamoDbStream(client, settings.stream_arn)


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

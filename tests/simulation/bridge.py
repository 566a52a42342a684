"""The bridge at work: the real handler's `process` on the real publisher and store, whose clients are ours."""

import json
import logging
import re
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass, field, replace
from io import TextIOBase
from typing import Any, TypeAlias

from bridge_lambda import handler
from bridge_lambda.dead_letters import ObjectStore, S3Store
from bridge_lambda.errors import BridgeError
from bridge_lambda.handler import Bridge
from bridge_lambda.publisher import KinesisPublisher, RecordPublisher
from bridge_lambda.rules import TableRules
from infra.local.mapping.outcome import Failed, NotInvoked, Outcome, Returned
from tests.simulation.clock import MachineClock
from tests.simulation.errors import KilledError
from tests.simulation.kinesis import STREAM, BotoKinesis, SimKinesis
from tests.simulation.observations import Answered, Journal, Logged
from tests.simulation.storage import BUCKET, LETTER_KEY, SimS3

Process: TypeAlias = Callable[[Any, Bridge, Callable[[], float]], Mapping[str, Any]]

INVOCATION_FAULTS = ("killed", "mapping killed", "answer lost", "little time", "no environment", "cold start")
_TIMEOUT_MS = 60_000
_LETTER_NAME = re.compile(r"([0-9]{40})-[0-9a-f]{16}\.json$")


class _LogLines(TextIOBase):
    """Where the bridge's logger writes, and its metrics."""

    journal: Journal | None = None

    def write(self, text: str) -> int:
        if self.journal is not None and text.strip():
            self.journal.append(Logged(text))
        return len(text)


LOG_LINES = _LogLines()


def listen(journal: Journal) -> None:
    """The bridge's log lines go into this run's journal from now on."""
    LOG_LINES.journal = journal
    for log_handler in logging.getLogger("bridge").handlers:
        if isinstance(log_handler, logging.StreamHandler) and log_handler.stream is not LOG_LINES:
            log_handler.setStream(LOG_LINES)


class KillingPublisher:
    """Ends the process after so many calls."""

    def __init__(self, inner: RecordPublisher) -> None:
        self._inner = inner
        self.calls_left: int | None = None

    def put(self, records: Sequence[tuple[bytes, str]]) -> list[str | None]:
        outcomes = self._inner.put(records)
        if self.calls_left is not None:
            self.calls_left -= 1
            if self.calls_left <= 0:
                raise KilledError
        return outcomes


@dataclass
class SimBridge:
    clock: MachineClock
    kinesis: SimKinesis
    s3: SimS3
    rules: Mapping[str, TableRules]
    journal: Journal
    process: Process = handler.process
    wrap_publisher: Callable[[RecordPublisher], RecordPublisher] = lambda publisher: publisher
    wrap_store: Callable[[ObjectStore], ObjectStore] = lambda store: store
    rules_are_missing: bool = False
    """Deployed without the tables' rules: every change becomes a dead letter until that is mended."""
    faults: deque[str] = field(default_factory=deque)
    seen_faults: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self._publisher = KillingPublisher(KinesisPublisher(BotoKinesis(self.kinesis, self.clock), STREAM))  # type: ignore[arg-type]
        self._bridge = self._environment()

    def publisher(self, caller: MachineClock) -> RecordPublisher:
        """For operations, which send as the bridge does."""
        return self.wrap_publisher(KinesisPublisher(BotoKinesis(self.kinesis, caller), STREAM))  # type: ignore[arg-type]

    def store(self) -> ObjectStore:
        return self.wrap_store(S3Store(lambda: self.s3, BUCKET, LETTER_KEY))  # type: ignore[arg-type, return-value]

    def invoke(self, _mapping: int, payload: bytes) -> Outcome:
        fault = self.faults.popleft() if self.faults else ""
        if fault:
            self.seen_faults[f"bridge: {fault}"] += 1
        if fault == "no environment":
            return NotInvoked("throttled")
        if fault == "cold start":
            self._bridge = self._environment()
        self._publisher.calls_left = 1 if fault == "killed" else None
        budget_ms = 5_600 if fault == "little time" else _TIMEOUT_MS
        outcome = self._invoked(json.loads(payload), budget_ms, answer_lost=fault == "answer lost")
        if fault == "mapping killed":
            raise KilledError  # before it has heard the answer
        return outcome

    def _environment(self) -> Bridge:
        return Bridge(
            tables=dict(self.rules),
            publisher=self.wrap_publisher(self._publisher),
            store=self.store(),
            bucket=BUCKET,
            clock=self.clock,
        )

    def _invoked(self, event: dict[str, Any], budget_ms: int, *, answer_lost: bool) -> Outcome:
        bridge = replace(self._bridge, tables={}) if self.rules_are_missing else self._bridge
        began_ms, deadline_ms = self.clock.now_ms(), self.clock.elapsed_ms() + budget_ms
        landed, refused = len(self.kinesis.landed), self.s3.refused
        try:
            with redirect_stdout(LOG_LINES):  # where the metrics go
                response = self.process(event, bridge, lambda: deadline_ms - self.clock.elapsed_ms())
        except KilledError:
            return Failed("Sandbox.Timedout", "killed")
        except BridgeError as error:
            return Failed(type(error).__name__, error.what)
        finally:
            handler.metrics.clear_metrics()
        if answer_lost:
            return Failed("Sandbox.Timedout", "the answer was lost")
        failures = [failure["itemIdentifier"] for failure in response["batchItemFailures"]]
        sequences = [record["dynamodb"]["SequenceNumber"] for record in event["Records"]]
        self.journal.append(
            Answered(
                records=event["Records"],
                unsent=min((sequences.index(name) for name in failures), default=None),
                landed=self.kinesis.landed[landed:],
                letters=frozenset(self._letters()),
                began_ms=began_ms,
                mark_possible=self.s3.refused == refused and not self.s3.is_down,
            )
        )
        return Returned(response)

    def _letters(self) -> list[str]:
        found = (_LETTER_NAME.search(name) for name in self.s3.names("dead-letters/"))
        return [match[1] for match in found if match]

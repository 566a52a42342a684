"""What can be wrong about sending."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from bridge_lambda import handler
from bridge_lambda.dead_letters import ObjectStore
from bridge_lambda.envelope import Parked
from bridge_lambda.errors import TryAgainError
from bridge_lambda.handler import Bridge
from bridge_lambda.masks import Mask
from bridge_lambda.publisher import Clock, RecordPublisher
from bridge_lambda.rules import TableRules

Records = Sequence[tuple[bytes, str]]


class _Around:
    def __init__(self, inner: RecordPublisher) -> None:
        self.inner = inner


class FailuresUnread(_Around):
    """Nobody looks at FailedRecordCount."""

    def put(self, records: Records) -> list[str | None]:
        return [sequence or "0" for sequence in self.inner.put(records)]


class FailedSubsetAlone(_Around):
    """Only what failed goes again, behind later records of the same keys."""

    def put(self, records: Records) -> list[str | None]:
        outcomes = self.inner.put(records)
        failed = [at for at, sequence in enumerate(outcomes) if sequence is None]
        if failed:
            for at, sequence in zip(failed, self.inner.put([records[at] for at in failed]), strict=True):
                outcomes[at] = sequence
        return outcomes


class TimeoutTakenForSuccess(_Around):
    def put(self, records: Records) -> list[str | None]:
        try:
            return self.inner.put(records)
        except TryAgainError:
            return ["0"] * len(records)


class OrderOfACallTrusted(_Around):
    """As if Kinesis kept the order within one call: sequence numbers are given, not read."""

    def put(self, records: Records) -> list[str | None]:
        return [None if sequence is None else str(at) for at, sequence in enumerate(self.inner.put(records))]


class LettersDropped:
    """A dead letter that S3 never gets."""

    def __init__(self, inner: ObjectStore) -> None:
        self._inner = inner

    def put(self, parked: Parked) -> None:
        if not parked.secret:
            self._inner.put(parked)


class LettersInTheClear:
    """A raw record under no key."""

    def __init__(self, inner: ObjectStore) -> None:
        self._inner = inner

    def put(self, parked: Parked) -> None:
        self._inner.put(parked._replace(secret=False))


class ClaimsOfOneName:
    """Claim checks that overwrite each other: not named by what they hold."""

    def __init__(self, inner: ObjectStore) -> None:
        self._inner = inner

    def put(self, parked: Parked) -> None:
        name = "claims/latest.json" if parked.name.startswith("claims/") else parked.name
        self._inner.put(parked._replace(name=name))


class NoMarks:
    """Records that were nearly trimmed go by without a word."""

    def __init__(self, inner: ObjectStore) -> None:
        self._inner = inner

    def put(self, parked: Parked) -> None:
        if not parked.name.startswith("unproven/"):
            self._inner.put(parked)


def without_masks(rules: TableRules) -> TableRules:
    return replace(rules, masks=Mask())


def without_filter(rules: TableRules) -> TableRules:
    """The filter forgotten: what must not leave the source leaves it."""
    return replace(rules, filter=None)


class FrozenClock:
    """The time is taken once, when the batch arrives."""

    def __init__(self, inner: Clock) -> None:
        self._inner = inner
        self._now_ms = inner.now_ms()

    def now_ms(self) -> int:
        return self._now_ms

    def elapsed_ms(self) -> float:
        return self._inner.elapsed_ms()

    def sleep(self, seconds: float) -> None:
        self._inner.sleep(seconds)


Remaining = Callable[[], float]


def stamped_once(event: Any, bridge: Bridge, remaining_ms: Remaining) -> Mapping[str, Any]:
    return handler.process(event, replace(bridge, clock=FrozenClock(bridge.clock)), remaining_ms)


def highest_failure_named(event: Any, bridge: Bridge, remaining_ms: Remaining) -> Mapping[str, Any]:
    """The answer names the last record that failed, and what lies before it counts as done."""
    answer = handler.process(event, bridge, remaining_ms)
    if answer["batchItemFailures"]:
        return {"batchItemFailures": [{"itemIdentifier": event["Records"][-1]["dynamodb"]["SequenceNumber"]}]}
    return answer


def poison_skipped(event: Any, bridge: Bridge, remaining_ms: Remaining) -> Mapping[str, Any]:
    """What cannot be encoded is left out, and that is all."""
    readable = [r for r in event["Records"] if "odd" not in (r["dynamodb"].get("NewImage") or {})]
    return handler.process({"Records": readable}, bridge, remaining_ms) if readable else {"batchItemFailures": []}


def poison_blocks(event: Any, bridge: Bridge, remaining_ms: Remaining) -> Mapping[str, Any]:
    """A record that can never be an envelope is tried for ever."""
    for record in event["Records"]:
        if "odd" in (record["dynamodb"].get("NewImage") or {}):
            return {"batchItemFailures": [{"itemIdentifier": event["Records"][0]["dynamodb"]["SequenceNumber"]}]}
    return handler.process(event, bridge, remaining_ms)

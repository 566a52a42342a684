"""Sending: every record, or the place where it stopped, with a key's newest record always its last.

A PutRecords call may fail in part, and Kinesis promises no order within one. So whatever of a call has to go again goes
before anything later, and with each failed record go all later ones of its key that the same call held.
"""

import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Protocol

from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError, ParamValidationError

from bridge_lambda.errors import BridgeError, CallInvalidError, StreamGoneError, TryAgainError
from bridge_lambda.packing import fitting
from config.limits import KINESIS_PUT_RECORDS_MAX

if TYPE_CHECKING:
    from mypy_boto3_kinesis import KinesisClient

CONNECT_TIMEOUT_S: Final = 1
READ_TIMEOUT_S: Final = 4
RESERVE_MS: Final = (CONNECT_TIMEOUT_S + READ_TIMEOUT_S) * 1000 + 500
"""No call starts with less time left than the slowest call takes, and the report after it."""
BACKOFF_S_BASE: Final = 0.05
BACKOFF_S_MAX: Final = 2.0


class Clock(Protocol):
    def now_ms(self) -> int: ...
    def elapsed_ms(self) -> float:
        """Of a clock that never goes back."""
        ...

    def sleep(self, seconds: float) -> None: ...


class SystemClock:
    def now_ms(self) -> int:
        return time.time_ns() // 1_000_000

    def elapsed_ms(self) -> float:
        return time.perf_counter() * 1000

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)


class Sealed(Protocol):
    """What `envelope.Change` is to the publisher."""

    @property
    def partition_key(self) -> str: ...
    @property
    def cost(self) -> int: ...
    def line(self, bridge_out_ms: int) -> bytes: ...


@dataclass(frozen=True, slots=True)
class Entry:
    index: int
    """Of its record in the event."""
    change: Sealed

    @property
    def cost(self) -> int:
        return self.change.cost


class RecordPublisher(Protocol):
    """One PutRecords call."""

    def put(self, records: Sequence[tuple[bytes, str]]) -> list[str | None]:
        """Each record's sequence number, None where it failed; or one of the PublishErrors for the whole call."""
        ...


@dataclass(slots=True)
class Published:
    sent: int = 0
    resent: int = 0
    bytes: int = 0
    put_ms: list[float] = field(default_factory=list)
    unsent: int | None = None
    """Index of the first record that was not sent; None when all were."""
    problem: BridgeError | None = None
    """The last thing that went wrong; of interest where something is unsent."""


def publish(
    entries: Sequence[Entry],
    publisher: RecordPublisher,
    *,
    clock: Clock,
    remaining_ms: Callable[[], float],
    condemn: Callable[[Entry, BridgeError], None],
    jitter: Callable[[], float] = random.random,
) -> Published:
    """Sends in order until all is sent or time is short. `condemn` takes a record that Kinesis will never take."""
    done = Published()
    pending = list(entries)
    suspects = 0  # so many records at the front are known to hold one that Kinesis calls invalid
    failures = 0  # in a row
    while pending:
        if remaining_ms() < RESERVE_MS:
            done.problem = done.problem or TryAgainError("no time left", hint="smaller batches or a longer timeout")
            break
        count = fitting(pending, max(1, suspects // 2) if suspects else KINESIS_PUT_RECORDS_MAX)
        call = pending[:count]
        try:
            again = _put(call, publisher, clock, done)
        except CallInvalidError as error:
            if count == 1:
                try:
                    condemn(call[0], error)
                except BridgeError as park:
                    done.problem = park
                    break
                pending, suspects = pending[1:], 0
            else:
                suspects = count
            continue
        except TryAgainError as error:
            done.problem = error
            again = call
        except StreamGoneError as error:
            done.problem = error
            break
        pending = again + pending[count:]
        suspects = max(0, suspects - count + len(again)) if suspects else 0
        done.resent += len(again)
        failures = failures + 1 if again else 0
        if again:
            clock.sleep(min(_backoff_s(failures, jitter()), max(0.0, remaining_ms() - RESERVE_MS) / 1000))
    done.unsent = min((entry.index for entry in pending), default=None)
    return done


def _put(call: list[Entry], publisher: RecordPublisher, clock: Clock, done: Published) -> list[Entry]:
    """One call, stamped as it leaves; what of it has to go again."""
    out_ms = clock.now_ms()
    records = [(entry.change.line(out_ms), entry.change.partition_key) for entry in call]
    started_ms = clock.elapsed_ms()
    try:
        outcomes = publisher.put(records)
    finally:
        done.put_ms.append(clock.elapsed_ms() - started_ms)
    again = to_send_again(call, outcomes)
    if again:
        done.problem = TryAgainError("Kinesis took a call only in part", hint="more shards, or on-demand capacity")
    done.sent += len(call) - len(again)
    done.bytes += sum(entry.cost for entry in call) - sum(entry.cost for entry in again)
    return again


def to_send_again(call: Sequence[Entry], outcomes: Sequence[str | None]) -> list[Entry]:
    """The failed records and every later one of their keys; and a key's newest if an older one came to lie after it."""
    failed: set[str] = set()
    last: dict[str, tuple[Entry, str]] = {}
    outran: dict[str, Entry] = {}
    again: list[Entry] = []
    for entry, sequence in zip(call, outcomes, strict=True):
        key = entry.change.partition_key
        if sequence is None or key in failed:
            failed.add(key)
            outran.pop(key, None)
            again.append(entry)
            continue
        earlier = last.get(key)
        if earlier is None:
            last[key] = entry, sequence
            continue
        outran.pop(key, None)
        if int(sequence) < int(earlier[1]):
            outran[key] = entry
        else:
            last[key] = entry, sequence
    return again + list(outran.values())


def _backoff_s(failures: int, jitter: float) -> float:
    """Full jitter: many shards' bridges that were throttled together do not come back together."""
    ceiling: float = min(BACKOFF_S_MAX, BACKOFF_S_BASE * 2 ** min(failures, 10))
    return ceiling * jitter


# --- Kinesis ----------------------------------------------------------------------------------------------------------

_INVALID: Final = frozenset(("InvalidArgumentException", "ValidationException", "SerializationException"))
_GONE: Final = {
    "ResourceNotFoundException": "create the stream, or correct LAKESTREAM_STREAM",
    "AccessDeniedException": "the function's role needs kinesis:PutRecords on the stream",
    "UnrecognizedClientException": "the function's credentials are not accepted",
    "KMSAccessDeniedException": "the function's role needs kms:GenerateDataKey on the stream's key",
    "KMSDisabledException": "enable the stream's KMS key",
    "KMSInvalidStateException": "the stream's KMS key is not usable",
    "KMSNotFoundException": "the stream's KMS key is gone",
    "KMSOptInRequired": "the account has not opted in to KMS",
}


class KinesisPublisher:
    """The client must not retry by itself: it would send whole calls again, out of our order and past our deadline."""

    def __init__(self, client: "KinesisClient", stream: str) -> None:
        self._client = client
        self._stream = stream

    def put(self, records: Sequence[tuple[bytes, str]]) -> list[str | None]:
        try:
            answer = self._client.put_records(
                StreamName=self._stream, Records=[{"Data": data, "PartitionKey": key} for data, key in records]
            )
        except ClientError as error:
            raise _of_client_error(error, self._stream) from None
        except ParamValidationError:
            raise CallInvalidError("PutRecords refused by the client", hint="see the dead letter") from None
        except NoCredentialsError:
            raise StreamGoneError("no credentials", hint="give the function a role") from None
        except BotoCoreError as error:
            raise TryAgainError(f"PutRecords: {type(error).__name__}", hint="the network, or Kinesis") from None
        return [None if record.get("ErrorCode") else record.get("SequenceNumber") for record in answer["Records"]]


def _of_client_error(error: ClientError, stream: str) -> BridgeError:
    code = error.response.get("Error", {}).get("Code", "unknown")
    if code in _GONE:
        return StreamGoneError(f"stream {stream}: {code}", hint=_GONE[code])
    if code in _INVALID:
        return CallInvalidError(f"PutRecords refused: {code}", hint="see the dead letter")
    return TryAgainError(f"PutRecords: {code}", hint="throttling or trouble in Kinesis; more shards if it stays")

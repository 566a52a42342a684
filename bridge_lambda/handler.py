"""DynamoDB stream records to Kinesis envelopes: validate, encode, park, publish, report.

What the answer does not name as failed is done: in Kinesis, or in S3 as a dead letter, or kept back by the table's
filter. What it names comes again, with everything after it.
"""

import functools
import gc
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import botocore.session
from aws_lambda_powertools import Logger, Metrics, Tracer
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from bridge_lambda.dead_letters import ObjectStore, S3Store, dead_letter, unproven_mark
from bridge_lambda.envelope import Change, encode_change, origin_of
from bridge_lambda.errors import BridgeError, NotOurEventError, ParkError, PoisonRecordError, RefusalError
from bridge_lambda.metrics import NAMESPACE, Counts, count_refusal, emit
from bridge_lambda.publisher import (
    CONNECT_TIMEOUT_S,
    READ_TIMEOUT_S,
    RESERVE_MS,
    Clock,
    Entry,
    KinesisPublisher,
    RecordPublisher,
    SystemClock,
    publish,
)
from bridge_lambda.rules import HashKey, TableRules, load_rules
from config.limits import DYNAMODB_STREAM_RETENTION_H, MAPPING_BATCH_BYTES_MAX

if TYPE_CHECKING:
    # Names of types only; the packages behind them would be a tenth of the cold start.
    from aws_lambda_powertools.utilities.batch.types import PartialItemFailureResponse
    from aws_lambda_powertools.utilities.typing import LambdaContext
    from mypy_boto3_kinesis import KinesisClient
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_secretsmanager import SecretsManagerClient

logger = Logger(service="bridge")
tracer = Tracer(service="bridge", patch_modules=("botocore",))  # by default every library X-Ray knows is imported
metrics = Metrics(namespace=NAMESPACE, service="bridge")

NEAR_EXPIRY_MS: Final = (DYNAMODB_STREAM_RETENTION_H - 1) * 3_600_000
"""A record this old was nearly trimmed: others before it may have been."""
SECRET_BYTES_MIN: Final = 16
EVENT_CONTAINERS_MAX: Final = MAPPING_BATCH_BYTES_MAX // len('"a":{"N":"1"},')
"""Dicts that an event can hold at most."""


@dataclass(frozen=True, slots=True)
class Bridge:
    """What an invocation works with; made once for each environment of the function."""

    tables: Mapping[str, TableRules]
    publisher: RecordPublisher
    store: ObjectStore
    bucket: str
    clock: Clock
    marked: set[str] = field(default_factory=set)
    """Marks already left, so that a late shard does not write the same one with each batch."""


@tracer.capture_lambda_handler(capture_response=False)
@metrics.log_metrics(capture_cold_start_metric=True)
@logger.inject_lambda_context(clear_state=True)
def handler(event: dict[str, Any], context: "LambdaContext") -> "PartialItemFailureResponse":
    try:
        return process(event, load_bridge(), context.get_remaining_time_in_millis)
    except BridgeError as error:
        count_refusal(metrics)
        _say("the whole batch fails", error)
        raise


def process(event: Any, bridge: Bridge, remaining_ms: Callable[[], float]) -> "PartialItemFailureResponse":
    started_ms = bridge.clock.elapsed_ms()
    records = stream_records(event)
    counts = Counts(received=len(records))
    watch_age(records, bridge, counts)
    entries, unparked = encode_all(records, bridge, remaining_ms, counts)
    published = publish(
        entries,
        bridge.publisher,
        clock=bridge.clock,
        remaining_ms=remaining_ms,
        condemn=lambda entry, error: bury(records[entry.index], error, bridge, counts),
    )
    unsent = published.unsent if published.unsent is not None else unparked
    counts.add(published, failed=0 if unsent is None else len(records) - unsent)
    counts.duration_ms = bridge.clock.elapsed_ms() - started_ms
    emit(metrics, counts)
    return report(records, unsent, published.problem, by_pipe=isinstance(event, list))


def stream_records(event: Any) -> list[Any]:
    """The event's records, an EventBridge pipe's included; NotOurEventError where it is not a DynamoDB stream's."""
    records = event.get("Records") if isinstance(event, dict) else event
    hint = "only an event source mapping or a pipe on a DynamoDB stream may invoke this function"
    if not isinstance(records, list) or not records:
        raise NotOurEventError("an event without Records", hint=hint)
    sources = {str(record.get("eventSource")) for record in records if isinstance(record, dict)}
    if sources - {"aws:dynamodb"}:
        raise NotOurEventError(f"an event from {', '.join(sorted(sources))}", hint=hint)
    return records


def watch_age(records: list[Any], bridge: Bridge, counts: Counts) -> None:
    """The first record is the oldest. One that was nearly trimmed leaves a mark: others before it may be lost."""
    try:
        counts.table, generation = origin_of(records[0]["eventSourceARN"])
        created_ms = int(records[0]["dynamodb"]["ApproximateCreationDateTime"] * 1000)
    except (PoisonRecordError, LookupError, TypeError, ValueError, ArithmeticError, AttributeError):
        return  # nothing to measure by; what is wrong with the record shows when it is encoded
    now_ms = bridge.clock.now_ms()
    counts.iterator_age_ms = max(0, now_ms - created_ms)
    if counts.iterator_age_ms < NEAR_EXPIRY_MS:
        return
    counts.near_expiry = 1
    mark = unproven_mark(counts.table, generation, "near-expiry", now_ms)
    if mark.name in bridge.marked:
        return
    logger.error("records were nearly trimmed", extra={"table": counts.table, "hint": "run `lakestream verify`"})
    try:
        bridge.store.put(mark)
    except ParkError as error:  # holding the shard back for a mark would lose what the mark warns of
        _say("no mark was left", error)
    else:
        bridge.marked.add(mark.name)


def encode_all(
    records: list[Any], bridge: Bridge, remaining_ms: Callable[[], float], counts: Counts
) -> tuple[list[Entry], int | None]:
    """What is to be sent, up to the first record that S3 did not take or there was no time for; and its index."""
    arrived_ms = bridge.clock.now_ms()
    entries: list[Entry] = []
    for index, record in enumerate(records):
        try:
            if remaining_ms() < RESERVE_MS:
                raise ParkError("no time left", hint="smaller batches or a longer timeout")  # noqa: TRY301 - as any other
            change = encode_or_bury(record, arrived_ms, bridge, counts)
        except ParkError as error:
            _say("the batch is cut short", error)
            return entries, index
        if change is not None:
            entries.append(Entry(index, change))
    return entries, None


def encode_or_bury(record: Any, arrived_ms: int, bridge: Bridge, counts: Counts) -> Change | None:
    """The change to send; None where it is a dead letter now, or the filter keeps it back."""
    try:
        change = encode_change(record, bridge.tables, arrived_ms, bridge.bucket)
    except PoisonRecordError as poison:
        bury(record, poison, bridge, counts)
        return None
    if change is None:
        counts.skipped += 1
    elif change.claim is not None:
        bridge.store.put(change.claim)
        counts.claims += 1
    return change


def bury(record: Any, error: BridgeError, bridge: Bridge, counts: Counts) -> None:
    """The whole record, and why, to S3."""
    letter = dead_letter(record, error, bridge.clock.now_ms())
    bridge.store.put(letter)
    counts.dead_lettered += 1
    _say("dead letter", error, object=letter.name)


def report(
    records: list[Any], unsent: int | None, problem: BridgeError | None, *, by_pipe: bool = False
) -> "PartialItemFailureResponse":
    """A mapping is told the lowest sequence number that was not sent and comes back with it and everything after it.

    A pipe comes back with the events that are named, and with no others: it is told them all.
    """
    if unsent is None:
        return {"batchItemFailures": []}
    if problem is not None:
        _say("not all was sent", problem, unsent=len(records) - unsent)
    try:
        if by_pipe:
            names = [record["eventID"] for record in records[unsent:]]
        else:
            names = [records[unsent]["dynamodb"]["SequenceNumber"]]
    except (LookupError, TypeError):
        raise ParkError("a record without a name could not be parked", hint="mend S3 access") from None
    return {"batchItemFailures": [{"itemIdentifier": name} for name in names]}


def _say(message: str, error: BridgeError, **more: Any) -> None:
    """One shape for every line about trouble: what, and what to do. Never item data."""
    logger.error(message, extra={"what": error.what, "hint": error.hint, **more})


# --- made once for each environment -----------------------------------------------------------------------------------


@functools.cache
def load_bridge() -> Bridge:
    """RefusalError where the environment, the rules or a secret are not as they must be: before the first record."""
    stream = _setting("LAKESTREAM_STREAM")
    bucket = _setting("LAKESTREAM_BUCKET")
    rules = Path(os.environ.get("LAKESTREAM_RULES") or Path(__file__).parent.parent / "rules.json")
    return Bridge(
        tables=load_rules(rules, read_secret),
        publisher=KinesisPublisher(_kinesis_client(), stream),
        store=S3Store(_s3_client, bucket, os.environ.get("LAKESTREAM_DEAD_LETTER_KEY") or None),
        bucket=bucket,
        clock=SystemClock(),
    )


def read_secret(name: str, version: str | None) -> HashKey:
    hint = f"create secret {name} in Secrets Manager and let the function's role read it"
    chosen = {"VersionId": version} if version else {}
    try:
        answer = _secrets_client().get_secret_value(SecretId=name, **chosen)
    except ClientError as error:
        raise RefusalError(f"secret {name}: {error.response['Error']['Code']}", hint=hint) from None
    except BotoCoreError as error:
        raise RefusalError(f"secret {name}: {type(error).__name__}", hint=hint) from None
    secret = answer.get("SecretBinary") or answer.get("SecretString", "").encode()
    if len(secret) < SECRET_BYTES_MIN:
        raise RefusalError(f"secret {name} is shorter than {SECRET_BYTES_MIN} bytes", hint="give it 32 random bytes")
    return HashKey(answer["VersionId"], secret)


def _setting(name: str) -> str:
    value = os.environ.get(name)
    if not value:
        raise RefusalError(f"{name} is not set", hint="set it in the function's environment")
    return value


def _client(service: str, *, attempts: int) -> Any:
    """A client of botocore's own: boto3 would add a transfer manager, and half as much again to the cold start.

    Its defaults would wait a minute for an answer and try four times more; we have seconds.
    """
    config = Config(
        retries={"mode": "standard", "total_max_attempts": attempts},
        connect_timeout=CONNECT_TIMEOUT_S,
        read_timeout=READ_TIMEOUT_S,
    )
    region = os.environ.get("AWS_REGION") or _setting("AWS_DEFAULT_REGION")
    return botocore.session.get_session().create_client(service, region_name=region, config=config)


def _kinesis_client() -> "KinesisClient":
    """One attempt a call: the publisher tries again, in our order and within our time."""
    client: KinesisClient = _client("kinesis", attempts=1)
    return client


@functools.cache
def _s3_client() -> "S3Client":
    """Made when the first object is parked: most environments never park one."""
    client: S3Client = _client("s3", attempts=3)
    return client


def _secrets_client() -> "SecretsManagerClient":
    client: SecretsManagerClient = _client("secretsmanager", attempts=3)
    return client


def spare_the_collector() -> None:
    """An event is hundreds of small dicts a record, and no cycles: no search for those within one event.

    By Python's own thresholds the search goes over them again and again while the runtime parses the event, for a third
    to a half of an invocation. What the start left is set aside for good.
    """
    gc.freeze()
    gc.set_threshold(EVENT_CONTAINERS_MAX)
    gc.enable()


if "AWS_LAMBDA_RUNTIME_API" in os.environ:
    load_bridge()  # while the environment starts it has a whole core, and no batch waits
    spare_the_collector()

"""Where batches go that are given up: the documents that Lambda writes to an on-failure destination."""

import json
import uuid
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Protocol

from infra.local import worker
from infra.local.mapping.event import Change, event_of
from infra.local.mapping.lane import Discard
from infra.local.mapping.outcome import Failed, Returned
from infra.local.mapping.settings import MappingSettings


class Destination(Protocol):
    def send(self, discard: Discard, *, shard: str) -> None:
        """Returns when the document is stored; raises what the client raises."""


def document(discard: Discard, *, shard: str, stream_arn: str, function_arn: str, now: datetime) -> dict[str, Any]:
    """The metadata: what was given up, where in the stream it lies, and why."""
    batch = discard.batch
    changes = batch.changes
    body: dict[str, Any] = {
        "requestContext": {
            "requestId": str(uuid.uuid4()),
            "functionArn": function_arn,
            "condition": discard.condition,
            "approximateInvokeCount": batch.invocations,
        }
    }
    match batch.outcome:
        case Returned():
            # The function was content; its answer named the failures.
            body["responseContext"] = {"statusCode": 200, "executedVersion": "$LATEST"}
        case Failed():
            body["responseContext"] = {"statusCode": 200, "executedVersion": "$LATEST", "functionError": "Unhandled"}
    return body | {
        "version": "1.0",
        "timestamp": now.strftime("%Y-%m-%dT%H:%M:%S.") + f"{now.microsecond // 1000:03d}Z",
        "DDBStreamBatchInfo": {
            "shardId": shard,
            "startSequenceNumber": changes[0].sequence,
            "endSequenceNumber": changes[-1].sequence,
            "approximateArrivalOfFirstRecord": _instant(changes[0]),
            "approximateArrivalOfLastRecord": _instant(changes[-1]),
            "batchSize": len(changes),
            "streamArn": stream_arn,
        },
    }


def _instant(change: Change) -> str:
    return datetime.fromtimestamp(change.created_s, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


class S3OnFailure:
    """Metadata and, as an escaped string, the whole event; a name as Lambda makes it."""

    def __init__(self, client: Any, settings: MappingSettings) -> None:
        assert settings.on_failure is not None
        assert settings.on_failure.s3 is not None
        self._client = client
        self._settings = settings
        self._to = settings.on_failure.s3

    def send(self, discard: Discard, *, shard: str) -> None:
        now = datetime.now(UTC)
        body = _document(discard, self._settings, shard, now)
        body["payload"] = event_of(discard.batch.changes).decode()
        name = f"aws/lambda/{self._settings.mapping_id}/{shard}/{now:%Y/%m/%d/%Y-%m-%dT%H.%M.%S}-{uuid.uuid4()}"
        self._client.put_object(
            Bucket=self._to.bucket,
            Key=self._to.prefix + name,
            Body=json.dumps(body).encode(),
            ContentType="application/json",
        )


class SqsOnFailure:
    """Metadata only: the records stay in the stream, for as long as it keeps them."""

    def __init__(self, client: Any, settings: MappingSettings) -> None:
        assert settings.on_failure is not None
        self._client = client
        self._settings = settings
        self._queue = settings.on_failure.sqs

    def send(self, discard: Discard, *, shard: str) -> None:
        body = _document(discard, self._settings, shard, datetime.now(UTC))
        self._client.send_message(QueueUrl=self._queue, MessageBody=json.dumps(body))


def _document(discard: Discard, settings: MappingSettings, shard: str, now: datetime) -> dict[str, Any]:
    return document(discard, shard=shard, stream_arn=settings.stream_arn, function_arn=settings.function_arn, now=now)


def destination(settings: MappingSettings) -> Destination | None:
    if settings.on_failure is None:
        return None
    if settings.on_failure.s3 is not None:
        return S3OnFailure(worker.client("s3", endpoint=settings.endpoint, region=settings.region), settings)
    return SqsOnFailure(worker.client("sqs", endpoint=settings.endpoint, region=settings.region), settings)


def span(changes: Sequence[Change]) -> dict[str, Any]:
    """What a log line may say of a batch: where it lies, never what is in it."""
    return {"first": changes[0].sequence, "last": changes[-1].sequence, "records": len(changes)}

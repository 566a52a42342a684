"""A stream record, from the form the API gives to the form the function sees: Lambda's DynamoDB event, as JSON."""

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import orjson

from config.limits import MAPPING_BATCH_BYTES_MAX

_OPENING = b'{"Records":['
_CLOSING = b"]}"
_FRAME_BYTES = len(_OPENING) + len(_CLOSING)


@dataclass(frozen=True, slots=True)
class Change:
    """One record, encoded once; batches, retries and destinations only join bytes."""

    sequence: str
    item: bytes
    """The item's key: changes of one item stay in order."""
    created_s: float
    encoded: bytes


def encode(record: dict[str, Any], *, stream_arn: str) -> Change:
    change = record["dynamodb"]
    created_s = _seconds(change["ApproximateCreationDateTime"])
    whole = int(created_s)
    event: dict[str, Any] = {
        "eventID": record["eventID"],
        "eventName": record["eventName"],
        "eventVersion": record["eventVersion"],
        "eventSource": record["eventSource"],
        "awsRegion": record["awsRegion"],
        "dynamodb": change | {"ApproximateCreationDateTime": whole if whole == created_s else created_s},
        "eventSourceARN": stream_arn,
    }
    if "userIdentity" in record:
        # The API's names begin with capitals here, the event's do not.
        identity = record["userIdentity"]
        event["userIdentity"] = {"principalId": identity.get("PrincipalId"), "type": identity.get("Type")}
    return Change(
        sequence=change["SequenceNumber"],
        item=orjson.dumps(change["Keys"], default=_base64, option=orjson.OPT_SORT_KEYS),
        created_s=created_s,
        encoded=orjson.dumps(event, default=_base64),
    )


def event_of(changes: Sequence[Change]) -> bytes:
    return _OPENING + b",".join(change.encoded for change in changes) + _CLOSING


def fitting(changes: Sequence[Change], *, records_max: int, bytes_max: int = MAPPING_BATCH_BYTES_MAX) -> int:
    """How many of the changes, from the first, go into one event; at least one, since a record is never cut."""
    size = _FRAME_BYTES
    for count, change in enumerate(changes):
        size += len(change.encoded) + 1
        if count >= records_max or (count and size > bytes_max):
            return count
    return len(changes)


def _seconds(moment: datetime | float) -> float:
    return moment.timestamp() if isinstance(moment, datetime) else float(moment)


def _base64(value: Any) -> str:
    if isinstance(value, bytes | bytearray):
        return base64.b64encode(value).decode("ascii")
    raise TypeError(f"a stream record holds no {type(value).__name__}")

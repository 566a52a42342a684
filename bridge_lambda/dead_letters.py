"""What cannot go to Kinesis goes to S3: whole records that can never be sent, and images that do not fit.

Both are named by what they hold, so that a batch that comes again overwrites its own objects and makes no others.
Dead letters hold raw records, before any rule: they rest under a KMS key of their own where one is given.
"""

import json
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Final, Protocol

from botocore.exceptions import BotoCoreError, ClientError

from bridge_lambda.envelope import Parked, origin_of
from bridge_lambda.errors import BridgeError, ParkError, PoisonRecordError

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

PREFIX: Final = "dead-letters"
UNPROVEN_PREFIX: Final = "unproven"
_FORMAT: Final = 1
_HINT: Final = "the function's role needs s3:PutObject on the bucket, and the bucket must exist"


class ObjectStore(Protocol):
    def put(self, parked: Parked) -> None:
        """Writes the object, a secret one under the dead letters' key; ParkError where S3 did not take it."""
        ...


class S3Store:
    def __init__(self, client: Callable[[], "S3Client"], bucket: str, kms_key: str | None) -> None:
        self._client = client
        self._bucket = bucket
        self._encryption = {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": kms_key} if kms_key else {}

    def put(self, parked: Parked) -> None:
        extra: dict[str, Any] = self._encryption if parked.secret else {}
        try:
            self._client().put_object(
                Bucket=self._bucket, Key=parked.name, Body=parked.body, ContentType="application/json", **extra
            )
        except ClientError as error:
            code = error.response.get("Error", {}).get("Code", "unknown")
            raise ParkError(f"S3 did not take {parked.name}: {code}", hint=_HINT) from None
        except BotoCoreError as error:
            raise ParkError(f"S3 did not take {parked.name}: {type(error).__name__}", hint=_HINT) from None


def dead_letter(record: Any, error: BridgeError, now_ms: int) -> Parked:
    """The whole record and why it is here."""
    # ASCII only: a record that is poison for its broken text must still be written, and read back as it was.
    raw = json.dumps(record, default=_readable, sort_keys=True)
    table, generation = _table_of(record)
    letter = {
        "v": _FORMAT,
        "reason": error.reason if isinstance(error, PoisonRecordError) else "refused-by-kinesis",
        "what": error.what,
        "hint": error.hint,
        "table": table,
        "gen": generation,
        "parked_ms": now_ms,
    }
    body = json.dumps(letter)[:-1] + ', "record": ' + raw + "}"
    return Parked(f"{PREFIX}/{table}/{_day(record)}/{_sequence(record, raw)}.json", body.encode("ascii"), secret=True)


def unproven_mark(table: str, generation: str, reason: str, now_ms: int) -> Parked:
    """Says that changes of the table may have been lost: `verify` has to settle it. One object an hour at most."""
    name = f"{UNPROVEN_PREFIX}/{table}/{generation}-{reason}-{now_ms // 3_600_000}.json"
    body = {"v": _FORMAT, "table": table, "gen": generation, "reason": reason, "marked_ms": now_ms}
    return Parked(name, json.dumps(body).encode("ascii"), secret=False)


def _readable(value: Any) -> str:
    """A record from a client instead of an event holds bytes and times."""
    return value.hex() if isinstance(value, bytes) else str(value)


def _table_of(record: Any) -> tuple[str, str]:
    try:
        return origin_of(record["eventSourceARN"])
    except (PoisonRecordError, TypeError, KeyError, AttributeError):
        return "unknown", ""


def _change(record: Any) -> Mapping[str, Any]:
    change = record.get("dynamodb") if isinstance(record, dict) else None
    return change if isinstance(change, dict) else {}


def _day(record: Any) -> str:
    """Of the change, not of the attempt: a later attempt must find the same name."""
    try:
        return f"date={datetime.fromtimestamp(_change(record)['ApproximateCreationDateTime'], UTC):%Y-%m-%d}"
    except (LookupError, TypeError, ValueError, ArithmeticError, OSError):
        return "date=unknown"


def _sequence(record: Any, raw: str) -> str:
    """The sequence number where it is one, and a hash: names are unique, and never made of item data."""
    sequence = _change(record).get("SequenceNumber")
    known = sequence if isinstance(sequence, str) and sequence.isascii() and sequence.isdigit() else "0"
    return f"{known[:40]:0>40}-{sha256(raw.encode('ascii')).hexdigest()[:16]}"

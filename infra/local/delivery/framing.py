"""Records into lines: one record, one line; what cannot be one goes to the error output, in Firehose's form."""

import base64
import json
from dataclasses import dataclass
from datetime import datetime

from streaming_job.kinesis.kpl import user_records


@dataclass(frozen=True, slots=True)
class Record:
    sequence: str
    arrival: datetime
    data: bytes


@dataclass(frozen=True, slots=True)
class Framed:
    """The lines of one Kinesis record, which may hold several (KPL)."""

    record: Record
    lines: bytes
    errors: bytes
    """Lines of JSON for the error output."""

    @property
    def size(self) -> int:
        return len(self.lines) + len(self.errors)


def frame(record: Record, *, now: datetime) -> Framed:
    """What the Kinesis Producer Library packed together comes apart again, as Firehose does it."""
    lines = bytearray()
    errors = bytearray()
    for _, data in user_records("", record.data):
        body = data.removesuffix(b"\n")
        if body and b"\n" not in body:
            lines += body + b"\n"
        else:
            errors += _error(record, data, now)
    return Framed(record, bytes(lines), bytes(errors))


def _error(record: Record, data: bytes, now: datetime) -> bytes:
    reason = "the record is empty" if not data.strip(b"\n") else "the record holds more than one line"
    document = {
        "attemptsMade": 1,
        "arrivalTimestamp": int(record.arrival.timestamp() * 1000),
        "errorCode": "Delivery.NotOneLine",
        "errorMessage": reason,
        "attemptEndingTimestamp": int(now.timestamp() * 1000),
        "rawData": base64.b64encode(data).decode("ascii"),
        "sequenceNumber": record.sequence,
    }
    return json.dumps(document).encode() + b"\n"

"""Aggregated records of the Kinesis Producer Library: magic, protobuf message, MD5 of the message.

The message is AggregatedRecord{1: partition keys, 2: hash keys, 3: Record{1: key's index, 2: hash key's, 3: data}}.
The published Python package for it only imports after it has put its own folder in front of sys.path, and takes a round
through base64; the format is three fields of protobuf's wire format, so it is read here.
"""

import hashlib
from collections.abc import Iterator
from typing import Final

AGGREGATED_MAGIC: Final = b"\xf3\x89\x9a\xc2"
_DIGEST_BYTES: Final = 16
_VARINT, _LENGTH_DELIMITED = 0, 2
_FIXED_BYTES: Final = {1: 8, 5: 4}
_PARTITION_KEYS, _RECORDS = 1, 3
_RECORD_KEY_INDEX, _RECORD_DATA = 1, 3


def is_aggregated(data: bytes) -> bool:
    """By its digest: a user record may begin with the same four bytes."""
    if not data.startswith(AGGREGATED_MAGIC) or len(data) < len(AGGREGATED_MAGIC) + _DIGEST_BYTES:
        return False
    return hashlib.md5(_message(data), usedforsecurity=False).digest() == data[-_DIGEST_BYTES:]


def user_records(key: str, data: bytes) -> list[tuple[str, bytes]]:
    """Partition key and data of each user record; what only looks aggregated is one itself, as the KCL has it."""
    if not is_aggregated(data):
        return [(key, data)]
    keys: list[str] = []
    records: list[tuple[int, bytes]] = []
    try:
        for field, value in _fields(_message(data)):
            if field == _PARTITION_KEYS and isinstance(value, bytes):
                keys.append(value.decode("utf-8"))
            elif field == _RECORDS and isinstance(value, bytes):
                parts = dict(_fields(value))
                index, payload = parts.get(_RECORD_KEY_INDEX, 0), parts.get(_RECORD_DATA, b"")
                if not isinstance(index, int) or not isinstance(payload, bytes):
                    return [(key, data)]
                records.append((index, payload))
        return [(keys[index], payload) for index, payload in records]
    except (ValueError, IndexError):
        return [(key, data)]


def _message(data: bytes) -> bytes:
    return data[len(AGGREGATED_MAGIC) : -_DIGEST_BYTES]


def _fields(message: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Number and value of each field; of a repeated scalar the last stands, as protobuf has it."""
    at = 0
    while at < len(message):
        tag, at = _varint(message, at)
        field, wire = tag >> 3, tag & 7
        if wire == _VARINT:
            value, at = _varint(message, at)
            yield field, value
        elif wire == _LENGTH_DELIMITED:
            length, at = _varint(message, at)
            yield field, _exactly(message, at, length)
            at += length
        elif wire in _FIXED_BYTES:
            yield field, _exactly(message, at, _FIXED_BYTES[wire])
            at += _FIXED_BYTES[wire]
        else:
            raise ValueError(f"wire type {wire}")


def _exactly(message: bytes, at: int, length: int) -> bytes:
    if at + length > len(message):
        raise ValueError("the message ends within a field")
    return message[at : at + length]


def _varint(message: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = message[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7

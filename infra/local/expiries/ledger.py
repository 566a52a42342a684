"""Which deletions are expiries: written down before each, looked up by the mapping when it meets the REMOVE.

The stream of the emulator has no `userIdentity`, by which AWS's tells an expiry from a user's deletion; the mapping
adds it from here. An entry names the key and the time of expiry, so that the same key, written again and deleted by a
user later, is not taken for one.
"""

import os
from base64 import b64encode
from pathlib import Path
from typing import Any

import orjson

SERVICE_IDENTITY = {"Type": "Service", "PrincipalId": "dynamodb.amazonaws.com"}
"""As DynamoDB's own stream says it."""


def entry(key: dict[str, Any], expires: str) -> bytes:
    return orjson.dumps([key, expires], default=_text, option=orjson.OPT_SORT_KEYS)


class LedgerWriter:
    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("ab")

    def note(self, entries: list[bytes]) -> None:
        """On disk when it returns: only then may the items go."""
        self._file.writelines(line + b"\n" for line in entries)
        self._file.flush()
        os.fsync(self._file.fileno())

    def close(self) -> None:
        self._file.close()


class LedgerReader:
    def __init__(self, path: Path, attribute: str) -> None:
        self._path, self._attribute = path, attribute
        self._read = 0
        self._known: set[bytes] = set()

    def identified(self, record: dict[str, Any]) -> dict[str, Any]:
        """The stream record, with the service's identity where it is an expiry."""
        change = record["dynamodb"]
        expires = change.get("OldImage", {}).get(self._attribute, {}).get("N")
        if record["eventName"] != "REMOVE" or expires is None:
            return record
        wanted = entry(change["Keys"], expires)
        if wanted not in self._known:
            self._read_on()
        return record | {"userIdentity": SERVICE_IDENTITY} if wanted in self._known else record

    def _read_on(self) -> None:
        try:
            with self._path.open("rb") as file:
                file.seek(self._read)
                added = file.read()
        except FileNotFoundError:
            return
        # A line that is still being written has no end yet, and its item is still there.
        whole = added[: added.rfind(b"\n") + 1]
        self._read += len(whole)
        self._known.update(whole.splitlines())


def _text(value: Any) -> str:
    """As the stream's records have it, which come as they were sent."""
    if isinstance(value, bytes | bytearray):
        return b64encode(value).decode("ascii")
    raise TypeError(f"a key holds no {type(value).__name__}")

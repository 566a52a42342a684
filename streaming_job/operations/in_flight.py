"""What of some keys is on its way: changes that stand in the table's stream and not in the lake.

The stream itself is asked, so that it matters to nobody where a change is held up, and a table that is quiet can be
settled as well as a busy one. It tells of 24 hours; what was changed before and is not in the lake is on no way.
"""

import time
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from botocore.exceptions import BotoCoreError, ClientError

from bridge_lambda.envelope import encode_change, key_text
from bridge_lambda.errors import BridgeError
from bridge_lambda.rules import TableRules
from config.limits import SEQUENCE_DIGITS
from streaming_job.operations.source_stream import ShardReader, shards_of

SHOWN_AFTER_MS: Final = 3_000
"""A write is in the stream within this time."""
_LOOK_S_MAX: Final = 5.0
_EMPTY_PAUSE_S: Final = 0.05


class InFlight(Protocol):
    def look(self, keys: Collection[str]) -> None:
        """Read on, for a few seconds at most."""

    def newest(self, key: str) -> str | None:
        """The newest version of the key that the stream tells of; None where it tells of none."""

    @property
    def whole_until_ms(self) -> int:
        """What was written by then has been read; 0 as long as the stream was not read to its end."""


class NoStream:
    """Where the table has none: nothing is known to be on its way, or not to be."""

    whole_until_ms: Final = 0

    def look(self, keys: Collection[str]) -> None:
        pass

    def newest(self, key: str) -> str | None:  # noqa: ARG002 - InFlight's
        return None


NO_STREAM: Final = NoStream()


@dataclass
class StreamInFlight:
    client: Any
    arn: str
    rules: TableRules
    version: Callable[[str, int | None], str]
    """Sequence number and time of creation (ms) -> `_seq` as the lake has it."""
    say: Callable[[str], None] = lambda _: None
    clock: Callable[[], float] = time.time
    sleep: Callable[[float], None] = time.sleep
    whole_until_ms: int = 0
    _readers: dict[str, ShardReader] = field(default_factory=dict)
    _newest: dict[str, str] = field(default_factory=dict)
    _is_readable: bool = True

    def look(self, keys: Collection[str]) -> None:
        """`keys` may become fewer from look to look, never more."""
        if not self._is_readable:
            return
        began = self.clock()
        try:
            self._open()
            while not self._is_at_end() and self.clock() - began < _LOOK_S_MAX:
                self._read_once(keys)
            if self._is_at_end():
                self.whole_until_ms = int(began * 1000) - SHOWN_AFTER_MS
        except (ClientError, BotoCoreError) as error:
            self.say(f"the stream of {self.rules.table} cannot be read: {' '.join(str(error).split())}")
            self._is_readable = False

    def newest(self, key: str) -> str | None:
        return self._newest.get(key)

    def _open(self) -> None:
        """Shards that came since the last look too; each is read on from where it was."""
        for shard in shards_of(self.client, self.arn):
            if shard not in self._readers:
                self._readers[shard] = ShardReader(self.client, self.arn, shard)
        for reader in self._readers.values():
            reader.begin_again()

    def _is_at_end(self) -> bool:
        return all(reader.is_at_end for reader in self._readers.values())

    def _read_once(self, keys: Collection[str]) -> None:
        is_empty = True
        for reader in self._readers.values():
            if not reader.is_at_end:
                for record in reader.read():
                    is_empty = False
                    self._take(record, keys)
        if is_empty:
            self.sleep(_EMPTY_PAUSE_S)

    def _take(self, record: dict[str, Any], keys: Collection[str]) -> None:
        change = record["dynamodb"]
        key = key_text(change["Keys"], self.rules)
        if key not in keys or not self._is_sent(record):
            return
        created_ms = round(change["ApproximateCreationDateTime"].timestamp() * 1000)
        version = self.version(change["SequenceNumber"].zfill(SEQUENCE_DIGITS), created_ms)
        self._newest[key] = max(version, self._newest.get(key, ""))

    def _is_sent(self, record: dict[str, Any]) -> bool:
        """What the rules' filter keeps back is on no way; what can be no envelope waits among the dead letters."""
        try:
            named = {**record, "eventSourceARN": self.arn}
            return encode_change(named, {self.rules.table: self.rules}, 0, "") is not None
        except BridgeError:
            return True

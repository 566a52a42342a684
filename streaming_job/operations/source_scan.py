"""Reading a DynamoDB table whole: a parallel Scan that keeps to a budget of read capacity."""

import json
import queue
import threading
import time
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from botocore.exceptions import BotoCoreError, ClientError

from config.errors import LakestreamError

Item = dict[str, Any]
"""As DynamoDB says it: name -> {"S": ...}."""

_BATCH_GET_MAX: Final = 100
_PAGES_WAITING_MAX: Final = 4
_UNPROCESSED_TRIES: Final = 8
_THROTTLES: Final = frozenset(("ProvisionedThroughputExceededException", "ThrottlingException", "RequestLimitExceeded"))
_WHEN_THROTTLED: Final = "lower --read-capacity, or try again later"


class SourceUnreadableError(LakestreamError):
    """The source table could not be read to its end."""


class DynamoReader(Protocol):
    """The one seam: a DynamoDB client."""

    @property
    def scan(self) -> Callable[..., Any]: ...
    @property
    def batch_get_item(self) -> Callable[..., Any]: ...


@dataclass
class CapacityBudget:
    """Spreads reads over time: after a page that cost more than the budget gives, the next one waits."""

    units_per_s: float | None = None
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep
    _free_at: float = 0.0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def spend(self, units: float) -> None:
        if self.units_per_s is None:
            return
        with self._lock:
            start = max(self._free_at, self.clock())
            self._free_at = start + units / self.units_per_s
            wait_s = start - self.clock()
        if wait_s > 0:
            self.sleep(wait_s)


@dataclass(frozen=True)
class Page:
    segment: int
    items: Sequence[Item]
    after: Item | None
    """Where the segment goes on; None at its end."""


def scan(client: DynamoReader, table: str, *, segments: int, budget: CapacityBudget) -> Iterator[Sequence[Item]]:
    """Every item of the table, a page at a time, the segments read side by side."""
    whole = dict.fromkeys(range(segments))
    for page in scan_segments(client, table, whole, segments=segments, budget=budget, is_consistent=False):
        yield page.items


def scan_segments(
    client: DynamoReader,
    table: str,
    wanted: Mapping[int, Item | None],
    *,
    segments: int,
    budget: CapacityBudget,
    is_consistent: bool,
) -> Iterator[Page]:
    """These segments side by side, each from behind an item, or from its beginning."""
    pages: queue.Queue[Page | Exception] = queue.Queue(maxsize=_PAGES_WAITING_MAX)
    stop = threading.Event()

    def read(segment: int, after: Item | None) -> None:
        request = {
            "TableName": table, "Segment": segment, "TotalSegments": segments, "ConsistentRead": is_consistent
        }  # fmt: skip
        try:
            for page in _pages(client, request, after, budget):
                _put(pages, page, stop)
                if stop.is_set():
                    return
        except Exception as error:  # noqa: BLE001 - whatever ends a thread ends the scan, which would wait for it for ever
            _put(pages, error, stop)

    threads = [threading.Thread(target=read, args=part, name=f"scan-{part[0]}") for part in wanted.items()]
    for thread in threads:
        thread.start()
    try:
        yield from _until_all_ended(pages, len(wanted), table)
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def _until_all_ended(pages: "queue.Queue[Page | Exception]", segments: int, table: str) -> Iterator[Page]:
    ended = 0
    while ended < segments:
        page = pages.get()
        if isinstance(page, ClientError | BotoCoreError):
            raise unreadable(table, page) from page
        if isinstance(page, Exception):
            raise page
        ended += page.after is None
        yield page


def unreadable(table: str, error: Exception) -> SourceUnreadableError:
    code = error.response.get("Error", {}).get("Code") if isinstance(error, ClientError) else None
    hint = _WHEN_THROTTLED if code in _THROTTLES else "the role needs dynamodb:Scan and BatchGetItem on it"
    return SourceUnreadableError(f"cannot read {table}: {' '.join(str(error).split())}", hint=hint)


def _put(pages: "queue.Queue[Any]", page: Any, stop: threading.Event) -> None:
    while not stop.is_set():
        try:
            pages.put(page, timeout=0.1)
        except queue.Full:
            continue
        return


def _pages(
    client: DynamoReader, request: Mapping[str, Any], after: Item | None, budget: CapacityBudget
) -> Iterator[Page]:
    while True:
        start = {"ExclusiveStartKey": after} if after is not None else {}
        answer = client.scan(**request, **start, ReturnConsumedCapacity="TOTAL")
        budget.spend(answer.get("ConsumedCapacity", {}).get("CapacityUnits", 0.0))
        after = answer.get("LastEvaluatedKey")
        yield Page(request["Segment"], answer["Items"], after)
        if after is None:
            return


def key_written(key: Mapping[str, Any]) -> str:
    """An item's key as text, binary attributes and all."""
    return json.dumps(key, default=_as_base64)


def key_read(text: str) -> Item:
    """What `key_written` wrote, as a client takes it."""
    return {
        name: {"B": b64decode(typed["B"])} if "B" in typed else dict(typed) for name, typed in json.loads(text).items()
    }


def _as_base64(value: object) -> str:
    if isinstance(value, bytes):
        return b64encode(value).decode("ascii")
    raise TypeError(type(value).__name__)


def read_consistently(client: DynamoReader, table: str, keys: Sequence[Item], budget: CapacityBudget) -> list[Item]:
    """The items of these keys as they are now, by strongly consistent reads; absent ones are absent."""
    found: list[Item] = []
    for start in range(0, len(keys), _BATCH_GET_MAX):
        wanted: dict[str, Any] = {table: {"Keys": keys[start : start + _BATCH_GET_MAX], "ConsistentRead": True}}
        for attempt in range(_UNPROCESSED_TRIES):
            answer = _batch(client, table, wanted)
            budget.spend(sum(entry["CapacityUnits"] for entry in answer.get("ConsumedCapacity", ())))
            found.extend(answer["Responses"].get(table, ()))
            wanted = answer.get("UnprocessedKeys") or {}
            if not wanted:
                break
            budget.sleep(0.05 * 2**attempt)
        else:
            raise SourceUnreadableError(f"{table} keeps leaving keys unread: it is throttled", hint=_WHEN_THROTTLED)
    return found


def _batch(client: DynamoReader, table: str, wanted: Mapping[str, Any]) -> Any:
    try:
        return client.batch_get_item(RequestItems=wanted, ReturnConsumedCapacity="TOTAL")
    except (ClientError, BotoCoreError) as error:
        raise unreadable(table, error) from error

"""Reading a DynamoDB table whole: a parallel Scan that keeps to a budget of read capacity."""

import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from botocore.exceptions import BotoCoreError, ClientError

from config.errors import LakestreamError

Item = dict[str, Any]
"""As DynamoDB says it: name -> {"S": ...}."""

_BATCH_GET_MAX: Final = 100
_PAGES_WAITING_MAX: Final = 4
_UNPROCESSED_TRIES: Final = 8


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


def scan(client: DynamoReader, table: str, *, segments: int, budget: CapacityBudget) -> Iterator[Sequence[Item]]:
    """Every item of the table, a page at a time, the segments read side by side."""
    pages: queue.Queue[Sequence[Item] | Exception | None] = queue.Queue(maxsize=_PAGES_WAITING_MAX)
    stop = threading.Event()

    def read(segment: int) -> None:
        try:
            for page in _segment_pages(client, table, segment, segments, budget):
                _put(pages, page, stop)
                if stop.is_set():
                    return
            _put(pages, None, stop)
        except (ClientError, BotoCoreError) as error:
            _put(pages, error, stop)

    threads = [threading.Thread(target=read, args=(segment,), name=f"scan-{segment}") for segment in range(segments)]
    for thread in threads:
        thread.start()
    try:
        yield from _until_all_ended(pages, segments, table)
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def _until_all_ended(
    pages: "queue.Queue[Sequence[Item] | Exception | None]", segments: int, table: str
) -> Iterator[Sequence[Item]]:
    ended = 0
    while ended < segments:
        page = pages.get()
        if isinstance(page, Exception):
            raise SourceUnreadableError(
                f"cannot scan {table}: {' '.join(str(page).split())}",
                hint="the role needs dynamodb:Scan and BatchGetItem on it",
            ) from page
        if page is None:
            ended += 1
        else:
            yield page


def _put(pages: "queue.Queue[Any]", page: Any, stop: threading.Event) -> None:
    while not stop.is_set():
        try:
            pages.put(page, timeout=0.1)
        except queue.Full:
            continue
        return


def _segment_pages(
    client: DynamoReader, table: str, segment: int, segments: int, budget: CapacityBudget
) -> Iterator[Sequence[Item]]:
    start: dict[str, Any] = {}
    while True:
        page = client.scan(
            TableName=table, Segment=segment, TotalSegments=segments, ReturnConsumedCapacity="TOTAL", **start
        )
        budget.spend(page.get("ConsumedCapacity", {}).get("CapacityUnits", 0.0))
        yield page["Items"]
        if "LastEvaluatedKey" not in page:
            return
        start = {"ExclusiveStartKey": page["LastEvaluatedKey"]}


def read_consistently(client: DynamoReader, table: str, keys: Sequence[Item], budget: CapacityBudget) -> list[Item]:
    """The items of these keys as they are now, by strongly consistent reads; absent ones are absent."""
    found: list[Item] = []
    for start in range(0, len(keys), _BATCH_GET_MAX):
        wanted: dict[str, Any] = {table: {"Keys": keys[start : start + _BATCH_GET_MAX], "ConsistentRead": True}}
        for attempt in range(_UNPROCESSED_TRIES):
            answer = client.batch_get_item(RequestItems=wanted, ReturnConsumedCapacity="TOTAL")
            budget.spend(sum(entry["CapacityUnits"] for entry in answer.get("ConsumedCapacity", ())))
            found.extend(answer["Responses"].get(table, ()))
            wanted = answer.get("UnprocessedKeys") or {}
            if not wanted:
                break
            budget.sleep(0.05 * 2**attempt)
        else:
            raise SourceUnreadableError(
                f"{table} keeps leaving keys unread: it is throttled", hint="lower --read-capacity, or try again later"
            )
    return found

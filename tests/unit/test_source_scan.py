from collections.abc import Mapping
from typing import Any

import pytest
from botocore.exceptions import ClientError

from streaming_job.operations.source_scan import CapacityBudget, SourceUnreadableError, read_consistently, scan


class PagedTable:
    """Two items a page in each segment; BatchGetItem leaves the last key of a call unread."""

    def __init__(self, items: int, *, denied: bool = False) -> None:
        self.items = [{"id": {"S": str(number)}} for number in range(items)]
        self.denied = denied

    def scan(self, **request: Any) -> Mapping[str, Any]:
        if self.denied:
            raise ClientError({"Error": {"Code": "AccessDeniedException", "Message": "no"}}, "Scan")
        mine = self.items[request["Segment"] :: request["TotalSegments"]]
        start = int(request.get("ExclusiveStartKey", {"n": {"N": "0"}})["n"]["N"])
        page: dict[str, Any] = {"Items": mine[start : start + 2], "ConsumedCapacity": {"CapacityUnits": 1.0}}
        if start + 2 < len(mine):
            page["LastEvaluatedKey"] = {"n": {"N": str(start + 2)}}
        return page

    def batch_get_item(self, **request: Any) -> Mapping[str, Any]:
        ((table, wanted),) = request["RequestItems"].items()
        assert wanted["ConsistentRead"]
        keys = wanted["Keys"]
        answer: dict[str, Any] = {"Responses": {table: keys[:-1] if len(keys) > 1 else keys}}
        if len(keys) > 1:
            answer["UnprocessedKeys"] = {table: {"Keys": keys[-1:], "ConsistentRead": True}}
        return answer


class RefusingTable(PagedTable):
    def __init__(self, code: str) -> None:
        super().__init__(1)
        self.code = code

    def batch_get_item(self, **_: Any) -> Mapping[str, Any]:
        raise ClientError({"Error": {"Code": self.code, "Message": "no"}}, "BatchGetItem")


@pytest.mark.parametrize("segments", [1, 3, 7])
def test_a_parallel_scan_gives_every_item_once(segments: int) -> None:
    pages = scan(PagedTable(23), "t", segments=segments, budget=CapacityBudget())
    assert sorted(int(item["id"]["S"]) for page in pages for item in page) == list(range(23))


def test_a_scan_that_is_left_early_ends_its_threads() -> None:
    next(scan(PagedTable(1000), "t", segments=4, budget=CapacityBudget()))


def test_a_scan_that_is_denied_says_which_right_is_missing() -> None:
    with pytest.raises(SourceUnreadableError, match="dynamodb:Scan"):
        list(scan(PagedTable(3, denied=True), "t", segments=2, budget=CapacityBudget()))


@pytest.mark.parametrize(
    ("code", "mend"),
    [
        ("AccessDeniedException", "dynamodb:Scan and BatchGetItem"),
        ("ProvisionedThroughputExceededException", "lower --read-capacity"),
        ("ThrottlingException", "lower --read-capacity"),
    ],
)
def test_a_read_of_single_items_that_is_refused_or_throttled_says_what_to_do(code: str, mend: str) -> None:
    with pytest.raises(SourceUnreadableError, match=f"cannot read t: .*{code}") as raised:
        read_consistently(RefusingTable(code), "t", [{"id": {"S": "1"}}], CapacityBudget())
    assert mend in str(raised.value.hint)


def test_reads_wait_so_that_the_budget_of_capacity_is_kept() -> None:
    waited: list[float] = []
    budget = CapacityBudget(units_per_s=2.0, clock=lambda: 100.0, sleep=waited.append)
    for _ in range(3):
        budget.spend(1.0)
    assert waited == pytest.approx([0.5, 1.0])


def test_keys_a_batch_left_unread_are_asked_for_again() -> None:
    keys = [{"id": {"S": str(number)}} for number in range(250)]
    budget = CapacityBudget(sleep=lambda _: None)
    assert sorted(item["id"]["S"] for item in read_consistently(PagedTable(0), "t", keys, budget)) == sorted(
        key["id"]["S"] for key in keys
    )

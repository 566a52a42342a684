"""How many records the next PutRecords call may take: as many as fit, in stream order.

Filling each call from the front makes as few calls as any division that keeps the order.
"""

from collections.abc import Iterable
from typing import Protocol

from config.limits import KINESIS_PUT_BYTES_MAX, KINESIS_PUT_RECORDS_MAX


class Weighed(Protocol):
    @property
    def cost(self) -> int:
        """Bytes as Kinesis counts them: data and partition key."""


def fitting(
    pending: Iterable[Weighed],
    records_max: int = KINESIS_PUT_RECORDS_MAX,
    bytes_max: int = KINESIS_PUT_BYTES_MAX,
) -> int:
    """How many of the first records fit into one call; at least one, since each fits a record's own limit."""
    count = total = 0
    for weighed in pending:
        total += weighed.cost
        if count and (count == records_max or total > bytes_max):
            break
        count += 1
    return count

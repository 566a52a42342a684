"""Where a mapping puts batches it gives up: a bucket of their own, with the whole event."""

import json
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime

from infra.local.mapping.destination import document
from infra.local.mapping.event import event_of
from infra.local.mapping.lane import Discard
from tests.simulation.clock import HandClock
from tests.simulation.storage import FAILED_BATCHES, SimS3


@dataclass
class FailedBatches:
    s3: SimS3
    clock: HandClock
    is_kept: bool = True
    seen_faults: Counter[str] = field(default_factory=Counter)
    _count: int = 0

    def send(self, discard: Discard, shard: str) -> None:
        """Lambda puts it there whatever the account's own access to S3 is like just now."""
        self.seen_faults[f"mapping: gave up a batch, {discard.condition}"] += 1
        if not self.is_kept:
            return
        now = datetime.fromtimestamp(self.clock.ms / 1000, UTC)
        body = document(discard, shard=shard, stream_arn="arn", function_arn="arn", now=now)
        body["payload"] = event_of(discard.batch.changes).decode()
        self._count += 1
        self.s3.objects[FAILED_BATCHES, f"aws/lambda/mapping/{shard}/{self._count:06d}"] = json.dumps(body).encode()

"""S3 in memory, as a client of botocore's sees it: objects that may be refused, lost, or cut off by a kill."""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any, Final

from botocore.exceptions import ClientError

from tests.simulation.errors import KilledError
from tests.simulation.lake import ClaimUnreachableError
from tests.simulation.observations import Journal, Stored

BUCKET: Final = "lake-bucket"
FAILED_BATCHES: Final = "failed-batches"
LETTER_KEY: Final = "alias/dead-letters"


@dataclass
class SimS3:
    journal: Journal
    objects: dict[tuple[str, str], bytes] = field(default_factory=dict)
    lost: dict[tuple[str, str], bytes] = field(default_factory=dict)
    """Claim checks that somebody deleted, until they are put back."""
    is_down: bool = False
    kill_after_calls: int | None = None
    """The process that calls is gone after so many writes."""
    seen_faults: Counter[str] = field(default_factory=Counter)
    refused: int = 0
    """Writes that were refused."""

    def put_object(self, *, Bucket: str, Key: str, Body: bytes, **more: Any) -> None:  # noqa: N803
        self._fails("PutObject")
        self.objects[Bucket, Key] = Body
        self.journal.append(Stored(Key, Body, more.get("SSEKMSKeyId") == LETTER_KEY))
        self._dies()

    def get_object(self, *, Bucket: str, Key: str) -> Mapping[str, Any]:  # noqa: N803
        body = self.objects.get((Bucket, Key))
        if body is None:
            raise ClientError({"Error": {"Code": "NoSuchKey", "Message": Key}}, "GetObject")
        return {"ETag": sha256(body).hexdigest(), "Body": _Body(body)}

    def delete_object(self, *, Bucket: str, Key: str) -> None:  # noqa: N803
        self._fails("DeleteObject")
        self.objects.pop((Bucket, Key), None)
        self._dies()

    def get_paginator(self, _operation: str) -> "SimS3":
        return self

    def paginate(self, *, Bucket: str, Prefix: str) -> Iterator[Mapping[str, Any]]:  # noqa: N803
        names = sorted(name for bucket, name in self.objects if bucket == Bucket and name.startswith(Prefix))
        yield {"Contents": [{"Key": name} for name in names]}

    def get(self, bucket: str, key: str) -> bytes | None:
        """As the job fetches claim checks."""
        if self.is_down:
            self.seen_faults["s3: claim check unreachable"] += 1
            raise ClaimUnreachableError(key)
        return self.objects.get((bucket, key))

    def names(self, prefix: str) -> list[str]:
        return sorted(name for bucket, name in self.objects if bucket == BUCKET and name.startswith(prefix))

    def lose_claims(self) -> None:
        for name in self.names("claims/"):
            self.lost[BUCKET, name] = self.objects.pop((BUCKET, name))
            self.seen_faults["s3: claim check deleted"] += 1

    def find_claims(self) -> None:
        self.objects |= self.lost
        self.lost.clear()

    def _fails(self, operation: str) -> None:
        if self.is_down:
            self.refused += 1
            self.seen_faults["s3: refused"] += 1
            raise ClientError({"Error": {"Code": "SlowDown", "Message": "no"}}, operation)

    def _dies(self) -> None:
        if self.kill_after_calls is not None:
            self.kill_after_calls -= 1
            if self.kill_after_calls <= 0:
                self.kill_after_calls = None
                raise KilledError


class _Body:
    def __init__(self, body: bytes) -> None:
        self._body = body

    def read(self) -> bytes:
        return self._body

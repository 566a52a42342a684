"""What came of one invocation, and what a response says about its batch."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from infra.local.mapping.event import Change


@dataclass(frozen=True, slots=True)
class Returned:
    """The function returned; its response may still name failures."""

    response: Any


@dataclass(frozen=True, slots=True)
class Failed:
    """The function raised, crashed, timed out, or returned what is not JSON."""

    error: str
    message: str


@dataclass(frozen=True, slots=True)
class NotInvoked:
    """No execution environment could be had: AWS's throttle. It uses up no retry."""

    message: str


Outcome = Returned | Failed | NotInvoked

WHOLE = 0
"""Failed from the batch's first record on."""


def failed_from(response: Any, changes: Sequence[Change]) -> int | None:
    """The index of the first record to be tried again, None when all are done (`ReportBatchItemFailures`).

    The lowest sequence number is the checkpoint. An answer that cannot be understood fails the batch as a whole:
    the documented empty, null and misnamed identifiers, and likewise what names no record of the batch.
    """
    if response is None or response in ({}, ""):
        return None
    if not isinstance(response, dict):
        return WHOLE
    failures = response.get("batchItemFailures")
    if failures is None or failures == []:
        return None
    if not isinstance(failures, list):
        return WHOLE
    index_of = {change.sequence: index for index, change in enumerate(changes)}
    indices = [index_of.get(_identifier(failure)) for failure in failures]
    known = [index for index in indices if index is not None]
    return min(known) if len(known) == len(indices) else WHOLE


def _identifier(failure: Any) -> str:
    identifier = failure.get("itemIdentifier") if isinstance(failure, dict) else None
    return identifier if isinstance(identifier, str) else ""


def parse(payload: bytes) -> Any:
    return json.loads(payload) if payload else None

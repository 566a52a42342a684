"""Functions for the mapping's tests, each written to do one thing; they run in the mapping's own environments.

What they are told to do stands in their environment, what they saw goes to the file SEEN, a JSON line each.
"""

import json
import os
import sys
import time
from typing import Any


def _note(**seen: Any) -> None:
    with open(os.environ["SEEN"], "a", encoding="utf-8") as file:  # noqa: PTH123 - one write, one line, at the end
        file.write(json.dumps(seen) + "\n")


def _ids(event: dict[str, Any]) -> list[str]:
    return [record["dynamodb"]["Keys"]["id"]["S"] for record in event["Records"]]


def records(event: dict[str, Any], context: Any) -> dict[str, Any]:
    """Keeps the events, and what the context says."""
    remaining_ms = context.get_remaining_time_in_millis()
    facts = {
        name: getattr(context, name)
        for name in (
            "aws_request_id",
            "function_name",
            "function_version",
            "invoked_function_arn",
            "memory_limit_in_mb",
            "log_group_name",
            "log_stream_name",
        )
    }
    _note(event=event, context=facts | {"remaining_ms": remaining_ms}, variables=dict(os.environ), pid=os.getpid())
    sys.stdout.write("a plain line\n")
    return {"batchItemFailures": []}


def poison(event: dict[str, Any], context: Any) -> dict[str, Any]:
    """Raises, hangs, crashes or returns nonsense on a batch that holds the item of that name."""
    ids = _ids(event)
    _note(ids=ids, pid=os.getpid())
    if "raise" in ids:
        raise ValueError("no")
    if "hang" in ids:
        time.sleep(600)
    if "crash" in ids:
        os._exit(7)
    if "nonsense" in ids:
        return {"not JSON": object()}
    if "report" in ids:
        number = event["Records"][ids.index("report")]["dynamodb"]["SequenceNumber"]
        return {"batchItemFailures": [{"itemIdentifier": number}]}
    return {"batchItemFailures": []}


def slow(event: dict[str, Any], context: Any) -> None:
    """Says when it begins and when it ends; ends when the file GO appears."""
    _note(begun=_ids(event), pid=os.getpid())
    while not os.path.exists(os.environ["GO"]):  # noqa: PTH110
        time.sleep(0.01)
    _note(ended=_ids(event), pid=os.getpid())

"""The real bridge, which notes how many records each batch held before it sends them."""

import os
from typing import Any

from bridge_lambda.handler import handler as bridge


def handler(event: dict[str, Any], context: Any) -> Any:
    with open(os.environ["SEEN"], "a", encoding="utf-8") as file:  # noqa: PTH123 - one write, one line, at the end
        file.write(f"{len(event['Records'])}\n")
    return bridge(event, context)

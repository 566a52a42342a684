"""PutItem without botocore's walks over the item, which take longer than all the rest of a write.

It checks, copies and serialises attribute by attribute; but an item here is DynamoDB's JSON already. What the load does
not take of the machine, the job beside it has.
"""

from typing import Any, Final

import orjson

_ITEM: Final = "lakestream_item"


def writing_items_as_they_are(client: Any) -> Any:
    """The same client, from now on; items with binary attributes then need them as base64 text."""
    client.meta.events.register("before-parameter-build.dynamodb.PutItem", _set_item_aside)
    client.meta.events.register("before-call.dynamodb.PutItem", _put_item_back)
    return client


def _set_item_aside(params: dict[str, Any], context: dict[str, Any], **_: Any) -> None:
    context[_ITEM] = params["Item"]
    params["Item"] = {}


def _put_item_back(params: dict[str, Any], context: dict[str, Any], **_: Any) -> None:
    params["body"] = orjson.dumps({**orjson.loads(params["body"]), "Item": context[_ITEM]})

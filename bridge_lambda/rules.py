"""A table's rules as the bridge applies them: what is dropped, hashed, filtered, and where the producer's clock is.

`python -m config.rules` compiles and checks them; here they are only read. They are pure but for `load_rules`, which
reads one file and asks `read_secret` for the keys of tables that hash.
"""

import hmac
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import orjson

from bridge_lambda.errors import RefusalError
from bridge_lambda.images import canonical_number, digest
from bridge_lambda.masks import Mask, mask_of
from bridge_lambda.walk import Image

RULES_FORMAT: Final = 1

AttributePath = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class HashKey:
    id: str
    """Names the key's version; it stands in every envelope whose rules hash."""
    secret: bytes = field(repr=False)


ReadSecret = Callable[[str, str | None], HashKey]
"""(name, version or None for the current one) -> the key; RefusalError where there is none."""


@dataclass(frozen=True, slots=True)
class Filter:
    path: AttributePath
    equals: frozenset[tuple[str, Any]]

    def admits(self, image: Image) -> bool:
        typed = find(image, self.path)
        return typed is not None and _comparable(typed) in self.equals


@dataclass(frozen=True, slots=True)
class TableRules:
    table: str
    label: str
    """`<version>` or `<version>:<key id>`, as the envelope's `rules` says it."""
    key: tuple[str, ...]
    masks: Mask
    hash_key: HashKey | None
    keep_old_image: bool
    filter: Filter | None
    origin: tuple[AttributePath, int] | None
    """Where the producer's clock is, and how many milliseconds its unit has."""

    def mask(self, image: Image) -> Image:
        """The image without what the rules drop, and with hashes for what they hash."""
        return _masked(image, self.masks, self._secret) if self.masks else image

    def hashed(self, typed: Image) -> str:
        return hashed(typed, self._secret)

    @property
    def _secret(self) -> bytes:
        return self.hash_key.secret if self.hash_key else b""

    def admits(self, image: Image) -> bool:
        """Whether the item may leave the source at all."""
        return self.filter is None or self.filter.admits(image)

    def origin_ms(self, image: Image) -> int | None:
        """The producer's own time; None where the item has none that is a time."""
        if self.origin is None:
            return None
        path, ms_per_unit = self.origin
        typed = find(image, path)
        return _time_ms(typed, ms_per_unit) if typed is not None else None


def find(image: Image, path: AttributePath) -> Image | None:
    """The typed value at the path through maps."""
    *parents, last = path
    for name in parents:
        typed = image.get(name)
        if typed is None or "M" not in typed:
            return None
        image = typed["M"]
    found: Image | None = image.get(last)
    return found


_TIME_MS_MAX: Final = 10**14
"""The year 5138: what claims to be later is no time."""
_TIME_DIGITS_MAX: Final = 14


def _time_ms(typed: Image, ms_per_unit: int) -> int | None:
    text: Any = typed.get("N", typed.get("S"))
    try:
        # Most are digits alone, and int is four times as fast; the length keeps a long text from a long conversion.
        is_whole = text.isdecimal() and len(text) <= _TIME_DIGITS_MAX
        time_ms = (int(text) if is_whole else Decimal(text)) * ms_per_unit
        return int(time_ms) if 0 <= time_ms < _TIME_MS_MAX else None
    except (ArithmeticError, AttributeError, TypeError, ValueError):
        return None


def _comparable(typed: Image) -> tuple[str, Any]:
    ((tag, value),) = typed.items()
    if tag == "N":
        return (tag, canonical_number(value))
    return (tag, value if isinstance(value, str | bool) else None)


# --- masking ----------------------------------------------------------------------------------------------------------


def _masked(attributes: Image, mask: Mask, secret: bytes) -> dict[str, Any]:
    """A copy along the masked paths only; the rest is shared with the record, which stays whole for a dead letter."""
    masked = dict(attributes)
    for name in mask.drop:
        masked.pop(name, None)
    for name in mask.hash:
        if name in masked:
            masked[name] = {"S": hashed(masked[name], secret)}
    for name, below in mask.below:
        if name in masked:
            masked[name] = _masked_below(masked[name], below, secret)
    return masked


def _masked_below(typed: Image, mask: Mask, secret: bytes) -> Image:
    """Lists are passed through: `signals.body` is the `body` of every element."""
    if "M" in typed:
        return {"M": _masked(typed["M"], mask, secret)}
    if "L" in typed:
        return {"L": [_masked_below(element, mask, secret) for element in typed["L"]]}
    return typed


def hashed(typed: Image, secret: bytes) -> str:
    """A keyed hash of the typed value: likely values can't be tried out, and `1` and `"1"` differ.

    It is the same in every attribute, so that hashed attributes still join.
    """
    text = typed.get("S")
    return _hashed_text(text, secret) if isinstance(text, str) else _hmac(digest({"": typed}), secret)


@lru_cache(maxsize=4096)
def _hashed_text(text: str, secret: bytes) -> str:
    """The same user is in many records, and in both images of most."""
    return _hmac(digest({"": {"S": text}}), secret)


def _hmac(text: str, secret: bytes) -> str:
    return hmac.digest(secret, text.encode("ascii"), "sha256").hex()


# --- loading ----------------------------------------------------------------------------------------------------------


def load_rules(path: Path, read_secret: ReadSecret) -> dict[str, TableRules]:
    """Compiled rules by table. Whatever is wrong with them refuses the start: nothing may pass unmasked."""
    hint = "compile them anew: python -m config.rules OUT.json"
    try:
        compiled = orjson.loads(path.read_bytes())
    except OSError as error:
        raise RefusalError(f"cannot read the rules at {path}: {error.strerror}", hint=hint) from error
    except orjson.JSONDecodeError as error:
        raise RefusalError(f"{path} is not JSON: {error}", hint=hint) from error
    if not isinstance(compiled, dict) or compiled.get("format") != RULES_FORMAT:
        raise RefusalError(f"{path} is not of rules format {RULES_FORMAT}", hint=hint)
    try:
        return {table: table_rules(table, body, read_secret) for table, body in compiled["tables"].items()}
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise RefusalError(f"{path} was not made by this version's compiler: {error!r}", hint=hint) from error


def table_rules(table: str, body: Mapping[str, Any], read_secret: ReadSecret) -> TableRules:
    hash_key = read_secret(body["secret"]["name"], body["secret"]["version"]) if body["hash"] else None
    filter_ = body["filter"]
    origin = body["origin"]
    return TableRules(
        table=table,
        label=f"{body['version']}:{hash_key.id}" if hash_key else str(body["version"]),
        key=tuple(body["key"]),
        masks=mask_of(body["drop"], body["hash"]),
        hash_key=hash_key,
        keep_old_image=body["keep_old_image"],
        filter=Filter(tuple(filter_["path"]), frozenset((tag, value) for tag, value in filter_["equals"]))
        if filter_
        else None,
        origin=(tuple(origin["path"]), origin["ms_per_unit"]) if origin else None,
    )

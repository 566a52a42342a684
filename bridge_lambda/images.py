"""DynamoDB JSON to plain JSON and back, exactly; and the digest that tells two items apart.

Plain JSON keeps numbers as the literals they arrived in, binary as base64, sets as sorted arrays. What that loses is
listed in `types`: JSON Pointer to `B`, `SS`, `NS`, `BS`, or `N` where a number's text is quoted, because it is no JSON
literal, or is `-0`, which readers make 0.

The canonical form of an item is its plain JSON with names sorted and numbers normalised, then, where there are any, a
newline and its `types`. Most items hold neither sets nor binary and arrive with canonical numbers: one walk and one
serialisation give them the text that is sent and the text that is digested. Only the others are walked with care.
"""

import binascii
import json
import re
from base64 import b64decode, b64encode
from collections.abc import Callable, Mapping
from decimal import Decimal
from hashlib import sha256
from typing import Any, Final, NamedTuple

from orjson import OPT_SORT_KEYS, Fragment, JSONEncodeError, dumps

from bridge_lambda.walk import Image, Masking, Walk

MALFORMED: Final = (JSONEncodeError, RecursionError, TypeError, ValueError, ArithmeticError, AttributeError, KeyError)
"""What walking something else than DynamoDB JSON raises. Their messages may quote the item: never pass them on."""

_CANONICAL: Final = r"(?!-0(?![.]))-?(?:0|[1-9][0-9]*)(?:\.[0-9]*[1-9])?"
_all_canonical: Final = re.compile(rf"(?:{_CANONICAL},)*").fullmatch
_json_literal: Final = re.compile(r"(?!-0\Z)-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?").fullmatch
_number: Final = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]{1,4})?").fullmatch
_SETS: Final = frozenset(("SS", "NS", "BS"))
_MAGNITUDE_MAX: Final = 130
"""DynamoDB's numbers lie between 1E-130 and 9.99E+125; what claims to be further out is no number of DynamoDB's."""


class Encoded(NamedTuple):
    text: bytes
    """Plain JSON, names sorted."""
    types: dict[str, str]
    """Pointers below the item itself; see `rooted`."""
    digest: str | None
    """SHA-256 of the canonical form, where it was asked for."""


def encode(image: Image, masking: Masking | None = None, *, digested: bool = False) -> Encoded:
    """`digested` asks for the digest too. One of MALFORMED where the image is not DynamoDB JSON."""
    walk = Walk(masking)
    tree = walk.tree(image)
    canonical = _are_canonical(walk.numbers)
    if walk.lossy or not canonical:
        masked = masking.mask(image) if masking else image
        return _encode_with_care(masked, canonical=canonical, digested=digested)
    text = dumps(tree, option=OPT_SORT_KEYS)
    return Encoded(text, {}, sha256(text).hexdigest() if digested else None)


def plain(image: Image) -> bytes:
    """The item as plain JSON text."""
    return encode(image).text


def digest(image: Image) -> str:
    """SHA-256, in hex, of the canonical form: equal items have equal digests however their text differs."""
    return encode(image, digested=True).digest or ""


def rooted(pointers: Mapping[str, str], root: str) -> dict[str, str]:
    """Pointers as the envelope has them: `/a` of the new image is `/new/a`."""
    return {root + pointer: tag for pointer, tag in pointers.items()}


def canonical(image: Image, masking: Masking | None = None) -> tuple[bytes, dict[str, str]]:
    """Plain JSON with names sorted and numbers normalised, and its types: what a `key` is written as."""
    walk = Walk(masking)
    tree = walk.tree(image)
    if walk.lossy or not _are_canonical(walk.numbers):
        masked = masking.mask(image) if masking else image
        return _canonical_with_care(masked), _lasting(types_of(masked))
    return dumps(tree, option=OPT_SORT_KEYS), {}


def _are_canonical(numbers: list[str]) -> bool:
    """All of them at once: most items hold whole numbers only, and digits alone are quickly told.

    Where it takes the match, the commas are counted so that no number can pass for two.
    """
    if not numbers:
        return True
    if "".join(numbers).encode().isdigit() and min(numbers) >= "1":
        return True
    joined = ",".join([*numbers, ""])
    return _all_canonical(joined) is not None and joined.count(",") == len(numbers)


# --- with care: sets, binary, and numbers that are not canonical ------------------------------------------------------


def _encode_with_care(image: Image, *, canonical: bool, digested: bool) -> Encoded:
    text = dumps(_map_with_care(image, _literal), option=OPT_SORT_KEYS)
    pointers = types_of(image)
    if not digested:
        return Encoded(text, pointers, None)
    lasting = _lasting(pointers)
    form = text if canonical else _canonical_with_care(image)
    if lasting:
        form += b"\n" + dumps(lasting, option=OPT_SORT_KEYS)
    return Encoded(text, pointers, sha256(form).hexdigest())


def _lasting(pointers: dict[str, str]) -> dict[str, str]:
    """What stays of the types when numbers are normalised: those are always literals."""
    return {pointer: tag for pointer, tag in pointers.items() if tag != "N"}


def _canonical_with_care(image: Image) -> bytes:
    return dumps(_map_with_care(image, _canonical_number), option=OPT_SORT_KEYS)


def _map_with_care(attributes: Image, number: Callable[[str], Any]) -> dict[str, Any]:
    return {name: _value_with_care(typed, number) for name, typed in attributes.items()}


def _value_with_care(typed: Image, number: Callable[[str], Any]) -> Any:
    ((tag, value),) = typed.items()
    if tag == "N":
        return number(value)
    if tag == "M":
        return _map_with_care(value, number)
    if tag == "L":
        return [_value_with_care(element, number) for element in value]
    if tag == "NULL":
        return None
    if (tag == "S" and isinstance(value, str)) or (tag == "BOOL" and isinstance(value, bool)):
        return value
    return _binary_or_set(tag, value, number)


def _binary_or_set(tag: str, value: Any, number: Callable[[str], Any]) -> Any:
    if tag == "B":
        return _base64(value)
    if not isinstance(value, list):
        raise ValueError(tag)  # noqa: TRY004 - what is not DynamoDB JSON is one thing
    if tag == "SS" and all(isinstance(member, str) for member in value):
        return sorted(value)
    if tag == "BS":
        return sorted(_base64(member) for member in value)
    if tag == "NS":
        return [number(member) for member in sorted(value, key=lambda text: Decimal(_checked(text)))]
    raise ValueError(tag)


def _base64(value: Any) -> str:
    """Events carry base64, clients bytes; both become the one base64 that stands for those bytes."""
    try:
        raw = value if isinstance(value, bytes) else b64decode(value, validate=True)
    except binascii.Error:
        raise ValueError("base64") from None
    return b64encode(raw).decode("ascii")


def _checked(number: str) -> str:
    if _number(number) is None or abs(Decimal(number).adjusted()) > _MAGNITUDE_MAX:
        raise ValueError("number")
    return number


def _literal(number: str) -> Any:
    """The number as it arrived: a JSON literal where its text is one, else in quotes."""
    return Fragment(_checked(number)) if _json_literal(number) else _checked(number)


def canonical_number(number: str) -> str:
    """Plain notation, no needless zeros, no minus before zero: `+1.50E1` and `15` are the same text."""
    value = Decimal(_checked(number))
    text = format(value, "f") if value else "0"
    return text.rstrip("0").rstrip(".") if "." in text else text


def _canonical_number(number: str) -> Fragment:
    return Fragment(canonical_number(number))


# --- types and the way back -------------------------------------------------------------------------------------------


def types_of(image: Image) -> dict[str, str]:
    """What plain JSON loses of the item, by pointers below it."""
    found: dict[str, str] = {}
    for name, typed in image.items():
        _mark(typed, "/" + _escaped(name), found)
    return found


def _mark(typed: Image, pointer: str, found: dict[str, str]) -> None:
    ((tag, value),) = typed.items()
    if tag == "M":
        for name, child in value.items():
            _mark(child, f"{pointer}/{_escaped(name)}", found)
    elif tag == "L":
        for index, child in enumerate(value):
            _mark(child, f"{pointer}/{index}", found)
    elif tag == "B" or tag in _SETS or (tag == "N" and _json_literal(value) is None):
        found[pointer] = tag


def _escaped(name: str) -> str:
    return name.replace("~", "~0").replace("/", "~1") if "~" in name or "/" in name else name


class Literal(NamedTuple):
    """A number as it is written, apart from a string that reads the same."""

    text: str


def parse(text: bytes | str) -> Any:
    """JSON with its numbers kept as the text they are."""
    return json.loads(text, parse_int=Literal, parse_float=Literal)


def restore(tree: Mapping[str, Any], types: Mapping[str, str], root: str = "") -> dict[str, Any]:
    """The item again, as DynamoDB JSON, from parsed plain JSON (`parse`) and the `types` below `root`."""
    return {name: _restored(value, types, f"{root}/{_escaped(name)}") for name, value in tree.items()}


def _restored(value: Any, types: Mapping[str, str], pointer: str) -> dict[str, Any]:
    tag = types.get(pointer)
    if tag is not None:
        return {tag: [_text(member) for member in value] if tag in _SETS else _text(value)}
    if isinstance(value, dict):
        return {"M": restore(value, types, pointer)}
    if isinstance(value, list):
        return {"L": [_restored(element, types, f"{pointer}/{index}") for index, element in enumerate(value)]}
    if isinstance(value, Literal):
        return {"N": value.text}
    return {"NULL": True} if value is None else {"S" if isinstance(value, str) else "BOOL": value}


def _text(value: Any) -> str:
    """A number that was no literal stands in quotes."""
    return value.text if isinstance(value, Literal) else str(value)

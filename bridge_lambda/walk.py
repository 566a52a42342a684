"""The hot walk: an item to the plain tree that orjson writes, masked on the way.

Numbers go in unchecked and are checked together afterwards, by one match over all of them. Sets and binary are only
noted: an item that holds them is walked again, with care, by `images`.
"""

from typing import Any, Final, Protocol

from orjson import Fragment

from bridge_lambda.loops import MISFITS, loop_for
from bridge_lambda.masks import Mask

Image = dict[str, Any]
"""An item as DynamoDB says it: name -> {"S": ...}, {"N": ...}, ..."""


class Masking(Protocol):
    """A table's rules, as far as they take anything out of an image."""

    @property
    def masks(self) -> Mask: ...

    def hashed(self, typed: Image) -> str:
        """The keyed hash that stands in the attribute's place."""
        ...

    def apply(self, image: Image) -> Image:
        """A masked copy, for the walk with care; the image itself stays whole."""
        ...


def plain_tree(image: Image, masking: Masking | None, numbers: list[str], lossy: list[str]) -> dict[str, Any]:
    """Afterwards `numbers` has the texts of all its numbers, and `lossy` the types that plain JSON has no place for."""
    return _masked(image, masking.masks, masking, numbers, lossy) if masking else _map(image, numbers, lossy)


def _map(attributes: Image, numbers: list[str], lossy: list[str]) -> dict[str, Any]:
    """Flat on purpose: most of the bridge's time is spent in this loop, and in those of `loops`."""
    tree: dict[str, Any] = {}
    for name, typed in attributes.items():
        if "S" in typed:
            tree[name] = typed["S"]
        elif "N" in typed:
            number = typed["N"]
            numbers.append(number)
            tree[name] = Fragment(number)
        elif "M" in typed:
            tree[name] = _map(typed["M"], numbers, lossy)
        elif "L" in typed:
            tree[name] = _list(typed["L"], numbers, lossy)
        else:
            tree[name] = _rare(typed, numbers, lossy)
    return tree


def _list(elements: list[Any], numbers: list[str], lossy: list[str]) -> list[Any]:
    plain = _by_loop(elements, _UNMASKED, numbers)
    for element in elements[len(plain) :] if plain else elements:
        if "M" in element:
            plain.append(_map(element["M"], numbers, lossy))
        elif "S" in element:
            plain.append(element["S"])
        else:
            plain.append(_map({"": element}, numbers, lossy)[""])
    return plain


def _by_loop(elements: list[Any], mask: Mask, numbers: list[str]) -> list[Any]:
    """The plain trees of the first elements that are alike; a number of the first misfit may be noted twice."""
    plain: list[Any] = []
    loop = loop_for(elements, mask)
    if loop is not None:
        try:  # noqa: SIM105 - suppress costs as much as an element
            loop(elements, plain, numbers)
        except MISFITS:
            pass
    return plain


def _rare(typed: Image, numbers: list[str], lossy: list[str]) -> Any:
    """What is left: BOOL and NULL; sets and binary are only noted, the item will be walked with care."""
    ((tag, value),) = typed.items()
    if tag == "BOOL" and isinstance(value, bool):
        return value
    if tag == "NULL":
        return None
    if tag == "NS":
        numbers.extend(value)
    lossy.append(tag)
    return None


# --- under a mask: what is dropped or hashed is not walked at all -----------------------------------------------------


def _masked(attributes: Image, mask: Mask, masking: Masking, numbers: list[str], lossy: list[str]) -> dict[str, Any]:
    kept = attributes.copy()
    for name in mask.drop:
        kept.pop(name, None)
    hashed = {name: masking.hashed(kept.pop(name)) for name in mask.hash if name in kept}
    below = [(name, deeper, kept.pop(name)) for name, deeper in mask.below if name in kept]
    tree = _map(kept, numbers, lossy)
    for name, deeper, typed in below:
        tree[name] = _masked_value(typed, deeper, masking, numbers, lossy)
    tree |= hashed
    return tree


def _masked_value(typed: Image, mask: Mask, masking: Masking, numbers: list[str], lossy: list[str]) -> Any:
    """Lists are passed through: `signals.body` is the `body` of every element."""
    if "M" in typed:
        return _masked(typed["M"], mask, masking, numbers, lossy)
    if "L" in typed:
        elements = typed["L"]
        plain = _by_loop(elements, mask, numbers)
        plain += [_masked_value(element, mask, masking, numbers, lossy) for element in elements[len(plain) :]]
        return plain
    return _map({"": typed}, numbers, lossy)[""]


_UNMASKED: Final = Mask()

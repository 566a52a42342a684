"""The hot walk: an item to the plain tree that orjson writes, masked on the way.

Numbers go in unchecked and are checked together afterwards, by one match over all of them. Sets and binary are only
noted: an item that holds them is walked again, with care, by `images`.
"""

from typing import Any, Protocol

from orjson import Fragment

from bridge_lambda.masks import UNMASKED, Mask
from bridge_lambda.shapes import for_list, for_map

Image = dict[str, Any]
"""An item as DynamoDB says it: name -> {"S": ...}, {"N": ...}, ..."""


class Masking(Protocol):
    """A table's rules, as far as they take anything out of an image."""

    @property
    def masks(self) -> Mask: ...

    def hashed(self, typed: Image) -> str:
        """The keyed hash that stands in the attribute's place."""
        ...

    def mask(self, image: Image) -> Image:
        """A masked copy, for the walk with care; the image itself stays whole."""
        ...


class Walk:
    """Over one item; what its rules drop is not looked at."""

    __slots__ = ("_masking", "lossy", "numbers")

    def __init__(self, masking: Masking | None) -> None:
        self._masking = masking
        self.numbers: list[str] = []
        """The texts of all the numbers in the tree."""
        self.lossy: list[str] = []
        """The types met that plain JSON has no place for."""

    def tree(self, image: Image) -> dict[str, Any]:
        return self._map(image, self._masking.masks if self._masking else UNMASKED)

    # What the functions that `shapes` makes call, too.

    def hashed(self, typed: Image) -> str | None:
        return self._masking.hashed(typed) if self._masking else None

    def trees(self, elements: list[Any], mask: Mask) -> list[Any]:
        """Paths pass through lists: `signals.body` is the `body` of every element."""
        plain: list[Any] = []
        if (made := mask.shapes.list_before) is not None:
            made(elements, self, plain)
        if not plain and (made := for_list(elements, mask)) is not None:
            made(elements, self, plain)
        if len(plain) < len(elements):
            plain += [self.value(element, mask) for element in elements[len(plain) :]]
        return plain

    def value(self, typed: Image, mask: Mask) -> Any:
        if "S" in typed:
            return typed["S"]
        if "N" in typed:
            number = typed["N"]
            self.numbers.append(number)
            return Fragment(number)
        if "M" in typed:
            return self._map(typed["M"], mask)
        if "L" in typed:
            return self.trees(typed["L"], mask)
        return self._rare(typed)

    def _map(self, attributes: Image, mask: Mask) -> dict[str, Any]:
        tree: dict[str, Any] | None = None
        if (made := mask.shapes.map_before.get(len(attributes))) is not None:
            tree = made(attributes, self)
        if tree is None and (made := for_map(attributes, mask)) is not None:
            tree = made(attributes, self)
        if tree is not None:
            return tree
        below = dict(mask.below)
        return {
            name: self.hashed(typed) if name in mask.hash else self.value(typed, below.get(name, UNMASKED))
            for name, typed in attributes.items()
            if name not in mask.drop
        }

    def _rare(self, typed: Image) -> Any:
        """What is left: BOOL and NULL; sets and binary are only noted."""
        ((tag, value),) = typed.items()
        if tag == "BOOL" and isinstance(value, bool):
            return value
        if tag == "NULL":
            return None
        if tag == "NS":
            self.numbers.extend(value)
        self.lossy.append(tag)
        return None

"""What a table's rules take out of its items: a tree of names, as the items are trees."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

Made = Callable[..., Any]
"""A function that `shapes` has made."""


@dataclass(slots=True)
class Shapes:
    """What `shapes` has made for maps under one mask."""

    of_maps: dict[tuple[str, ...], Made | None] = field(default_factory=dict)
    """By what they look like."""
    of_lists: dict[tuple[str, ...], Made | None] = field(default_factory=dict)
    """For lists of maps, by what the first of them looks like."""
    map_before: dict[int, Made | None] = field(default_factory=dict)
    """By the number of names, the last: mostly the next map fits it, too, and trying takes less than looking it up."""
    list_before: Made | None = None


@dataclass(frozen=True, slots=True)
class Mask:
    """What becomes of a map's attributes, by name."""

    drop: tuple[str, ...] = ()
    hash: tuple[str, ...] = ()
    below: tuple[tuple[str, "Mask"], ...] = ()
    shapes: Shapes = field(default_factory=Shapes, repr=False, compare=False)

    def __bool__(self) -> bool:
        return bool(self.drop or self.hash or self.below)

    def __contains__(self, name: str) -> bool:
        return name in self.drop or name in self.hash or any(name == parent for parent, _ in self.below)


UNMASKED: Final = Mask()


def mask_of(drop: Sequence[Sequence[str]], hash_: Sequence[Sequence[str]]) -> Mask:
    """Of paths none of which begins with another."""
    below = {path[0] for path in (*drop, *hash_) if len(path) > 1}
    return Mask(
        drop=tuple(path[0] for path in drop if len(path) == 1),
        hash=tuple(path[0] for path in hash_ if len(path) == 1),
        below=tuple((name, mask_of(_under(name, drop), _under(name, hash_))) for name in sorted(below)),
    )


def _under(name: str, paths: Sequence[Sequence[str]]) -> list[Sequence[str]]:
    return [path[1:] for path in paths if path[0] == name and len(path) > 1]

"""What a table's rules take out of its items: a tree of names, as the items are trees."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

Loop = Callable[[list[Any], list[Any], list[str]], None]
"""(elements, where their plain trees go, where the texts of their numbers go); see `loops`."""


@dataclass(frozen=True, slots=True)
class Mask:
    """What becomes of a map's attributes, by name."""

    drop: tuple[str, ...] = ()
    hash: tuple[str, ...] = ()
    below: tuple[tuple[str, "Mask"], ...] = ()
    loops: dict[tuple[str, ...], Loop | None] = field(default_factory=dict, repr=False, compare=False)
    """What `loops` has made for lists of maps under this mask."""

    def __bool__(self) -> bool:
        return bool(self.drop or self.hash or self.below)

    def __contains__(self, name: str) -> bool:
        return name in self.drop or name in self.hash or any(name == parent for parent, _ in self.below)

    @property
    def only_drops(self) -> bool:
        return not self.hash and all(mask.only_drops for _, mask in self.below)


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

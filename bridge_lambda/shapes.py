"""Functions made for maps of one shape: where names and types are known beforehand, a walk takes half the time.

The items of a table are mostly alike, and so are the maps in their lists: the signals of a car, the lines of an order.
For each shape that is met a function is written, by what the first such map looks like, and compiled. Its source holds
nothing of an item: names are globals `c1`, `c2`, ..., and what they are is the namespace's business.

Such a function first makes sure that a map has those names and types and no other; where it has not, it stops before it
has gone below, and the walk asks each attribute for its type.
"""

from dataclasses import dataclass, field
from itertools import chain
from textwrap import indent
from typing import Any, Final

from orjson import Fragment

from bridge_lambda.masks import UNMASKED, Made, Mask

ELEMENTS_MIN: Final = 4
"""Of a shorter list each map is taken by itself."""
SHAPES_MAX: Final = 128
"""For each mask, of maps and of lists: items each with names of its own must not fill the memory with functions."""
CONSTANTS_MAX: Final = 256
"""Names and masks in one function; a map with more is walked."""
DEPTH_MAX: Final = 32
"""DynamoDB's own. Deeper maps are walked: Python's parser has a limit, too."""

_OF_A_MAP: Final = """\
def made(m0, walk):
 try:
{checks}
 except (KeyError, TypeError):
  return None
 walk.numbers += {numbers}
 return {tree}
"""
_OF_A_LIST: Final = """\
def made(elements, walk, plain):
 numbers = walk.numbers
 for element in elements:
  try:
   m0 = element['M']
{checks}
  except (KeyError, TypeError):
   return
  numbers += {numbers}
  plain.append({tree})
"""


def for_map(attributes: dict[str, Any], mask: Mask) -> Made | None:
    """(map, walk) -> its plain tree, None for a misfit. No function where there are too many shapes, or names."""
    known = mask.shapes
    known.map_before[len(attributes)] = made = _known_or_made(known.of_maps, attributes, mask, _OF_A_MAP)
    return made


def for_list(elements: list[Any], mask: Mask) -> Made | None:
    """(list, walk, where its elements' plain trees go up to the first misfit); none, too, where the first is no map."""
    first = elements[0].get("M") if len(elements) >= ELEMENTS_MIN else None
    if first is None:
        return None
    known = mask.shapes
    known.list_before = made = _known_or_made(known.of_lists, first, mask, _OF_A_LIST)
    return made


def _known_or_made(
    known: dict[tuple[str, ...], Made | None], attributes: dict[str, Any], mask: Mask, template: str
) -> Made | None:
    shape = (*attributes, *chain.from_iterable(attributes.values()))
    if shape not in known and len(known) < SHAPES_MAX:
        known[shape] = _made(attributes, mask, template)
    return known.get(shape)


def _made(attributes: dict[str, Any], mask: Mask, template: str) -> Made | None:
    writer = _Writer()
    tree = writer.map(attributes, mask, "m0", depth=0)
    if len(writer.namespace) > CONSTANTS_MAX:
        return None
    checks = indent("\n".join(writer.checks), "   ")
    source = template.format(checks=checks, numbers=writer.noted(), tree=tree)
    # The source is made of this module's own text and of counters alone.
    exec(source, writer.namespace)  # noqa: S102 # nosec B102
    made: Made = writer.namespace["made"]
    return made


@dataclass
class _Writer:
    checks: list[str] = field(default_factory=list)
    numbers: list[str] = field(default_factory=list)
    """Variables that hold a number's text."""
    namespace: dict[str, Any] = field(default_factory=lambda: {"Fragment": Fragment})
    variables: int = 0

    def noted(self) -> str:
        return f"({''.join(f'{variable}, ' for variable in self.numbers)})"

    def map(self, attributes: dict[str, Any], mask: Mask, variable: str, *, depth: int) -> str:
        """The expression of the map's plain tree."""
        self.checks.append(f"if len({variable}) != {len(attributes)}: return None")
        below = dict(mask.below)
        parts: list[str] = []
        for name, typed in attributes.items():
            constant = self._constant(name)
            place = f"{variable}[{constant}]"
            if name in mask.drop:
                # As many names as expected, and each of them there: no other one can be among them.
                self.checks.append(place)
            elif name in mask.hash:
                parts.append(f"{constant}: walk.hashed({self._variable(place)})")
            else:
                parts.append(f"{constant}: {self._value(typed, below.get(name, UNMASKED), place, depth=depth + 1)}")
        return "{" + ", ".join(parts) + "}"

    def _value(self, typed: dict[str, Any], mask: Mask, place: str, *, depth: int) -> str:
        ((tag, value),) = typed.items()
        if tag not in {"S", "N", "M", "L"} or depth > DEPTH_MAX:
            return f"walk.value({self._variable(place)}, {self._constant(mask)})"
        variable = self._variable(f"{place}['{tag}']")
        if tag == "N":
            self.numbers.append(variable)
            return f"Fragment({variable})"
        if tag == "M":
            return self.map(value, mask, variable, depth=depth)
        return f"walk.trees({variable}, {self._constant(mask)})" if tag == "L" else variable

    def _variable(self, place: str) -> str:
        variable = f"v{self.variables}"
        self.checks.append(f"{variable} = {place}")
        self.variables += 1
        return variable

    def _constant(self, value: object) -> str:
        constant = f"c{len(self.namespace)}"
        self.namespace[constant] = value
        return constant

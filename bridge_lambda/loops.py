"""Loops made for lists of like maps: the signals of a car, the lines of an order.

Such a list is most of what a large item is, and most of what the bridge does. A loop that knows its elements' names and
types beforehand takes half the time of one that asks each attribute for its type. So for each kind of list that a
table's items hold a loop is written, once, by what its first element looks like, and compiled. The source holds nothing
of an item: names are globals `c0`, `c1`, ..., and what they are is the namespace's business.

A loop checks that an element has those names and types and no other, raises one of MISFITS at the first that has not,
and has dealt with all before it.
"""

from dataclasses import dataclass, field
from itertools import chain
from typing import Any, Final

from orjson import Fragment

from bridge_lambda.masks import Loop, Mask

MISFITS: Final = (KeyError, TypeError)
ELEMENTS_MIN: Final = 4
"""In a shorter list the loop's own look-up is not worth it."""
LOOPS_MAX: Final = 64
"""For each mask; items with names of their own in each list must not fill the memory with loops."""
NAMES_MAX: Final = 64


def loop_for(elements: list[Any], mask: Mask) -> Loop | None:
    """None where the list is no list of maps, short, or of maps that no loop is made for."""
    first = elements[0].get("M") if len(elements) >= ELEMENTS_MIN else None
    if not first:
        return None
    kind = (*first, *chain.from_iterable(first.values()))
    try:
        return mask.loops[kind]
    except KeyError:
        if len(mask.loops) >= LOOPS_MAX:
            return None
        mask.loops[kind] = loop = _made(first, mask)
        return loop


def _made(first: dict[str, Any], mask: Mask) -> Loop | None:
    writer = _Writer()
    plain = writer.map(first, mask, "m0")
    if plain is None or len(writer.names) > NAMES_MAX:
        return None
    source = "\n".join(
        [
            "def loop(elements, plain, numbers):",
            " add, number = plain.append, numbers.append",
            " for element in elements:",
            "  m0 = element['M']",
            *writer.checks,
            *(f"  number({variable})" for variable in writer.numbers),
            f"  add({plain})",
        ]
    )
    namespace: dict[str, Any] = {"Fragment": Fragment, **{f"c{at}": name for at, name in enumerate(writer.names)}}
    # The source is made of this module's own text and of counters alone.
    exec(source, namespace)  # noqa: S102 # nosec B102
    loop: Loop = namespace["loop"]
    return loop


@dataclass
class _Writer:
    checks: list[str] = field(default_factory=list)
    numbers: list[str] = field(default_factory=list)
    """Variables that hold a number's text."""
    names: list[str] = field(default_factory=list)
    maps: int = 0

    def map(self, attributes: dict[str, Any], mask: Mask, variable: str) -> str | None:
        """The expression of the map's plain tree; None where an attribute is neither text nor number nor map."""
        if mask.hash:
            return None
        below = dict(mask.below)
        self.checks.append(f"  if len({variable}) != {len(attributes)}: raise KeyError")
        parts: list[str] = []
        for name, typed in attributes.items():
            constant = self._constant(name)
            if name in mask.drop:
                # As many names as expected, and each of them found: no other can be among them.
                self.checks.append(f"  {variable}[{constant}]")
                continue
            value = self._value(typed, below.get(name, _UNMASKED), f"{variable}[{constant}]")
            if value is None:
                return None
            parts.append(f"{constant}: {value}")
        return "{" + ", ".join(parts) + "}"

    def _value(self, typed: dict[str, Any], mask: Mask, place: str) -> str | None:
        ((tag, value),) = typed.items()
        if tag == "S":
            return f"{place}['S']"
        if tag == "N":
            variable = f"n{len(self.numbers)}"
            self.numbers.append(variable)
            self.checks.append(f"  {variable} = {place}['N']")
            return f"Fragment({variable})"
        if tag == "M":
            self.maps += 1
            variable = f"m{self.maps}"
            self.checks.append(f"  {variable} = {place}['M']")
            return self.map(value, mask, variable)
        return None

    def _constant(self, name: str) -> str:
        self.names.append(name)
        return f"c{len(self.names) - 1}"


_UNMASKED: Final = Mask()

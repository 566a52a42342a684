"""An image taken apart: what a column holds as it is goes there at once, all other leaves are handed back. Pure."""

from collections.abc import Mapping
from typing import Any, Final

from streaming_job.pipeline.columns import BINARY, BOOLEAN, JSON, NUMBER, STRING, UNFIT
from streaming_job.pipeline.conversion import EXACT_INT_MAX, SHORT_CHARS_MAX
from streaming_job.pipeline.exact_json import Binary, NotJsonError, Number, is_number, parse, parse_distinct
from streaming_job.pipeline.image_tree import ImageTree, Node, Pivot
from streaming_job.pipeline.naming import segments

Leaf = tuple[Node, str, Any]
"""Where it is, its kind and its value. Maps and lists that stay whole are values of kind JSON."""

_SCALARS: Final[Mapping[type, str]] = {
    str: STRING,
    int: NUMBER,
    Number: NUMBER,
    bool: BOOLEAN,
    Binary: BINARY,
}
_TYPED: Final[Mapping[str, type[str]]] = {"B": Binary, "N": Number}
"""What an envelope's `types` says that the JSON does not: a string that is none."""


class Walk:
    """Through one image."""

    __slots__ = ("_depth_max", "_image", "_root", "_row", "repeated", "rest")

    def __init__(self, tree: ImageTree, row: int) -> None:
        """`row` is the image's place in the cells of every column."""
        self._image = tree.next_image()
        self._root = tree.root
        self._depth_max = tree.depth_max
        self._row = row
        self.rest: list[Leaf] = []
        """What has to be converted, or has no place."""
        self.repeated: list[tuple[str, Any]] = []
        """Values at a path that another value has already."""

    def through(self, image: str, types: str | None) -> None:
        root = self._root
        try:
            item = parse(image)
        except NotJsonError:
            self._keep(root, UNFIT, image)
            return
        if types is not None and types != "{}":
            _retype(item, parse(types))
        self._fields(item, root, 1, embedded=False)

    def _fields(self, fields: Mapping[str, Any], node: Node, depth: int, *, embedded: bool) -> None:
        """`embedded`: inside a text that held JSON; text in there is text."""
        children, leaf = node.children, self._leaf
        for name, value in fields.items():
            child = children.get(name) or node.child(name)
            if type(value) in _SCALARS and not child.is_special:
                leaf(child, value)
            elif value is not None:
                self._enter(value, child, depth, embedded=embedded)

    def _enter(self, value: Any, node: Node, depth: int, *, embedded: bool) -> None:
        kind = _SCALARS.get(type(value))
        if depth <= self._depth_max:
            if node.is_whole:
                kind = JSON
            elif type(value) is dict or type(value) is list:
                if self._open(value, node, depth, embedded=embedded):
                    return
            elif kind is STRING and node.is_embedded and not embedded:
                self._read(value, node, depth, None)
                return
        if value is not None:
            self._keep(node, kind or JSON, value)

    def _open(self, value: Any, node: Node, depth: int, *, embedded: bool) -> bool:
        """False where the map or list stays whole."""
        if type(value) is dict:
            self._fields(value, node, depth + 1, embedded=embedded)
        elif node.pivot is not None and node.pivot.depth == depth:
            self._pivot(value, node, depth, node.pivot)
        elif node.is_indexed:
            for place, element in enumerate(value):
                self._enter(element, node.child(str(place)), depth + 1, embedded=embedded)
        else:
            return False
        return True

    def _read(self, text: str, node: Node, depth: int, unwrap: str | None) -> None:
        try:
            value = parse_distinct(text)
        except NotJsonError:
            self._keep(node, UNFIT, text)
            return
        if type(value) is dict:
            self._value(value, node, depth, unwrap, embedded=True)
        else:
            self._enter(value, node, depth + 1, embedded=True)

    def _value(self, value: dict[str, Any], node: Node, depth: int, unwrap: str | None, *, embedded: bool) -> None:
        """A map of the field `unwrap` alone is that field's value."""
        if len(value) == 1 and unwrap in value:
            only = value[unwrap]
            if type(only) in _SCALARS and not node.is_special:
                self._leaf(node, only)
            else:
                self._enter(only, node, depth + 1, embedded=embedded)
        else:
            self._fields(value, node, depth + 1, embedded=embedded)

    def _pivot(self, elements: list[Any], node: Node, depth: int, pivot: Pivot) -> None:
        """The value of each element under its names; one without them, or with those of another, under its place."""
        names, value_of, unwrap, is_embedded = pivot.names, pivot.value, pivot.unwrap, pivot.is_embedded
        taken: set[Node] = set()
        for place, element in enumerate(elements):
            base = _named(element, node, names)
            if base is None or base in taken:
                if element is not None:
                    self._keep(node.child(str(place)), UNFIT, element)
                continue
            taken.add(base)
            value = element.get(value_of)
            if is_embedded and type(value) is str:
                self._read(value, base, depth, unwrap)
            elif type(value) is dict:
                self._value(value, base, depth, unwrap, embedded=False)
            else:
                self._enter(value, base, depth + 1, embedded=False)
            for name in pivot.fields:
                self._enter(element.get(name), base.child(name), depth + 1, embedded=False)

    def _leaf(self, node: Node, value: Any) -> None:
        """A scalar that is no more than that."""
        if node.met == self._image:
            self.repeated.append((node.path, value))
            return
        node.met = self._image
        held = type(value)
        if held is node.plain:
            node.cells[self._row] = value
        elif node.takes_numbers and (
            -EXACT_INT_MAX <= value <= EXACT_INT_MAX
            if held is int
            else held is Number and len(value) <= SHORT_CHARS_MAX and "e" not in value and "E" not in value
        ):
            node.cells[self._row] = float(value)
        elif not node.is_key:
            self.rest.append((node, _SCALARS[held], value))

    def _keep(self, node: Node, kind: str, value: Any) -> None:
        if node.met == self._image:
            self.repeated.append((node.path, value))
            return
        node.met = self._image
        if not node.is_key:
            self.rest.append((node, kind, value))


def _named(element: Any, node: Node, names: tuple[str, ...]) -> Node | None:
    if type(element) is not dict:
        return None
    for name in names:
        part = element.get(name)
        if type(part) is not str:
            return None
        node = node.children.get(part) or node.child(part)
    return node


def _retype(item: Any, types: Mapping[str, str]) -> None:
    for place, said in types.items():
        kind = _TYPED.get(said)
        if kind is not None and place.startswith("/new/"):
            _replace(item, segments(place)[1:], kind)


def _replace(value: Any, path: tuple[str, ...], kind: type[str]) -> None:
    """What the image does not have, or has no such text at, is left alone: the envelope says more than it has."""
    *way, last = path
    for step in way:
        value = _part(value, step)
    held = _part(value, last)
    if type(held) is str and (kind is not Number or is_number(held)):
        value[int(last) if type(value) is list else last] = kind(held)


def _part(value: Any, step: str) -> Any:
    if type(value) is dict:
        return value.get(step)
    if type(value) is list and _is_place(step, len(value)):
        return value[int(step)]
    return None


def _is_place(step: str, length: int) -> bool:
    """Python makes no number of thousands of digits."""
    return step.isascii() and step.isdecimal() and len(step) <= len(str(length)) and int(step) < length

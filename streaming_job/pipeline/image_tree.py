"""An image taken apart into its leaves: of each path the kind of value there, and the value. Pure.

The walk goes along a tree of the paths met so far. Each node knows its path and what the table's rules say of it, so
that neither is worked out again for every item.
"""

from collections.abc import Iterable, Mapping
from typing import Any, Final

from config.tables import FlattenRules, PivotRule
from streaming_job.pipeline.columns import BINARY, BOOLEAN, JSON, NUMBER, STRING, UNFIT, path_of
from streaming_job.pipeline.exact_json import Binary, NotJsonError, Number, parse, parse_distinct
from streaming_job.pipeline.naming import pointer, segments, template_fields

Leaves = dict[str, tuple[str, Any]]
"""By path: kind and value. Maps and lists that stay whole are values of kind JSON."""

_SCALARS: Final[Mapping[type, str]] = {
    str: STRING,
    int: NUMBER,
    Number: NUMBER,
    bool: BOOLEAN,
    Binary: BINARY,
}
_TYPED: Final[Mapping[str, type[str]]] = {"B": Binary, "N": Number}
"""What an envelope's `types` says that the JSON does not: a string that is none."""

_NODES_MAX: Final = 100_000
"""Hostile items could name ever new paths: then the tree is grown anew."""


class Node:
    __slots__ = ("_tree", "children", "is_embedded", "is_indexed", "is_special", "is_whole", "path", "pivot")

    def __init__(self, path: str, tree: "ImageTree") -> None:
        self.path = path
        self._tree = tree
        self.children: dict[str, Node] = {}
        self.is_whole = path in tree.whole
        self.is_indexed = path in tree.indexed
        self.is_embedded = path in tree.embedded
        self.pivot = tree.pivots.get(path)
        self.is_special = self.is_whole or self.is_embedded
        """Even a scalar there is not simply a leaf."""

    def child(self, name: str) -> "Node":
        found = self.children.get(name)
        if found is None:
            found = self.children[name] = Node(self.path + pointer([name]), self._tree)
            self._tree.nodes += 1
        return found


class Pivot:
    """A pivot rule, with the depth its list stands at and the fields it takes names from."""

    def __init__(self, rule: PivotRule) -> None:
        self.rule = rule
        self.path = path_of(rule.list)
        self.depth = len(segments(self.path))
        self.names = template_fields(rule.name)


class ImageTree:
    def __init__(self, rules: FlattenRules, whole: Iterable[str], keys: Iterable[str]) -> None:
        """`whole` are the paths kept as JSON, `keys` those of the key's attributes, which are no leaves."""
        self._depth_max = rules.depth_max
        self._keys = frozenset(keys)
        self.whole = frozenset(whole)
        self.indexed = frozenset(map(path_of, rules.index))
        self.embedded = frozenset(map(path_of, rules.embedded))
        self.pivots = {pivot.path: pivot for pivot in reversed([Pivot(rule) for rule in rules.pivot])}
        self.nodes = 0
        self._root = Node("", self)

    def leaves(self, image: str, types: str | None) -> tuple[Leaves, list[tuple[str, Any]]]:
        """The leaves, and the values at a path that another value has already."""
        if self.nodes > _NODES_MAX:
            self.nodes, self._root = 0, Node("", self)
        try:
            item = parse(image)
        except NotJsonError:
            return {"": (UNFIT, image)}, []
        if types is not None and types != "{}":
            _retype(item, parse(types))
        walk = _Walk(self._depth_max)
        for name, value in item.items():
            walk.enter(value, self._root.child(name), 1, embedded=False)
        for path in self._keys:
            walk.leaves.pop(path, None)
        return walk.leaves, walk.repeated


def _retype(item: Any, types: Mapping[str, str]) -> None:
    for place, said in types.items():
        kind = _TYPED.get(said)
        if kind is not None and place.startswith("/new/"):
            _replace(item, segments(place)[1:], kind)


def _replace(value: Any, path: tuple[str, ...], kind: type[str]) -> None:
    """A place the image does not have, or that holds no string, is left alone: the envelope says more than it has."""
    *way, last = path
    for step in way:
        value = _part(value, step)
    held = _part(value, last)
    if type(held) is str:
        value[int(last) if type(value) is list else last] = kind(held)


def _part(value: Any, step: str) -> Any:
    if type(value) is dict:
        return value.get(step)
    if type(value) is list and step.isdecimal() and int(step) < len(value):
        return value[int(step)]
    return None


class _Walk:
    """Through one image."""

    def __init__(self, depth_max: int) -> None:
        self._depth_max = depth_max
        self.leaves: Leaves = {}
        self.repeated: list[tuple[str, Any]] = []

    def enter(self, value: Any, node: Node, depth: int, *, embedded: bool) -> None:
        """`embedded`: inside a text that held JSON; text in there is text."""
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
        self._put(node.path, kind or JSON, value)

    def _open(self, value: Any, node: Node, depth: int, *, embedded: bool) -> bool:
        """False where the map or list stays whole."""
        if type(value) is dict:
            self._fields(value, node, depth + 1, embedded=embedded)
        elif node.pivot is not None and node.pivot.depth == depth:
            self._pivot(value, node, depth, node.pivot)
        elif node.is_indexed:
            for place, element in enumerate(value):
                self.enter(element, node.child(str(place)), depth + 1, embedded=embedded)
        else:
            return False
        return True

    def _fields(self, fields: Mapping[str, Any], node: Node, depth: int, *, embedded: bool) -> None:
        children = node.children
        for name, value in fields.items():
            child = children.get(name) or node.child(name)
            kind = _SCALARS.get(type(value))
            if kind is None or child.is_special:
                if value is not None:
                    self.enter(value, child, depth, embedded=embedded)
            elif child.path in self.leaves:
                self.repeated.append((child.path, value))
            else:
                self.leaves[child.path] = (kind, value)

    def _read(self, text: str, node: Node, depth: int, unwrap: str | None) -> None:
        try:
            value = parse_distinct(text)
        except NotJsonError:
            self._put(node.path, UNFIT, text)
            return
        if type(value) is dict:
            self._value(value, node, depth, unwrap, embedded=True)
        else:
            self.enter(value, node, depth + 1, embedded=True)

    def _value(self, value: dict[str, Any], node: Node, depth: int, unwrap: str | None, *, embedded: bool) -> None:
        """A map of the field `unwrap` alone is that field's value."""
        if unwrap is not None and len(value) == 1 and unwrap in value:
            self.enter(value[unwrap], node, depth + 1, embedded=embedded)
        else:
            self._fields(value, node, depth + 1, embedded=embedded)

    def _pivot(self, elements: list[Any], node: Node, depth: int, pivot: Pivot) -> None:
        """The value of each element under its names; one without them, or with those of another, under its place."""
        rule, taken = pivot.rule, set()
        for place, element in enumerate(elements):
            base = _named(element, node, pivot)
            if base is None or base in taken:
                self._put(f"{node.path}/{place}", UNFIT, element)
                continue
            taken.add(base)
            value = element.get(rule.value)
            if rule.embedded and type(value) is str:
                self._read(value, base, depth, rule.unwrap)
            elif type(value) is dict:
                self._value(value, base, depth, rule.unwrap, embedded=False)
            else:
                self.enter(value, base, depth + 1, embedded=False)
            for name in rule.fields:
                self.enter(element.get(name), base.child(name), depth + 1, embedded=False)

    def _put(self, path: str, kind: str, value: Any) -> None:
        if value is None:
            return
        if path in self.leaves:
            self.repeated.append((path, value))
        else:
            self.leaves[path] = (kind, value)


def _named(element: Any, node: Node, pivot: Pivot) -> Node | None:
    if type(element) is not dict:
        return None
    for name in pivot.names:
        part = element.get(name)
        if type(part) is not str:
            return None
        node = node.children.get(part) or node.child(part)
    return node

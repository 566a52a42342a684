"""The tree of the paths that a table's images have: of each what the rules say of it, and where its values go.

A walk (image_walk.py) goes along it, so that neither is worked out again for every item. A path is one node: who meets
it twice in one image sees so.
"""

from collections.abc import Iterable, Mapping
from typing import Any, Final

from config.tables import FlattenRules, PivotRule
from streaming_job.pipeline.columns import path_of
from streaming_job.pipeline.naming import pointer, segments, template_fields
from streaming_job.pipeline.places import Place

_NODES_MAX: Final = 100_000
"""Hostile items could name ever new paths: then the tree is grown anew."""
_NOWHERE: Final[list[Any]] = []


class Node:
    __slots__ = (
        *("_tree", "children", "is_embedded", "is_indexed", "is_key", "is_special", "is_whole", "met", "path", "pivot"),
        *("cells", "place", "plain", "takes_numbers"),
    )

    def __init__(self, path: str, tree: "ImageTree") -> None:
        self.path = path
        self._tree = tree
        self.children: dict[str, Node] = {}
        self.is_key = path in tree.keys
        self.is_whole = path in tree.whole
        self.is_indexed = path in tree.indexed
        self.is_embedded = path in tree.embedded
        self.pivot = tree.pivots.get(path)
        self.is_special = self.is_whole or self.is_embedded
        """Even a scalar there is not simply a leaf."""
        self.met = 0
        """The last image that has a value there, by its number."""
        self.bind(None)

    def child(self, name: str) -> "Node":
        found = self.children.get(name)
        if found is None:
            found = self.children[name] = Node(self.path + pointer([name]), self._tree)
            self._tree.nodes += 1
        return found

    def bind(self, place: Place | None) -> None:
        self.place = place
        self.cells = _NOWHERE if place is None else place.cells
        self.plain = None if place is None else place.plain
        self.takes_numbers = place is not None and place.takes_numbers


class Pivot:
    """A pivot rule, with the depth its list stands at and the fields it takes names from."""

    def __init__(self, rule: PivotRule) -> None:
        self.path = path_of(rule.list)
        self.depth = len(segments(self.path))
        self.names = template_fields(rule.name)
        self.value, self.unwrap, self.fields = rule.value, rule.unwrap, tuple(rule.fields)
        self.is_embedded = rule.embedded


class ImageTree:
    def __init__(self, rules: FlattenRules, whole: Iterable[str], keys: Iterable[str]) -> None:
        """`whole` are the paths kept as JSON, `keys` those of the key's attributes, which are no leaves."""
        self.depth_max = rules.depth_max
        self.keys = frozenset(keys)
        self.whole = frozenset(whole)
        self.indexed = frozenset(map(path_of, rules.index))
        self.embedded = frozenset(map(path_of, rules.embedded))
        self.pivots = {pivot.path: pivot for pivot in reversed([Pivot(rule) for rule in rules.pivot])}
        self.images = 0
        self.nodes = 0
        self.root = Node("", self)
        self._places: Mapping[str, Place] = {}

    def bind(self, places: Mapping[str, Place]) -> None:
        """From now on the values of these paths go there, and those of others nowhere."""
        for path in self._places:
            self._node(path).bind(None)
        self._places = places
        for path, place in places.items():
            self._node(path).bind(place)

    def next_image(self) -> int:
        """Its number."""
        if self.nodes > _NODES_MAX:
            self.nodes, self.root = 0, Node("", self)
            self.bind(self._places)
        self.images += 1
        return self.images

    def _node(self, path: str) -> Node:
        node = self.root
        for name in segments(path):
            node = node.child(name)
        return node

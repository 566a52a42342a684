"""A model of flattening, from the words of the README, and batches to hold the product against it.

It shares nothing with the product but the rules' pydantic model: it parses with Python's json, lists an item's leaves
before it judges them, compares numbers as decimals, and names columns its own way.
"""

import base64
import json
import re
from collections import Counter
from dataclasses import dataclass, field
from decimal import Decimal
from hashlib import sha256
from typing import Any, NamedTuple

import pyarrow as pa

from config.tables import FlattenRules, PivotRule, TableConfig, split_path
from streaming_job.pipeline.flatten import Flattened


class Num(str):
    """A number's literal."""

    __slots__ = ()


class Pairs(list[tuple[str, Any]]):
    """An object as it stood, names that repeat included."""


class Leaf(NamedTuple):
    kind: str
    path: str
    value: Any


NOT_JSON = object()


def parse(text: str) -> Any:
    if re.search(r"(?i)\\ud[89a-f]", text) and _has_half_a_pair(text):
        return NOT_JSON
    try:
        return json.loads(
            text, parse_int=Num, parse_float=Num, parse_constant=_refuse, object_pairs_hook=Pairs, strict=True
        )
    except ValueError:
        return NOT_JSON


def _refuse(word: str) -> None:
    raise ValueError(word)


def _has_half_a_pair(text: str) -> bool:
    try:
        json.dumps(json.loads(text), ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return True
    except ValueError:
        return False
    return False


def plain(value: Any) -> Any:
    """Comparable: objects as lists of pairs, numbers by value."""
    if isinstance(value, Num):
        return ("number", Decimal(value))
    if isinstance(value, Pairs):
        return ("object", [(name, plain(inner)) for name, inner in value])
    if isinstance(value, list):
        return [plain(inner) for inner in value]
    return value


def _step(name: str) -> str:
    return "/" + name.replace("~", "~0").replace("/", "~1")


def _at(attribute: str) -> str:
    return "".join(map(_step, split_path(attribute)))


@dataclass
class Model:
    config: TableConfig
    columns: dict[str, tuple[str, str]] = field(default_factory=dict)
    """path -> (name, kind), in order of learning."""

    @property
    def rules(self) -> FlattenRules:
        return self.config.lake.flatten

    def leaves(self, image: str) -> list[Leaf]:
        item = parse(image)
        assert item is not NOT_JSON
        keys = {_step(key.name) for key in self.config.key}
        seen: set[str] = set()
        leaves = []
        for leaf in self._inside(item, "", 0):
            if leaf.path in keys or leaf.value is None:
                continue
            if leaf.path in seen and leaf.kind != "r":
                leaf = Leaf("r", leaf.path, leaf.value)  # noqa: PLW2901 - the same value, demoted
            seen.add(leaf.path)
            leaves.append(leaf)
        return leaves

    def _inside(self, item: Pairs, path: str, depth: int) -> list[Leaf]:
        return [leaf for name, value in item for leaf in self._walk(value, path + _step(name), depth + 1, inner=False)]

    def _walk(self, value: Any, path: str, depth: int, *, inner: bool) -> list[Leaf]:
        rules = self.rules
        if depth <= rules.depth_max and value is not None:
            if path in map(_at, rules.json_):
                return [Leaf("j", path, value)]
            for pivot in rules.pivot:
                if _is_list(value) and path == _at(pivot.list) and len(split_path(pivot.list)) == depth:
                    return self._pivot(value, path, depth, pivot)
            if _is_list(value) and path in map(_at, rules.index):
                return [
                    leaf
                    for i, element in enumerate(value)
                    for leaf in self._walk(element, f"{path}/{i}", depth + 1, inner=inner)
                ]
            if _is_text(value) and not inner and path in map(_at, rules.embedded):
                return self._embedded(value, path, depth, None)
            if isinstance(value, Pairs):
                return [
                    leaf
                    for name, part in value
                    for leaf in self._walk(part, path + _step(name), depth + 1, inner=inner)
                ]
        return [Leaf(_kind(value), path, value)]

    def _embedded(self, text: str, path: str, depth: int, unwrap: str | None) -> list[Leaf]:
        value = parse(text)
        if value is NOT_JSON:
            return [Leaf("r", path, text)]
        if isinstance(value, Pairs):
            if len({name for name, _ in value}) < len(value):
                return [Leaf("r", path, text)]
            return self._value(value, path, depth, unwrap, inner=True)
        return self._walk(value, path, depth + 1, inner=True)

    def _value(self, value: Pairs, path: str, depth: int, unwrap: str | None, *, inner: bool) -> list[Leaf]:
        if unwrap is not None and [name for name, _ in value] == [unwrap]:
            return self._walk(value[0][1], path, depth + 1, inner=inner)
        return [leaf for name, part in value for leaf in self._walk(part, path + _step(name), depth + 1, inner=inner)]

    def _pivot(self, elements: list[Any], path: str, depth: int, rule: PivotRule) -> list[Leaf]:
        leaves: list[Leaf] = []
        taken: set[str] = set()
        for i, element in enumerate(elements):
            parts = dict(element) if isinstance(element, Pairs) else {}
            names = [parts.get(name) for name in re.findall(r"\{(.+?)\}", rule.name)]
            base = path + "".join(_step(name) for name in names if _is_text(name))
            if not all(map(_is_text, names)) or base in taken:
                leaves.append(Leaf("r", f"{path}/{i}", element))
                continue
            taken.add(base)
            value = parts.get(rule.value)
            if isinstance(value, Pairs):
                leaves += self._value(value, base, depth, rule.unwrap, inner=False)
            elif rule.embedded and _is_text(value):
                leaves += self._embedded(value, base, depth, rule.unwrap)
            else:
                leaves += self._walk(value, base, depth + 1, inner=False)
            for name in rule.fields:
                leaves += self._walk(parts.get(name), base + _step(name), depth + 1, inner=False)
        return leaves

    def learn(self, items: list[list[Leaf]]) -> None:
        counts: dict[str, Counter[str]] = {}
        for leaf in (leaf for item in items for leaf in item):
            if leaf.kind in "snxbj" and len(leaf.path) <= 400:
                counts.setdefault(leaf.path, Counter())[leaf.kind] += 1
        for path in sorted(counts):
            if path not in self.columns and len(self.columns) < self.rules.columns_max:
                best = max(counts[path].values())
                kind = next(kind for kind in "snxbj" if counts[path][kind] == best)
                self.columns[path] = (self._name(path), kind)

    def _name(self, path: str) -> str:
        parts = [part.replace("~1", "/").replace("~0", "~") for part in path.split("/")[1:]]
        for rule in self.rules.pivot:
            depth, fields = len(split_path(rule.list)), re.findall(r"\{(.+?)\}", rule.name)
            if path.startswith(_at(rule.list) + "/") and len(parts) >= depth + len(fields):
                words = dict(zip(fields, parts[depth:], strict=False))
                rendered = re.sub(r"\{(.+?)\}", lambda found: words[found[1]], rule.name)  # noqa: B023 - used at once
                parts = [rendered, *parts[depth + len(fields) :]]
                break
        name = "_".join(re.sub("[^A-Za-z0-9_]+", "_", part) for part in parts)
        name = name if name and name[0] != "_" else "x" + (name or "_")
        hashed = f"{name[:119]}_{sha256(path.encode()).hexdigest()[:8]}"
        taken = {name.lower() for name, _ in self.columns.values()} | {key.name.lower() for key in self.config.key}
        return hashed if len(name) > 128 or name.lower() in taken else name

    def row(self, leaves: list[Leaf]) -> tuple[dict[str, Any], list[tuple[str, Any]]]:
        """The columns that hold something, and the rescued values by path."""
        row: dict[str, Any] = {}
        rescued: list[tuple[str, Any]] = []
        for leaf in leaves:
            name, kind = self.columns.get(leaf.path, ("", ""))
            if leaf.kind != kind:
                rescued.append((leaf.path, plain(leaf.value)))
                continue
            if kind == "n":
                double = float(leaf.value)
                finite = abs(double) != float("inf")
                if finite:
                    row[name] = double
                if not finite or Decimal(repr(double)) != Decimal(leaf.value):
                    rescued.append((leaf.path, plain(leaf.value)))
            else:
                row[name] = plain(leaf.value) if kind == "j" else leaf.value
        return row, sorted(rescued, key=repr)


def _is_list(value: Any) -> bool:
    return isinstance(value, list) and not isinstance(value, Pairs)


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and not isinstance(value, Num)


def _kind(value: Any) -> str:
    if isinstance(value, bool):
        return "b"
    if isinstance(value, Num):
        return "n"
    return "s" if isinstance(value, str) else "j"


def changes(
    images: list[str | None], types: list[dict[str, str]] | None = None, *, attribute: str = "id", prefix: str = ""
) -> pa.Table:
    """Newest-per-key changes as the pipeline hands them to flattening, keys `{"id":"0"}`, `{"id":"1"}` ..."""
    count = len(images)
    return pa.table(
        {
            "key": [f'{{"{attribute}":"{prefix}{i}"}}' for i in range(count)],
            "change_seq": [f"{i:058d}" for i in range(count)],
            "op": ["REMOVE" if image is None else "MODIFY" for image in images],
            "new": pa.array(images, pa.string()),
            "types": pa.array([json.dumps(said) for said in types] if types else [None] * count, pa.string()),
        }
    )


def flat_rows(flattened: Flattened) -> list[dict[str, Any]]:
    """Each row's columns, null ones too; `_rescued` as it stands."""
    named = dict(zip(flattened.schema.names, flattened.columns, strict=True)) | {"_rescued": flattened.rescued}
    return pa.table(named).to_pylist()


def rescued_of(text: str | None) -> list[tuple[str, Any]]:
    return [] if text is None else sorted(((path, plain(value)) for path, value in parse(text)), key=repr)


def b64(raw: bytes) -> str:
    return base64.b64encode(raw).decode()

"""Names of columns: from the path of a value in its item to a name that both engines and SQL take.

A path is a JSON Pointer (`/vehicle/make`); an element of a pivoted list is named by what the rule reads from it, not by
its place (`/signals/Charge/IsCharging`). A name holds only `[A-Za-z0-9_]`, never begins with `_` (those are ours), is
at most 128 characters long and distinct without regard to case. Who comes first keeps the plain name; another path
that would get it too gets eight digits of its path's SHA-256 after it.
"""

import hashlib
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final

NAME_CHARS_MAX: Final = 128
PROCESSED_AT: Final = "pipeline_processed_at"
"""What `<name>_live` calls the time of writing: no attribute gets a column of that name."""
_HASH_CHARS: Final = 8
_TEMPLATE_FIELD: Final = re.compile(r"\{([^{}]+)\}")


def pointer(segments: Iterable[str]) -> str:
    return "".join("/" + segment.replace("~", "~0").replace("/", "~1") for segment in segments)


def segments(path: str) -> tuple[str, ...]:
    return tuple(segment.replace("~1", "/").replace("~0", "~") for segment in path.split("/")[1:])


def template_fields(template: str) -> tuple[str, ...]:
    """`{group}_{name}` reads `group` and `name`."""
    return tuple(_TEMPLATE_FIELD.findall(template))


def plain_name(path: str, templates: Mapping[str, str]) -> str:
    """The name a path gets when nobody has it; `templates` are the pivoted lists' paths and name templates."""
    parts = _named_parts(segments(path), templates)
    name = "_".join(re.sub(r"[^A-Za-z0-9_]+", "_", part) for part in parts)
    if not name or name.startswith("_"):
        name = "x" + (name or "_")
    return name if len(name) <= NAME_CHARS_MAX else _hashed(name, path)


def _named_parts(parts: Sequence[str], templates: Mapping[str, str]) -> Sequence[str]:
    for depth in range(1, len(parts)):
        template = templates.get(pointer(parts[:depth]))
        if template is None:
            continue
        fields = template_fields(template)
        values = parts[depth : depth + len(fields)]
        if len(values) == len(fields):
            return (_render(template, dict(zip(fields, values, strict=True))), *parts[depth + len(fields) :])
    return parts


def _render(template: str, values: Mapping[str, str]) -> str:
    return _TEMPLATE_FIELD.sub(lambda match: values[match.group(1)], template)


def _hashed(name: str, path: str) -> str:
    digest = hashlib.sha256(path.encode("utf-8")).hexdigest()[:_HASH_CHARS]
    return f"{name[: NAME_CHARS_MAX - _HASH_CHARS - 1]}_{digest}"


def distinct_name(path: str, templates: Mapping[str, str], is_taken: Callable[[str], bool]) -> str:
    """`is_taken` is asked with the name in lower case."""
    name = plain_name(path, templates)
    return _hashed(name, path) if name.lower() == PROCESSED_AT or is_taken(name.lower()) else name

"""Items as their users write them: exact numbers, binary, sets, nesting, private parts, now and then far too large."""

from collections.abc import Callable
from random import Random
from typing import Any, Final

from tests.simulation.rules import HOME, SECRET_WORD, Image

_NUMBERS = (
    "0", "-0", "1", "-7", "1.50", "0.1", "9" * 38, "0." + "0" * 36 + "1", "1E+30", "-1.25E-40", "9007199254740993",
    "12345678901234567890.123456789012345678", "100", "1e3", "+5",
)  # fmt: skip
_TEXTS = ("", "plain", "ü🚗", "quote\"back\\slash'", "line\nbreak\tand\u0001", '{"v":1}', "1", "null")
OVERSIZE_CHARS = 180_000
"""Of a character that takes six in JSON: an item within DynamoDB's limit, an envelope past Kinesis'."""


def item(rng: Random, key: Image, *, version: int, now_ms: int, oversize: bool = False) -> Image:
    image: Image = dict(key)
    image["n"] = {"N": str(version)}
    image["at"] = {"N": str(now_ms)}
    image["region"] = {"S": HOME if rng.random() < 0.7 else "us"}
    image["private"] = {"S": f"{SECRET_WORD}-{version}"}
    image["email"] = {"S": f"{SECRET_WORD}-{rng.randrange(4)}@example"}
    image["profile"] = {"M": {"token": {"S": f"{SECRET_WORD}-{version}-t"}, "name": {"S": rng.choice(_TEXTS)}}}
    for name in rng.sample(("a", "b/c", "d~e", "é", "S"), rng.randrange(3)):
        image[name] = _value(rng, 2)
    if oversize:
        image["large"] = {"S": "\u0001" * OVERSIZE_CHARS}
    return image


def _value(rng: Random, depth: int) -> dict[str, Any]:
    if depth and rng.random() < 0.25:
        if rng.random() < 0.5:
            return {"L": [_value(rng, depth - 1) for _ in range(rng.randrange(3))]}
        return {"M": {name: _value(rng, depth - 1) for name in rng.sample(("x", "y/z", "0"), rng.randrange(3))}}
    return rng.choice(_LEAVES)(rng)


_LEAVES: Final[tuple[Callable[[Random], dict[str, Any]], ...]] = (
    lambda rng: {"N": rng.choice(_NUMBERS)},
    lambda rng: {"N": rng.choice(_NUMBERS)},
    lambda rng: {"S": rng.choice(_TEXTS)},
    lambda rng: {"B": rng.randbytes(rng.randrange(6))},
    lambda rng: {"BOOL": rng.random() < 0.5},
    lambda _rng: {"NULL": True},
    lambda rng: {"NS": rng.sample(("1", "2.50", "-3", "1E+20"), 2)},
    lambda _rng: {"SS": ["b", "a"]},
    lambda _rng: {"BS": [b"\x01", b"\x00"]},
)

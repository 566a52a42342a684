"""Addresses on this machine. A proxy that the environment names has no part in a way there: it could not find it."""

from typing import Final
from urllib.parse import urlsplit

_HOSTS: Final = frozenset(("127.0.0.1", "localhost", "::1"))


def is_loopback(url: str | None) -> bool:
    return url is not None and urlsplit(url).hostname in _HOSTS


def proxies_to(url: str | None) -> dict[str, str] | None:
    """As botocore takes them: none to this machine; elsewhere, by None, those of the environment."""
    return {} if is_loopback(url) else None

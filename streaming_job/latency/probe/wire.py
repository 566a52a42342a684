"""What a shard's processor and the hub agree on: lines of JSON over a socket, each answered once it is taken."""

from typing import Final

SOCKET_VARIABLE: Final = "LAKESTREAM_PROBE_SOCKET"
TAKEN: Final = b"\n"

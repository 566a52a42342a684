"""A Kinesis source for Spark Structured Streaming, usable alone: see README.md beside this file."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from streaming_job.kinesis.reader import LakestreamKinesis

__all__ = ["LakestreamKinesis"]


def __getattr__(name: str) -> Any:
    """Offsets and shards can be used without Spark."""
    if name == "LakestreamKinesis":
        from streaming_job.kinesis.reader import LakestreamKinesis  # noqa: PLC0415

        return LakestreamKinesis
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

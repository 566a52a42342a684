"""Enhanced fan-out: the stream consumers a query reads through."""

from collections.abc import Iterable
from typing import Protocol

from streaming_job.kinesis.errors import OptionError, ThrottledError
from streaming_job.kinesis.fetch import Clock, Counters, with_retries
from streaming_job.kinesis.options import Options
from streaming_job.kinesis.shards import StreamInfo


class ConsumerApi(Protocol):
    def consumer(self, stream_arn: str, name: str) -> str | None: ...
    def deregister(self, consumer_arn: str) -> None: ...


def consumer_arns(api: ConsumerApi, options: Options, infos: Iterable[StreamInfo], clock: Clock) -> dict[str, str]:
    """By stream; empty when the shards are polled."""
    if options.consumer_mode != "efo":
        return {}
    return {info.name: _given(options, info) or _registered(api, options, info, clock) for info in infos}


def deregister(api: ConsumerApi, options: Options, arns: Iterable[str], clock: Clock) -> None:
    if options.deregister_consumer:
        for arn in arns:
            with_retries(
                lambda arn=arn: api.deregister(arn),  # type: ignore[misc]
                clock,
                options.retry_ms_max,
                Counters(),
                "deregistering the consumer",
            )


def _given(options: Options, info: StreamInfo) -> str | None:
    arn = options.consumer_arn
    if arn is not None and not arn.startswith(f"{info.arn}/consumer/"):
        raise OptionError.of(
            "registeredConsumerId",
            f"{arn} is no consumer of {info.arn}",
            hint="give the ARN of a consumer of the stream that is read",
        )
    return arn


def _registered(api: ConsumerApi, options: Options, info: StreamInfo, clock: Clock) -> str:
    name = options.consumer_name or ""

    def active() -> str:
        arn = api.consumer(info.arn, name)
        if arn is None:
            raise ThrottledError(f"consumer {name} is not active yet")
        return arn

    return with_retries(active, clock, options.retry_ms_max, Counters(), f"consumer {name} of {info.name}")

"""The source's options: the names of Databricks' `kinesis`, checked once; a refusal names the option and the mend."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from difflib import get_close_matches
from typing import Any, Final

from config.limits import KINESIS_GET_RECORDS_MAX
from streaming_job.kinesis.errors import OptionError
from streaming_job.kinesis.option_table import POLL_MS_MIN, SPECS, OptionSpec
from streaming_job.kinesis.option_values import LATEST, InitialPosition

_REGION = re.compile(r"[a-z]{2}(-[a-z]+){1,3}-[0-9]+")


@dataclass(frozen=True, repr=False)
class Options:
    """What a query was given, typed. Its text holds no secret."""

    streams: tuple[str, ...]
    region: str | None = None
    endpoint_url: str | None = None
    initial_position: InitialPosition = LATEST
    consumer_mode: str = "polling"
    consumer_name: str | None = None
    consumer_arn: str | None = None
    deregister_consumer: bool = False
    fetch_records_max: int = KINESIS_GET_RECORDS_MAX
    fetch_mb_s_max: float = 0.0
    poll_ms: int = POLL_MS_MIN
    buffer_bytes_max: int = 256 * 1024**2
    shards_per_task: int = 5
    shards_refresh_ms: int = 10_000
    retry_ms_max: int = 60_000
    idle_wait_ms: int = 500
    catch_up_behind_ms: int = 300_000
    batch_rows_max: int = 100_000
    batch_bytes_max: int = 128 * 1024**2
    spool_folder: str | None = None
    fail_on_data_loss: bool = True
    service_credential: str | None = None
    access_key: str | None = None
    secret_key: str | None = None
    session_token: str | None = None
    role_arn: str | None = None
    role_external_id: str | None = None
    role_session_name: str | None = None
    sts_endpoint_url: str | None = None

    def __repr__(self) -> str:
        shown = {
            f.name: "***" if f.name in _SECRET_FIELDS and getattr(self, f.name) else getattr(self, f.name)
            for f in fields(self)
        }
        return f"Options({', '.join(f'{name}={value!r}' for name, value in shown.items())})"


_SECRET_FIELDS: Final = frozenset({"access_key", "secret_key", "session_token", "role_external_id"})


_BY_NAME: Final = {spec.name.lower(): spec for spec in SPECS}


def parse_options(given: Mapping[str, str]) -> Options:
    """Typed options, or the first refusal. Names are compared without regard to case, as Spark's are."""
    values: dict[str, Any] = {}
    id_type = "name"
    for name, text in given.items():
        spec = _BY_NAME.get(name.lower())
        if spec is None:
            near = get_close_matches(name.lower(), _BY_NAME, n=1)
            hint = f"is {_BY_NAME[near[0]].name} meant?" if near else f"known are {', '.join(s.name for s in SPECS)}"
            raise OptionError.of(name, "is not known", hint=hint)
        if spec.status == "not supported":
            raise OptionError.of(spec.name, "is not supported", hint=spec.meaning)
        if spec.name == "registeredConsumerIdType":
            id_type = _value(spec, str(text))
        if spec.field is not None:
            values[spec.field] = _value(spec, str(text))
    if "streams" not in values:
        raise OptionError.of("streamName", "is missing", hint="name the stream to read")
    if id_type == "arn" and "consumer_name" in values:
        values["consumer_arn"] = values.pop("consumer_name")
    options = Options(**values)
    _check_together(options)
    return options


def _value(spec: OptionSpec, text: str) -> Any:
    try:
        value = spec.parse(text)
    except ValueError as error:
        shown = "its value" if spec.field in _SECRET_FIELDS else str(error)
        raise OptionError.of(spec.name, shown, hint=spec.meaning) from None
    if spec.low is not None and value < spec.low:
        raise OptionError.of(spec.name, f"{text} is below {spec.low:g}", hint=spec.meaning)
    if spec.high is not None and value > spec.high:
        raise OptionError.of(spec.name, f"{text} is above {spec.high:g}", hint=spec.meaning)
    return value


def _check_together(options: Options) -> None:
    if options.region and not options.endpoint_url and not _REGION.fullmatch(options.region):
        # An unknown region is an unknown host: it would be tried again until the budget is spent.
        raise OptionError.of("region", f"{options.region!r} is no region's name", hint="for example us-east-1")
    if (options.access_key is None) != (options.secret_key is None):
        missing = "awsSecretKey" if options.secret_key is None else "awsAccessKey"
        raise OptionError.of(missing, "is missing", hint="give awsAccessKey and awsSecretKey together, or neither")
    if options.service_credential and (options.access_key or options.role_arn):
        raise OptionError.of(
            "serviceCredential", "is given together with keys or a role", hint="choose one way to authenticate"
        )
    if options.consumer_mode == "efo" and not (options.consumer_name or options.consumer_arn):
        raise OptionError.of(
            "registeredConsumerId", "is missing", hint="consumerMode=efo needs the name or ARN of a stream consumer"
        )
    if options.consumer_arn and len(options.streams) > 1:
        raise OptionError.of(
            "registeredConsumerIdType", "ARN names a consumer of one stream", hint="use name for several streams"
        )

"""The source's options: the names of Databricks' `kinesis`, checked once; a refusal names the option and the mend."""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from difflib import get_close_matches
from typing import Any, Final

from config.limits import KINESIS_GET_RECORDS_MAX
from streaming_job.kinesis.errors import OptionError

_UNITS_MS: Final = {"ms": 1, "s": 1000, "m": 60_000, "min": 60_000, "h": 3_600_000, "": 1}
_UNITS_BYTES: Final = {"": 1, "b": 1, "k": 1024, "kb": 1024, "m": 1024**2, "mb": 1024**2, "g": 1024**3, "gb": 1024**3}
_REGION = re.compile(r"[a-z]{2}(-[a-z]+){1,3}-[0-9]+")
_QUANTITY = re.compile(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([a-z]*)\s*")

POLL_MS_MIN: Final = 200
"""Five reads a second and shard, for all consumers together."""


@dataclass(frozen=True)
class InitialPosition:
    """`trim_horizon`, `latest`, or a time."""

    kind: str
    at_ms: int = 0


@dataclass(frozen=True, repr=False)
class Options:
    """What a query was given, typed. Its text holds no secret."""

    streams: tuple[str, ...]
    region: str | None = None
    endpoint_url: str | None = None
    initial_position: InitialPosition = InitialPosition("latest")
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


def _quantity(units: Mapping[str, int], what: str) -> Callable[[str], int]:
    def parse(text: str) -> int:
        match = _QUANTITY.fullmatch(text.lower())
        if match is None or match[2] not in units:
            raise ValueError(f"{text!r} is no {what}")
        return int(float(match[1]) * units[match[2]])

    return parse


_duration_ms = _quantity(_UNITS_MS, "duration such as 200ms, 10s, 2m")
_size = _quantity(_UNITS_BYTES, "size such as 500kb, 64mb, 2gb")


def _boolean(text: str) -> bool:
    if text.lower() not in ("true", "false"):
        raise ValueError(f"{text!r} is neither true nor false")
    return text.lower() == "true"


def _names(text: str) -> tuple[str, ...]:
    names = tuple(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
    for name in names:
        if not re.fullmatch(r"[a-zA-Z0-9_.-]{1,128}", name):
            raise ValueError(f"{name!r} is no stream name")
    if not names:
        raise ValueError("no stream is named")
    return names


def _mode(text: str) -> str:
    if text.lower() not in ("polling", "efo"):
        raise ValueError(f"{text!r} is neither polling nor efo")
    return text.lower()


def _id_type(text: str) -> str:
    if text.lower() not in ("name", "arn"):
        raise ValueError(f"{text!r} is neither name nor ARN")
    return text.lower()


def initial_position(text: str) -> InitialPosition:
    """`latest`, `trim_horizon`, `earliest`, an ISO time, or Databricks' JSON with `at_timestamp` and `format`."""
    word = text.strip()
    if word.lower() in ("latest", "trim_horizon"):
        return InitialPosition(word.lower())
    if word.lower() == "earliest":
        return InitialPosition("trim_horizon")
    if word.startswith("{"):
        word = _databricks_time(word)
    try:
        moment = datetime.fromisoformat(word)
    except ValueError:
        raise ValueError(
            f"{text!r} is none of latest, trim_horizon, earliest, or a time such as 2026-01-31T10:00:00Z"
        ) from None
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return InitialPosition("at_timestamp", int(moment.timestamp() * 1000))


def _databricks_time(text: str) -> str:
    """Databricks writes {"at_timestamp": "06/25/2020 10:23:45 UTC", "format": "MM/dd/yyyy HH:mm:ss ZZZ"}."""
    try:
        value = json.loads(text)
        given = str(value["at_timestamp"]).strip()
    except (ValueError, KeyError, TypeError):
        raise ValueError(f'{text!r} is no JSON such as {{"at_timestamp": "2026-01-31T10:00:00Z"}}') from None
    match = re.fullmatch(r"(\d\d)/(\d\d)/(\d{4}) (\d\d:\d\d:\d\d)\s*(UTC|GMT|Z|[+-]\d\d:?\d\d)?", given)
    if match is None:
        return given
    month, day, year, time, zone = match.groups()
    return f"{year}-{month}-{day}T{time}{zone if zone and zone[0] in '+-' else '+00:00'}"


@dataclass(frozen=True)
class OptionSpec:
    """One row of the table in README.md."""

    name: str
    default: str
    status: str
    meaning: str
    field: str | None = None
    parse: Callable[[str], Any] = str
    low: float | None = None
    high: float | None = None


_SAME: Final = "same"
_DIFFERS: Final = "differs"
_OURS: Final = "ours"
_IGNORED: Final = "accepted, no effect"

SPECS: Final[tuple[OptionSpec, ...]] = (
    OptionSpec("streamName", "required", _SAME, "comma-separated names of the streams to read", "streams", _names),
    OptionSpec("region", "AWS_REGION and the profile", _SAME, "the streams' region", "region"),
    OptionSpec(
        "endpointUrl", "AWS itself", _OURS, "another address of Kinesis: an emulator, a VPC endpoint", "endpoint_url"
    ),
    OptionSpec(
        "initialPosition",
        "latest",
        _SAME,
        "where a query without a checkpoint starts: `latest`, `trim_horizon`, `earliest`, "
        '`{"at_timestamp": …}`, or an ISO time',
        "initial_position",
        initial_position,
    ),
    OptionSpec("consumerMode", "polling", _SAME, "`polling`, or `efo` for enhanced fan-out", "consumer_mode", _mode),
    OptionSpec(
        "registeredConsumerId",
        "none",
        _DIFFERS,
        "with `efo`: a consumer's name (registered where it is missing) or, with `registeredConsumerIdType=ARN`, "
        "its ARN. Required: a name made up by the query would leave a consumer behind at each new checkpoint",
        "consumer_name",
    ),
    OptionSpec("registeredConsumerIdType", "name", _SAME, "`name` or `ARN`", None, _id_type),
    OptionSpec(
        "requireConsumerDeregistration",
        "false",
        _SAME,
        "with `efo`: remove the consumer when the query stops",
        "deregister_consumer",
        _boolean,
    ),
    OptionSpec(
        "maxRecordsPerFetch",
        "10000",
        _SAME,
        "records of one GetRecords call; aggregated records give more rows",
        "fetch_records_max",
        int,
        1,
        KINESIS_GET_RECORDS_MAX,
    ),
    OptionSpec(
        "maxFetchRate",
        "0",
        _DIFFERS,
        "MB a second and shard; 0 reads as fast as the shard gives (Databricks: 1.0), throttles are backed off",
        "fetch_mb_s_max",
        float,
        0,
        None,
    ),
    OptionSpec(
        "minFetchPeriod",
        "200ms",
        _DIFFERS,
        "least time between two reads of a shard (Databricks: 400ms); 200ms is the shard's limit",
        "poll_ms",
        _duration_ms,
        POLL_MS_MIN,
        60_000,
    ),
    OptionSpec(
        "fetchBufferSize",
        "256mb",
        _DIFFERS,
        "bytes read ahead on the driver for all shards (Databricks: 20gb on the executors); a stopping condition: the "
        "last answer of a shard may exceed it",
        "buffer_bytes_max",
        _size,
        1024**2,
        None,
    ),
    OptionSpec(
        "shardsPerTask",
        "5",
        _SAME,
        "shards whose buffered rows one task carries near the tip; behind, each shard has a task",
        "shards_per_task",
        int,
        1,
        1000,
    ),
    OptionSpec(
        "shardFetchInterval",
        "10s",
        _DIFFERS,
        "how often the shards are listed (Databricks: 1s); a shard's end makes a listing at once",
        "shards_refresh_ms",
        _duration_ms,
        1000,
        3_600_000,
    ),
    OptionSpec(
        "maxRecordsPerTrigger",
        "100000",
        _OURS,
        "rows of one batch; exact where rows come from the buffer, planned by measured density where executors read",
        "batch_rows_max",
        int,
        1,
        100_000_000,
    ),
    OptionSpec(
        "maxBytesPerTrigger",
        "128mb",
        _OURS,
        "bytes of data of one batch, as maxRecordsPerTrigger; a single record always passes",
        "batch_bytes_max",
        _size,
        1,
        None,
    ),
    OptionSpec(
        "catchUpThreshold",
        "5m",
        _OURS,
        "a shard this far behind its tip is read by the executors, nearer by the driver's threads",
        "catch_up_behind_ms",
        _duration_ms,
        1000,
        None,
    ),
    OptionSpec(
        "maxRetryDuration",
        "60s",
        _OURS,
        "how long failing calls are retried before the query fails",
        "retry_ms_max",
        _duration_ms,
        0,
        None,
    ),
    OptionSpec(
        "idleWait",
        "500ms",
        _OURS,
        "how long planning waits for a first row before it tells Spark that there is none",
        "idle_wait_ms",
        _duration_ms,
        0,
        10_000,
    ),
    OptionSpec(
        "failOnDataLoss",
        "true",
        _OURS,
        "stop when records were trimmed before they were read, or the stream was made anew; `false` goes on and counts",
        "fail_on_data_loss",
        _boolean,
    ),
    OptionSpec("awsAccessKey", "the default chain", _SAME, "static credentials; prefer a role", "access_key"),
    OptionSpec("awsSecretKey", "the default chain", _SAME, "with awsAccessKey", "secret_key"),
    OptionSpec("awsSessionToken", "none", _OURS, "with temporary keys", "session_token"),
    OptionSpec("roleArn", "none", _SAME, "a role to assume, renewed before it expires", "role_arn"),
    OptionSpec("roleExternalId", "none", _SAME, "with roleArn", "role_external_id"),
    OptionSpec("roleSessionName", "lakestream", _SAME, "with roleArn", "role_session_name"),
    OptionSpec("stsEndpoint", "the region's", _SAME, "with roleArn: another address of STS", "sts_endpoint_url"),
    OptionSpec(
        "serviceCredential", "none", _SAME, "a Databricks service credential; only on Databricks", "service_credential"
    ),
    OptionSpec("streamARN", "", "not supported", "name the streams by streamName and region"),
    OptionSpec(
        "consumerNamePrefix", "", "not supported", "give registeredConsumerId: a name that outlives the checkpoint"
    ),
    OptionSpec("maxFetchDuration", "", _IGNORED, "rows are taken as they come, there is no fetch step to bound"),
    OptionSpec("clientRetries", "", _IGNORED, "see maxRetryDuration: retries are bounded in time"),
    OptionSpec("consumerRefreshInterval", "", _IGNORED, "a subscription renews itself when it ends"),
    OptionSpec("maxShardsPerDescribe", "", _IGNORED, "shards are listed by ListShards, all pages"),
    OptionSpec("coalesceThresholdBlockSize", "", _IGNORED, "no blocks are kept on executors"),
    OptionSpec("coalesce", "", _IGNORED, "no blocks are kept on executors"),
    OptionSpec("coalesceBinSize", "", _IGNORED, "no blocks are kept on executors"),
    OptionSpec("reuseKinesisClient", "", _IGNORED, "one client a process, always"),
)

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

"""Every option of the source, row by row as README.md's table has them."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from config.limits import KINESIS_GET_RECORDS_MAX
from streaming_job.kinesis.option_values import (
    boolean,
    consumer_mode,
    duration_ms,
    id_type,
    initial_position,
    rate,
    size,
    stream_names,
)

POLL_MS_MIN: Final = 200
"""Five reads a second and shard, for all consumers together."""


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
    OptionSpec(
        "streamName", "required", _SAME, "comma-separated names of the streams to read", "streams", stream_names
    ),
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
    OptionSpec(
        "consumerMode", "polling", _SAME, "`polling`, or `efo` for enhanced fan-out", "consumer_mode", consumer_mode
    ),
    OptionSpec(
        "registeredConsumerId",
        "none",
        _DIFFERS,
        "with `efo`: a consumer's name (registered where it is missing) or, with `registeredConsumerIdType=ARN`, "
        "its ARN. Required: a name made up by the query would leave a consumer behind at each new checkpoint",
        "consumer_name",
    ),
    OptionSpec("registeredConsumerIdType", "name", _SAME, "`name` or `ARN`", None, id_type),
    OptionSpec(
        "requireConsumerDeregistration",
        "false",
        _SAME,
        "with `efo`: remove the consumer when the query stops",
        "deregister_consumer",
        boolean,
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
        rate,
        0,
        None,
    ),
    OptionSpec(
        "minFetchPeriod",
        "200ms",
        _DIFFERS,
        "least time between two reads of a shard (Databricks: 400ms); 200ms is the shard's limit",
        "poll_ms",
        duration_ms,
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
        size,
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
        duration_ms,
        1000,
        3_600_000,
    ),
    OptionSpec(
        "maxRecordsPerTrigger",
        "100000",
        _OURS,
        "rows of one batch; exact where rows come from the buffer (a single record of Kinesis always passes), planned "
        "by measured density where executors read",
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
        size,
        1,
        None,
    ),
    OptionSpec(
        "spoolFolder",
        "none",
        _OURS,
        "a folder of the driver's: rows read ahead are left in files there for a `foreachBatch` that takes them by "
        "`spool.left_rows(frame)`, without a task; read the ordinary way, the frame has an executor read them again",
        "spool_folder",
    ),
    OptionSpec(
        "catchUpThreshold",
        "5m",
        _OURS,
        "a shard this far behind its tip is read by the executors, nearer by the driver's threads",
        "catch_up_behind_ms",
        duration_ms,
        1000,
        None,
    ),
    OptionSpec(
        "maxRetryDuration",
        "60s",
        _OURS,
        "how long failing calls are retried before the query fails",
        "retry_ms_max",
        duration_ms,
        0,
        None,
    ),
    OptionSpec(
        "idleWait",
        "500ms",
        _OURS,
        "how long planning waits for a first row before it tells Spark that there is none",
        "idle_wait_ms",
        duration_ms,
        0,
        10_000,
    ),
    OptionSpec(
        "failOnDataLoss",
        "true",
        _OURS,
        "stop when records were trimmed before they were read, or the stream was made anew; `false` goes on and counts",
        "fail_on_data_loss",
        boolean,
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

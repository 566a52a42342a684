"""Limits of the services we speak to: what, its unit, and where it is documented. Relations are asserted below."""

from typing import Final

# Kinesis Data Streams, "Quotas and limits" and the API reference of PutRecords and GetRecords.
KINESIS_PUT_RECORDS_MAX: Final = 500
KINESIS_PUT_BYTES_MAX: Final = 10 * 1024 * 1024
"""Of one PutRecords call: data and partition keys together."""
KINESIS_RECORD_BYTES_MAX: Final = 1024 * 1024
"""Of one record: data and partition key together (10 MiB by opt-in, which we do not assume)."""
KINESIS_PARTITION_KEY_CHARS_MAX: Final = 256
KINESIS_GET_CALLS_PER_SHARD_S_MAX: Final = 5
KINESIS_GET_RECORDS_MAX: Final = 10_000
KINESIS_GET_BYTES_MAX: Final = 10 * 1024 * 1024
KINESIS_SHARD_WRITE_RECORDS_S_MAX: Final = 1_000
KINESIS_SHARD_WRITE_BYTES_S_MAX: Final = 1024 * 1024
KINESIS_SHARD_READ_BYTES_S_MAX: Final = 2 * 1024 * 1024
"""Of all consumers that poll, together; with enhanced fan-out each has as much to itself."""
KINESIS_ON_DEMAND_WRITE_BYTES_S: Final = 200 * 1024 * 1024
"""Of an on-demand stream by default; 10 GB in us-east-1, us-west-2 and eu-west-1, and elsewhere on request."""
KINESIS_PROVISIONED_SHARDS: Final = 500
"""Of an account in the largest regions by default; raised on request."""
KINESIS_ITERATOR_AGE_S_MAX: Final = 300
KINESIS_RETENTION_H_MIN: Final = 24
KINESIS_RETENTION_H_MAX: Final = 8760

# DynamoDB, "Quotas", and DynamoDB Streams.
DYNAMODB_ITEM_BYTES_MAX: Final = 400 * 1024
DYNAMODB_NUMBER_DIGITS_MAX: Final = 38
DYNAMODB_NESTING_MAX: Final = 32
DYNAMODB_STREAM_RETENTION_H: Final = 24
DYNAMODB_WRITE_UNIT_BYTES: Final = 1024
DYNAMODB_PARTITION_WRITE_UNITS_S_MAX: Final = 1_000
"""A partition is a shard of the table's stream; it bounds what one key can take too."""
DYNAMODB_TABLE_WRITE_UNITS_S: Final = 40_000
"""By default; raised on request."""

# Lambda event source mappings for DynamoDB streams.
MAPPING_BATCH_RECORDS_MAX: Final = 10_000
MAPPING_BATCH_BYTES_MAX: Final = 6 * 1024 * 1024
MAPPING_WINDOW_S_MAX: Final = 300
MAPPING_PARALLELIZATION_MAX: Final = 10
MAPPING_POLLS_PER_SHARD_S: Final = 4

# Lambda, "Quotas" and "Configure memory".
LAMBDA_CONCURRENCY: Final = 1_000
"""Of an account in a region by default; raised on request."""
LAMBDA_MEMORY_MB_PER_CORE: Final = 1_769

# CloudWatch, PutMetricData.
CLOUDWATCH_METRICS_PER_CALL_MAX: Final = 1_000
CLOUDWATCH_VALUES_PER_METRIC_MAX: Final = 150

# SQL, and Python's datetime.
CALENDAR_MS_MAX: Final = 253_402_300_799_999
"""The last millisecond of the year 9999."""

# Ours.
RETENTION_GUARD: Final = 0.75
"""Of what a stream keeps: with the oldest unread record past this, everybody is told, long before it is lost."""
SEQUENCE_DIGITS: Final = 40
"""Sequence numbers have 21 to 40 digits; padded to this they order as text."""
GENERATION_DIGITS: Final = 17

assert KINESIS_RECORD_BYTES_MAX <= KINESIS_PUT_BYTES_MAX
assert KINESIS_PARTITION_KEY_CHARS_MAX * 4 < KINESIS_RECORD_BYTES_MAX
assert DYNAMODB_ITEM_BYTES_MAX < KINESIS_RECORD_BYTES_MAX
assert KINESIS_RETENTION_H_MIN >= DYNAMODB_STREAM_RETENTION_H

"""Checks of the source side: the tables and their streams, the bridge's mapping, the change stream, the bucket."""

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from botocore.exceptions import ClientError

from config.limits import DYNAMODB_STREAM_RETENTION_H
from config.settings import BucketSettings, Settings
from config.tables import TableConfig
from streaming_job.aws import is_emulator
from streaming_job.operations.doctor_findings import DENIED, Finding, code_of, note, ok, problem, warning

_VIEWS: Final = {
    "KEYS_ONLY": "problem",
    "OLD_IMAGE": "problem",
    "NEW_IMAGE": "warning",
    "NEW_AND_OLD_IMAGES": "ok",
}
_SKEW_S_MAX: Final = 5
_RETENTION_COMFORT_H: Final = 72
"""A weekend: a job that fails on Friday evening must not have lost anything on Monday morning."""

Client = Callable[[str], Any]


@dataclass(frozen=True, slots=True)
class Source:
    settings: Settings
    client: Client
    now_s: Callable[[], float] = time.time

    # --- DynamoDB -----------------------------------------------------------------------------------------------------

    def table(self, config: TableConfig) -> Iterator[Finding]:
        check = f"table {config.table}"
        try:
            description = self.client("dynamodb").describe_table(TableName=config.table)["Table"]
        except ClientError as error:
            if code_of(error) != "ResourceNotFoundException":
                raise
            yield problem(
                check, f"there is no such table in {self.settings.aws.region}", "check its name and aws.region"
            )
            return
        yield from _stream_of(check, description)
        yield from _key_of(check, description, config)
        yield from self._expiry_of(check, config)

    def _expiry_of(self, check: str, config: TableConfig) -> Iterator[Finding]:
        answer = self.client("dynamodb").describe_time_to_live(TableName=config.table)["TimeToLiveDescription"]
        attribute = answer.get("AttributeName") if answer["TimeToLiveStatus"] in ("ENABLED", "ENABLING") else None
        declared = config.bridge.ttl_attribute
        if attribute == declared:
            yield ok(check, f"expires by {attribute}" if attribute else "nothing expires")
        else:
            yield warning(
                check,
                f"expires by {attribute or 'nothing'}, its rules say {declared or 'nothing'}",
                f"set bridge.ttl_attribute to {attribute}"
                if attribute
                else "turn the table's TTL on, or drop the rule",
            )

    def readable(self, config: TableConfig) -> Iterator[Finding]:
        check = f"reading {config.table}"
        self.client("dynamodb").scan(TableName=config.table, Limit=1)
        yield ok(check, "verify and snapshot may Scan it")

    # --- the bridge's mapping -----------------------------------------------------------------------------------------

    def mapping(self, config: TableConfig) -> Iterator[Finding]:
        check = f"mapping of {config.table}"
        arn = self.client("dynamodb").describe_table(TableName=config.table)["Table"].get("LatestStreamArn")
        if arn is None:
            return
        mappings = self.client("lambda").list_event_source_mappings(EventSourceArn=arn)["EventSourceMappings"]
        if not mappings and not self._pipes(arn):
            yield problem(check, "no event source mapping or pipe reads the stream", "deploy the stack")
        for mapping in mappings:
            if is_emulator(self.settings.aws) and mapping.get("State") == "Disabled":
                yield note(check, "is Disabled: the local stack reads the stream by a mapping of its own")
            else:
                yield from _mapping(check, mapping)

    def bridges(self, config: TableConfig) -> list[str]:
        """Names of the functions that read the table's stream."""
        arn = self.client("dynamodb").describe_table(TableName=config.table)["Table"].get("LatestStreamArn")
        mappings = self.client("lambda").list_event_source_mappings(EventSourceArn=arn) if arn else {}
        found = mappings.get("EventSourceMappings", ())
        return [mapping["FunctionArn"].split(":function:")[-1].split(":")[0] for mapping in found]

    def pipes(self, config: TableConfig) -> list[str]:
        """Names of the pipes that read the table's stream."""
        arn = self.client("dynamodb").describe_table(TableName=config.table)["Table"].get("LatestStreamArn")
        return self._pipes(arn) if arn else []

    def _pipes(self, arn: str) -> list[str]:
        """Those that run; none where nobody can tell, an emulator for one."""
        try:
            found = self.client("pipes").list_pipes(SourcePrefix=arn)["Pipes"]
        except ClientError:
            return []
        return [pipe["Name"] for pipe in found if pipe["CurrentState"] == "RUNNING"]

    # --- Kinesis ------------------------------------------------------------------------------------------------------

    def stream(self) -> Iterator[Finding]:
        name = self.settings.source.stream
        check = f"stream {name}"
        kinesis = self.client("kinesis")
        try:
            summary = kinesis.describe_stream_summary(StreamName=name)["StreamDescriptionSummary"]
        except ClientError as error:
            if code_of(error) != "ResourceNotFoundException":
                raise
            yield problem(check, f"there is no such stream in {self.settings.aws.region}", "check source.stream")
            return
        if summary["StreamStatus"] not in ("ACTIVE", "UPDATING"):
            yield problem(check, f"it is {summary['StreamStatus']}", "wait, or make it anew")
        hours = summary["RetentionPeriodHours"]
        if hours < _RETENTION_COMFORT_H:
            yield warning(
                check,
                f"keeps {hours} h: a job that stops on a Friday has lost changes by Monday",
                "raise RetentionHours to 168 beforehand: it brings nothing back",
            )
        else:
            yield ok(check, f"keeps {hours} h, {summary['OpenShardCount']} open shards")
        if summary.get("EncryptionType", "NONE") == "NONE":
            yield warning(
                check, "is not encrypted", "deploy the stack's stream, or StartStreamEncryption with a KMS key"
            )

    def stream_readable(self) -> Iterator[Finding]:
        name = self.settings.source.stream
        kinesis = self.client("kinesis")
        shard = kinesis.list_shards(StreamName=name, MaxResults=1)["Shards"][0]["ShardId"]
        answer = kinesis.get_shard_iterator(StreamName=name, ShardId=shard, ShardIteratorType="LATEST")
        kinesis.get_records(ShardIterator=answer["ShardIterator"], Limit=1)
        yield ok(f"reading {name}", "the job may")
        if self.settings.source.consumer_mode == "efo":
            yield from self._consumer(name)

    def _consumer(self, name: str) -> Iterator[Finding]:
        kinesis = self.client("kinesis")
        arn = kinesis.describe_stream_summary(StreamName=name)["StreamDescriptionSummary"]["StreamARN"]
        wanted = self.settings.source.consumer_name
        names = [consumer["ConsumerName"] for consumer in kinesis.list_stream_consumers(StreamARN=arn)["Consumers"]]
        if wanted in names:
            yield ok(f"consumer {wanted}", "is registered for enhanced fan-out")
        else:
            mend = "register it (kinesis:RegisterStreamConsumer), or set consumer_mode to polling"
            yield problem(f"consumer {wanted}", f"is not registered; there are {', '.join(names) or 'none'}", mend)

    # --- S3 -----------------------------------------------------------------------------------------------------------

    def bucket(self) -> Iterator[Finding]:
        bucket = self.settings.bucket
        if bucket is None:
            yield note("bucket", "none is configured: archive and redrive need one", "add `bucket: {name: …}`")
            return
        check = f"bucket {bucket.name}"
        s3 = self.client("s3")
        try:
            s3.head_bucket(Bucket=bucket.name)
        except ClientError as error:
            if code_of(error) not in ("404", "NoSuchBucket"):
                raise
            yield problem(check, "there is no such bucket", "check bucket.name")
            return
        yield ok(check, "is there")
        yield from self._marks(check, s3, bucket)

    def _marks(self, check: str, s3: Any, bucket: BucketSettings) -> Iterator[Finding]:
        unproven = _names(s3, bucket.name, "unproven/")
        if unproven:
            tables = sorted({name.split("/")[1] for name in unproven})
            mend = "run `lakestream verify` on them; rebuild what differs; then delete the marks"
            yield warning(check, f"changes may have been lost of {', '.join(tables)}", mend)
        yield from self._letters(check, s3, bucket)
        newest = _newest_hour(s3, bucket)
        if newest is None:
            yield note(check, f"nothing lies under {bucket.archive_prefix} yet", "is the delivery stream running?")
        else:
            yield ok(check, f"the archive's newest hour is {newest}")

    def _letters(self, check: str, s3: Any, bucket: BucketSettings) -> Iterator[Finding]:
        try:
            letters = _names(s3, bucket.name, "dead-letters/")
        except ClientError as error:
            if code_of(error) not in DENIED:
                raise
            yield note(check, "dead letters may not be listed by this role", "look with the stack's redrive role")
            return
        if letters:
            more = "at least " if len(letters) == _LISTED_MAX else ""
            yield warning(check, f"{more}{len(letters)} dead letters wait", "`lakestream redrive --dry-run` says why")

    # --- the clock ----------------------------------------------------------------------------------------------------

    def clock(self) -> Iterator[Finding]:
        """Latencies are differences of clocks: ours against AWS's, by the time it answers with."""
        answer = self.client("kinesis").list_streams(Limit=1)
        said = answer["ResponseMetadata"]["HTTPHeaders"].get("date")
        if said is None:
            return
        theirs = datetime.strptime(said, "%a, %d %b %Y %H:%M:%S GMT").replace(tzinfo=UTC)
        apart_s = abs(self.now_s() - theirs.timestamp())
        if apart_s > _SKEW_S_MAX:
            yield warning("clock", f"is {apart_s:.0f} s from AWS's: latency figures lie by that", "run an NTP client")
        else:
            yield ok("clock", "agrees with AWS's")


_LISTED_MAX: Final = 1000


def _names(s3: Any, bucket: str, prefix: str) -> list[str]:
    answer = s3.list_objects_v2(Bucket=bucket, Prefix=prefix, MaxKeys=_LISTED_MAX)
    return [entry["Key"] for entry in answer.get("Contents", ())]


def _newest_hour(s3: Any, bucket: BucketSettings) -> str | None:
    """The last of the folders, which sort by time."""
    prefix = bucket.archive_prefix
    for _ in ("date", "hour"):
        pages = s3.get_paginator("list_objects_v2").paginate(Bucket=bucket.name, Prefix=prefix, Delimiter="/")
        folders = [folder["Prefix"] for page in pages for folder in page.get("CommonPrefixes", ())]
        if not folders:
            return None
        prefix = max(folders)
    return str(prefix.removeprefix(bucket.archive_prefix).strip("/"))


def _stream_of(check: str, description: Mapping[str, Any]) -> Iterator[Finding]:
    stream = description.get("StreamSpecification") or {}
    if not stream.get("StreamEnabled"):
        mend = "turn it on with the view type NEW_AND_OLD_IMAGES, or read the table with `lakestream pull`"
        yield problem(check, "has no stream", mend)
        return
    view = stream["StreamViewType"]
    mend = "make the stream anew with NEW_AND_OLD_IMAGES; that is a new generation: verify or rebuild afterwards"
    match _VIEWS.get(view, "problem"):
        case "ok":
            yield ok(check, f"its stream shows new and old images, for {DYNAMODB_STREAM_RETENTION_H} h")
        case "warning":
            yield warning(check, f"its stream shows {view}: no old images, so a filter cannot tell what left it", mend)
        case _:
            yield problem(check, f"its stream shows only {view}: every change is a dead letter", mend)


def _key_of(check: str, description: Mapping[str, Any], config: TableConfig) -> Iterator[Finding]:
    types = {entry["AttributeName"]: entry["AttributeType"] for entry in description["AttributeDefinitions"]}
    actual = {entry["AttributeName"]: types[entry["AttributeName"]] for entry in description["KeySchema"]}
    declared = {attribute.name: str(attribute.type) for attribute in config.key}
    if actual != declared:
        yield problem(
            check,
            f"its key is {_listed(actual)}, its rules say {_listed(declared)}: every change is a dead letter",
            "correct `key` in its rules file, deploy, then `lakestream redrive`",
        )


def _listed(key: Mapping[str, str]) -> str:
    return ", ".join(f"{name} ({type_})" for name, type_ in key.items())


def _mapping(check: str, mapping: Mapping[str, Any]) -> Iterator[Finding]:
    state = mapping.get("State", "unknown")
    if state not in ("Enabled", "Enabling", "Updating", "Creating"):
        mend = "enable it within 24 h of the time it stopped; after that verify, then rebuild what differs"
        yield problem(check, f"is {state}: the stream is not read", mend)
        return
    yield ok(check, f"is {state}")
    if mapping.get("StartingPosition", "TRIM_HORIZON") != "TRIM_HORIZON":
        mend = "make it anew at TRIM_HORIZON: at LATEST changes between its making and its first poll are skipped"
        yield warning(check, f"started at {mapping['StartingPosition']}", mend)
    if "ReportBatchItemFailures" not in mapping.get("FunctionResponseTypes", ()):
        mend = "set FunctionResponseTypes to ReportBatchItemFailures"
        yield problem(check, "does not listen to partial failures: what the bridge could not send is lost", mend)
    if mapping.get("MaximumRetryAttempts", -1) != -1 and not mapping.get("DestinationConfig", {}).get("OnFailure"):
        mend = "give it an on-failure destination in S3"
        yield problem(check, "gives batches up with no destination for them", mend)

"""Kinesis over boto3: credentials, one call at a time, errors sorted by what the reader does about them."""

import importlib
import json
from collections.abc import Callable, Generator, Mapping
from contextlib import closing
from datetime import UTC, datetime
from functools import lru_cache, partial
from typing import Any, Final

import botocore.session
from botocore.config import Config
from botocore.credentials import (
    AssumeRoleCredentialFetcher,
    CredentialProvider,
    CredentialResolver,
    DeferredRefreshableCredentials,
)
from botocore.eventstream import ParserError
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    EventStreamError,
    NoCredentialsError,
    NoRegionError,
    PartialCredentialsError,
    ProfileNotFound,
)
from urllib3.exceptions import HTTPError

from config.loopback import proxies_to
from streaming_job.kinesis.answers import answer_of, pushed
from streaming_job.kinesis.errors import (
    DeniedError,
    IteratorExpiredError,
    OptionError,
    RejectedError,
    StreamMissingError,
    ThrottledError,
    TransientError,
)
from streaming_job.kinesis.fetch import Answer
from streaming_job.kinesis.offsets import Kind, Position, ShardRef
from streaming_job.kinesis.options import Options
from streaming_job.kinesis.shards import Shard, StreamInfo

_THROTTLES: Final = frozenset(
    {
        "ProvisionedThroughputExceededException",
        "LimitExceededException",
        "KMSThrottlingException",
        "ThrottlingException",
        "Throttling",
        "RequestLimitExceeded",
        "TooManyRequestsException",
        # A subscription that another one holds, or a stream in change: free again in seconds.
        "ResourceInUseException",
    }
)
_DENIALS: Final = frozenset(
    {
        "AccessDeniedException",
        "AccessDenied",
        "UnrecognizedClientException",
        "InvalidClientTokenId",
        "InvalidSignatureException",
        "SignatureDoesNotMatch",
        "MissingAuthenticationTokenException",
        "ExpiredTokenException",
        "ExpiredToken",
        "OptInRequired",
        "KMSAccessDeniedException",
    }
)
_INTERNAL: Final = frozenset({"InternalFailure", "InternalFailureException"})
_AHEAD_OF_CLOCK: Final = "greater than the currentTimestampInMillis"
"""Of an AT_TIMESTAMP: `latest` is our clock's now, which may be later than Kinesis'. Its time comes."""
CONNECTIONS_MAX: Final = 64
"""Threads that read at the same moment; more shards wait for a connection."""
_TIMESTAMP_KEY: Final = "lakestream_timestamp"
_ITERATOR_TYPES: Final = {
    Kind.TRIM_HORIZON: "TRIM_HORIZON",
    Kind.AT_MS: "AT_TIMESTAMP",
    Kind.AFTER: "AFTER_SEQUENCE_NUMBER",
}


class AwsKinesis:
    """The calls of `KinesisApi`, each made exactly once: botocore's own retries would hide throttles and delays."""

    def __init__(self, client: Any, region: str) -> None:
        self._client = client
        self._region = region
        # botocore's parser takes 20 us a record; ours reads the body in one pass and keeps columns.
        client.meta.events.register("before-parse.kinesis.GetRecords", _keep_body)
        # botocore cuts timestamps to whole seconds, Kinesis takes milliseconds.
        client.meta.events.register("before-parameter-build.kinesis.GetShardIterator", _note_timestamp)
        client.meta.events.register("before-call.kinesis.GetShardIterator", _exact_timestamp)

    def describe(self, stream: str) -> StreamInfo:
        summary = self._call(
            "DescribeStreamSummary", stream, lambda: self._client.describe_stream_summary(StreamName=stream)
        )["StreamDescriptionSummary"]
        return StreamInfo(
            name=stream,
            created_ms=round(summary["StreamCreationTimestamp"].timestamp() * 1000),
            retention_ms=int(summary["RetentionPeriodHours"]) * 3_600_000,
            arn=summary["StreamARN"],
        )

    def list_shards(self, stream: str) -> tuple[Shard, ...]:
        shards: list[Shard] = []
        request: dict[str, Any] = {"StreamName": stream}
        while True:
            page = self._call("ListShards", stream, partial(self._client.list_shards, **request))
            for shard in page["Shards"]:
                parents = (shard.get("ParentShardId"), shard.get("AdjacentParentShardId"))
                shards.append(Shard(shard["ShardId"], tuple(parent for parent in parents if parent)))
            if not page.get("NextToken"):
                return tuple(shards)
            request = {"NextToken": page["NextToken"]}

    def iterator(self, ref: ShardRef, position: Position, *, inclusive: bool = False) -> str:
        request: dict[str, Any] = {
            "StreamName": ref.stream,
            "ShardId": ref.shard,
            "ShardIteratorType": "AT_SEQUENCE_NUMBER" if inclusive else _ITERATOR_TYPES[position.kind],
        }
        if position.kind is Kind.AFTER:
            request["StartingSequenceNumber"] = position.sequence
        if position.kind is Kind.AT_MS:
            request["Timestamp"] = datetime.fromtimestamp(position.at_ms / 1000, UTC)
        answer = self._call("GetShardIterator", str(ref), lambda: self._client.get_shard_iterator(**request))
        return str(answer["ShardIterator"])

    def get_records(self, iterator: str, limit: int) -> Answer:
        def call() -> Answer:
            return answer_of(self._client.get_records(ShardIterator=iterator, Limit=limit)["Body"])

        answer: Answer = self._call("GetRecords", "the stream", call)
        return answer

    def subscribe(self, consumer_arn: str, ref: ShardRef, position: Position) -> Generator[Answer]:
        """The events of one subscription; what breaks it is sorted as a call's error is."""
        start: dict[str, Any] = {"Type": _ITERATOR_TYPES[position.kind]}
        if position.kind is Kind.AFTER:
            start["SequenceNumber"] = position.sequence
        if position.kind is Kind.AT_MS:
            # Cut to the whole second by botocore; rows before the time are dropped by the reader.
            start["Timestamp"] = datetime.fromtimestamp(position.at_ms / 1000, UTC)
        answer = self._call(
            "SubscribeToShard",
            str(ref),
            lambda: self._client.subscribe_to_shard(
                ConsumerARN=consumer_arn, ShardId=ref.shard, StartingPosition=start
            ),
        )
        with closing(answer["EventStream"]) as stream:
            events = iter(stream)
            while event := self._call("SubscribeToShard", str(ref), lambda: next(events, None)):
                if "SubscribeToShardEvent" in event:
                    yield pushed(event["SubscribeToShardEvent"])

    def consumer(self, stream_arn: str, name: str) -> str | None:
        """ARN of an active consumer, registered where it is missing; None while it is being made."""
        try:
            found = self._call(
                "DescribeStreamConsumer",
                name,
                lambda: self._client.describe_stream_consumer(StreamARN=stream_arn, ConsumerName=name),
            )["ConsumerDescription"]
        except StreamMissingError:
            self._call(
                "RegisterStreamConsumer",
                name,
                lambda: self._client.register_stream_consumer(StreamARN=stream_arn, ConsumerName=name),
            )
            return None
        return str(found["ConsumerARN"]) if found["ConsumerStatus"] == "ACTIVE" else None

    def deregister(self, consumer_arn: str) -> None:
        self._call(
            "DeregisterStreamConsumer",
            consumer_arn,
            lambda: self._client.deregister_stream_consumer(ConsumerARN=consumer_arn),
        )

    def _call(self, operation: str, subject: str, call: Callable[[], Any]) -> Any:
        try:
            return call()
        except ClientError as error:
            raise self._sorted(operation, subject, error) from error
        except (NoCredentialsError, PartialCredentialsError) as error:
            raise DeniedError(
                f"{operation}: no credentials were found",
                hint="give a role, a profile, or keys; see the options' table",
            ) from error
        # A subscription's events are read from urllib3 and parsed past botocore's own errors.
        except (BotoCoreError, HTTPError, ParserError, ValueError) as error:
            raise TransientError(f"{operation}: {type(error).__name__}: {error}") from error

    def _sorted(self, operation: str, subject: str, error: ClientError) -> Exception:
        code = error.response.get("Error", {}).get("Code", "")
        message = error.response.get("Error", {}).get("Message", "")
        status = int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
        if code in _THROTTLES:
            return ThrottledError(f"{operation}: {code}")
        if code == "ExpiredIteratorException":
            return IteratorExpiredError(f"{operation}: {code}")
        if code == "ResourceNotFoundException":
            return StreamMissingError(
                f"{operation}: {subject} does not exist in {self._region}: {message}",
                hint="check the options streamName and region, and the account of the credentials",
            )
        if code in _DENIALS:
            return DeniedError(
                f"{operation} on {subject} in {self._region} is denied: {code}",
                hint="the role needs kinesis:DescribeStreamSummary, ListShards, GetShardIterator and GetRecords "
                "(SubscribeToShard with consumerMode=efo), and kms:Decrypt where the stream is encrypted",
            )
        # An event has no status to tell by; what it breaks was granted before.
        if status >= 500 or code in _INTERNAL or isinstance(error, EventStreamError) or _AHEAD_OF_CLOCK in message:
            return TransientError(f"{operation}: {code or status}: {message}")
        return RejectedError(f"{operation} on {subject} was refused: {code}: {message}")


def _keep_body(response_dict: dict[str, Any], customized_response_dict: dict[str, Any], **_: Any) -> None:
    if response_dict["status_code"] == 200:
        customized_response_dict["Body"] = response_dict["body"]
        response_dict["body"] = b"{}"


def _note_timestamp(params: Mapping[str, Any], context: dict[str, Any], **_: Any) -> None:
    if "Timestamp" in params:
        context[_TIMESTAMP_KEY] = params["Timestamp"].timestamp()


def _exact_timestamp(params: dict[str, Any], context: Mapping[str, Any], **_: Any) -> None:
    if _TIMESTAMP_KEY in context:
        params["body"] = json.dumps({**json.loads(params["body"]), "Timestamp": context[_TIMESTAMP_KEY]}).encode()


@lru_cache(maxsize=8)
def connect(options: Options) -> AwsKinesis:
    """One client a process, for every task it runs: making one costs as much as a batch. Its credentials renew."""
    session = _session(options)
    try:
        client = session.create_client(
            "kinesis",
            region_name=options.region,
            endpoint_url=options.endpoint_url,
            config=Config(
                retries={"total_max_attempts": 1},
                connect_timeout=5,
                read_timeout=15,
                max_pool_connections=CONNECTIONS_MAX,
                proxies=proxies_to(options.endpoint_url),
                tcp_keepalive=True,
                user_agent_extra="lakestream",
            ),
        )
    except NoRegionError as error:
        raise OptionError.of(
            "region", "is missing, and neither the environment nor the profile names one", hint="for example us-east-1"
        ) from error
    except ProfileNotFound as error:
        raise DeniedError(str(error), hint="name an existing profile in AWS_PROFILE, or give a role or keys") from error
    except ValueError as error:
        raise OptionError.of("endpointUrl", str(error), hint="for example http://127.0.0.1:4566") from error
    return AwsKinesis(client, client.meta.region_name)


class _RoleProvider(CredentialProvider):
    METHOD = "lakestream-role"

    def __init__(self, fetcher: AssumeRoleCredentialFetcher) -> None:
        super().__init__()
        self._fetcher = fetcher

    def load(self) -> DeferredRefreshableCredentials:
        return DeferredRefreshableCredentials(refresh_using=self._fetcher.fetch_credentials, method=self.METHOD)


def _session(options: Options) -> botocore.session.Session:
    """The default chain, or keys, and on top of either a role; or a service credential of the platform."""
    if options.service_credential:
        return _service_credential_session(options.service_credential)
    session = botocore.session.get_session()
    if options.access_key and options.secret_key:
        session.set_credentials(options.access_key, options.secret_key, options.session_token)
    if options.role_arn is None:
        return session
    extra = {"RoleSessionName": options.role_session_name or "lakestream"}
    if options.role_external_id:
        extra["ExternalId"] = options.role_external_id
    source = session.get_credentials()
    if source is None:
        raise DeniedError(
            "no credentials were found to assume roleArn with",
            hint="give a profile, keys, or run under an instance role",
        )
    fetcher = AssumeRoleCredentialFetcher(
        partial(session.create_client, region_name=options.region, endpoint_url=options.sts_endpoint_url),
        source,
        options.role_arn,
        extra_args=extra,
    )
    assumed = botocore.session.get_session()
    assumed.register_component("credential_provider", CredentialResolver([_RoleProvider(fetcher)]))
    return assumed


def _service_credential_session(name: str) -> botocore.session.Session:
    try:
        module = importlib.import_module("databricks.service_credentials")
    except ImportError as error:
        raise OptionError.of(
            "serviceCredential", "service credentials exist on Databricks only", hint="elsewhere give roleArn or keys"
        ) from error
    session: botocore.session.Session = module.getServiceCredentialsProvider(name)
    return session

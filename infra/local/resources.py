"""The AWS resources the local stack needs, as the rest of it names them."""

from dataclasses import dataclass

from infra.local.emulator import Clients
from infra.local.settings import LocalSettings


@dataclass(frozen=True, kw_only=True)
class Resources:
    table_stream_arn: str


def create(clients: Clients, settings: LocalSettings) -> Resources:
    clients("s3").create_bucket(Bucket=settings.bucket)
    clients("kinesis").create_stream(StreamName=settings.stream, ShardCount=1)
    dynamodb = clients("dynamodb")
    dynamodb.create_table(
        TableName=settings.table,
        AttributeDefinitions=[{"AttributeName": "event_id", "AttributeType": "S"}],
        KeySchema=[{"AttributeName": "event_id", "KeyType": "HASH"}],
        BillingMode="PAY_PER_REQUEST",
        StreamSpecification={"StreamEnabled": True, "StreamViewType": "NEW_AND_OLD_IMAGES"},
    )
    dynamodb.get_waiter("table_exists").wait(TableName=settings.table, WaiterConfig={"Delay": 1})
    clients("kinesis").get_waiter("stream_exists").wait(StreamName=settings.stream, WaiterConfig={"Delay": 1})
    return Resources(table_stream_arn=dynamodb.describe_table(TableName=settings.table)["Table"]["LatestStreamArn"])

"""Archive objects have landed: start the Databricks job that reads them, once for all of them.

The events come over a queue, a burst of them as one batch. What is not reported as failed leaves the queue: a run is
known that reads it. The rest stays and comes again; what arrived is in the bucket whatever becomes of the events.
"""

import functools
import os
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

import botocore.session
from aws_lambda_powertools import Logger, Metrics
from aws_lambda_powertools.metrics import MetricUnit
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from bridge_lambda.metrics import NAMESPACE
from infra.arrival.jobs_api import ArrivalError, JobsApi, RefusedError, TokenRefusedError
from infra.arrival.trigger import Outcome, check_one_at_a_time, cover

if TYPE_CHECKING:
    from aws_lambda_powertools.utilities.batch.types import PartialItemFailureResponse
    from aws_lambda_powertools.utilities.typing import LambdaContext

logger = Logger(service="arrival")
metrics = Metrics(namespace=NAMESPACE, service="arrival")

COUNTED: Final = frozenset({"objects", "runs_started", "coalesced", "left_waiting", "token_refused", "retries"})
_TIMEOUT_S: Final = 5


class SystemClock:
    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)


@metrics.log_metrics
@logger.inject_lambda_context(clear_state=True)
def handler(event: dict[str, Any], context: "LambdaContext") -> "PartialItemFailureResponse":
    records = event["Records"]
    count("objects", len(records))
    # The queue's own time of arrival: an object landed before it.
    landed_ms = max(int(record["attributes"]["SentTimestamp"]) for record in records)
    try:
        outcome = start(landed_ms, context.get_remaining_time_in_millis)
    except ArrivalError as error:
        count("token_refused", int(isinstance(error, TokenRefusedError)))
        said = {"what": error.what, "hint": error.hint, "waiting": len(records)}
        logger.error("no run was started", extra=said)  # noqa: TRY400 - a trace would bury it
        return not_done(records)
    count("runs_started" if outcome.started else "coalesced")
    logger.info(
        "started" if outcome.started else "a run that reads it is there",
        extra={"run": outcome.run.run_id, "state": outcome.run.state, "page": outcome.run.page},
    )
    return {"batchItemFailures": []} if outcome.covers else not_done(records)


def not_done(records: list[dict[str, Any]]) -> "PartialItemFailureResponse":
    count("left_waiting", len(records))
    return {"batchItemFailures": [{"itemIdentifier": record["messageId"]} for record in records]}


def start(landed_ms: int, remaining_ms: Callable[[], float]) -> Outcome:
    api = JobsApi(setting("LAKESTREAM_DATABRICKS_HOST"), job_id(), read_token, remaining_ms, SystemClock())
    try:
        try:
            return once(landed_ms, api)
        except TokenRefusedError:
            # It may have been rotated since this environment read it.
            read_token.cache_clear()
            return once(landed_ms, api)
    finally:
        count("retries", api.retries)


def once(landed_ms: int, api: JobsApi) -> Outcome:
    if not _checked:
        check_one_at_a_time(api)
        _checked.add(api.job_id)
    return cover(landed_ms, api)


_checked: Final[set[int]] = set()
"""Jobs whose settings this environment has seen."""


@functools.cache
def read_token() -> str:
    name = setting("LAKESTREAM_TOKEN_SECRET")
    hint = f"put the token into secret {name} as plain text, and let the function's role read it"
    try:
        token = _client("secretsmanager").get_secret_value(SecretId=name).get("SecretString", "").strip()
    except (BotoCoreError, ClientError) as error:
        code = error.response["Error"]["Code"] if isinstance(error, ClientError) else type(error).__name__
        raise TokenRefusedError(f"secret {name}: {code}", hint=hint) from None
    if not token.isascii() or not token or any(mark in token for mark in ' {"\r\n'):
        raise TokenRefusedError(f"secret {name} holds no token", hint=hint)
    return str(token)


def job_id() -> int:
    text = setting("LAKESTREAM_JOB_ID")
    if not text.isdigit():
        raise RefusedError(f"LAKESTREAM_JOB_ID is {text!r}, no number", hint="the job's id stands on its page")
    return int(text)


def setting(name: str) -> str:
    value = os.environ.get(name)
    if not value:
        raise RefusedError(f"{name} is not set", hint="set it in the function's environment")
    return value


def count(name: str, value: float = 1) -> None:
    assert name in COUNTED
    metrics.add_metric(name, MetricUnit.Count, value)


def _client(service: str) -> Any:
    """Of botocore itself, as in the bridge."""
    config = Config(
        connect_timeout=_TIMEOUT_S, read_timeout=_TIMEOUT_S, retries={"mode": "standard", "total_max_attempts": 3}
    )
    return botocore.session.get_session().create_client(service, region_name=setting("AWS_REGION"), config=config)

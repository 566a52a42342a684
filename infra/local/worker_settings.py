"""The mapping's and the delivery's settings, out of what was deployed: a changed template changes what they do."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from infra.local import emulator
from infra.local.deployment import Deployed
from infra.local.errors import NotReadyError

_MEBIBYTE: Final = 1024 * 1024


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where the workers run."""

    endpoint: str
    region: str
    state: Path
    """Each worker has a folder of its own in it."""
    rules: Path
    ports: Mapping[str, int]
    """For /metrics, by worker."""

    @property
    def ledger(self) -> Path:
        return self.state / "expiries" / "ledger"


def worker_settings(deployed: Deployed, place: Place) -> dict[str, dict[str, Any]]:
    """By worker, in the order they start. Items of a table without a TTL attribute do not expire."""
    workers = {"mapping": mapping_settings(deployed, place), "delivery": delivery_settings(deployed, place)}
    if deployed.ttl_attribute is not None:
        workers["expiries"] = {
            "endpoint": place.endpoint,
            "region": place.region,
            "table": deployed.table,
            "attribute": deployed.ttl_attribute,
            "ledger": str(place.ledger),
            "metrics_port": place.ports["expiries"],
        }
    return workers


def mapping_settings(deployed: Deployed, place: Place) -> dict[str, Any]:
    mapping, function = deployed.mapping, deployed.function
    return {
        "endpoint": place.endpoint,
        "region": place.region,
        "table": deployed.table,
        "stream_arn": mapping["EventSourceArn"],
        "state_dir": str(place.state / "mapping"),
        "uuid": mapping["UUID"],
        "function": {
            "name": function["FunctionName"],
            "handler": function["Handler"],
            "timeout_s": int(function["Timeout"]),
            "memory_mb": int(function["MemorySize"]),
            "env": {
                **function["Environment"]["Variables"],
                **emulator.credentials(place.region),
                "AWS_ENDPOINT_URL": place.endpoint,
                # In the artefact they lie beside the code.
                "LAKESTREAM_RULES": str(place.rules),
                "POWERTOOLS_TRACE_DISABLED": "true",  # no X-Ray daemon here
            },
        },
        "batch_size": int(mapping["BatchSize"]),
        "window_s": int(mapping["MaximumBatchingWindowInSeconds"]),
        "parallelization": int(mapping["ParallelizationFactor"]),
        "bisect": bool(mapping["BisectBatchOnFunctionError"]),
        "retries_max": int(mapping["MaximumRetryAttempts"]),
        "age_max_s": int(mapping["MaximumRecordAgeInSeconds"]),
        "report_failures": "ReportBatchItemFailures" in mapping.get("FunctionResponseTypes", ()),
        "on_failure": _on_failure(mapping.get("DestinationConfig", {}).get("OnFailure", {}).get("Destination")),
        "starting_position": mapping["StartingPosition"],
        "expiries": {"attribute": deployed.ttl_attribute, "ledger": str(place.ledger)}
        if deployed.ttl_attribute
        else None,
        "metrics_port": place.ports["mapping"],
    }


def _on_failure(destination: str | None) -> dict[str, Any] | None:
    if not destination:
        return None
    if not destination.startswith("arn:aws:s3:::"):
        raise NotReadyError(
            f"the mapping's on-failure destination {destination} is no bucket", hint="the template names one"
        )
    return {"s3": {"bucket": destination.rsplit(":", 1)[1], "prefix": ""}}


def delivery_settings(deployed: Deployed, place: Place) -> dict[str, Any]:
    delivery: Mapping[str, Any] = deployed.delivery
    hints = delivery["BufferingHints"]
    if delivery["CompressionFormat"] != "GZIP":
        raise NotReadyError(f"the local delivery writes gzip, not {delivery['CompressionFormat']}")
    return {
        "endpoint": place.endpoint,
        "region": place.region,
        "stream": deployed.stream,
        "bucket": delivery["BucketARN"].rsplit(":", 1)[1],
        "prefix": delivery["Prefix"],
        "error_prefix": delivery["ErrorOutputPrefix"],
        "buffer_s": int(hints["IntervalInSeconds"]),
        "buffer_bytes": int(hints["SizeInMBs"]) * _MEBIBYTE,
        "state_dir": str(place.state / "delivery"),
        "metrics_port": place.ports["delivery"],
    }


def archive_prefix(deployed: Deployed) -> str:
    """The folders before the first expression of the prefix: `archive/` of `archive/date=!{timestamp:…}/`."""
    fixed = str(deployed.delivery["Prefix"]).split("!{", 1)[0]
    return fixed[: fixed.rfind("/") + 1]

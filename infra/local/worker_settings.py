"""The mapping's and the delivery's settings, out of what was deployed: a changed template changes what they do."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from infra.local import emulator
from infra.local.deployment import Deployed
from infra.local.errors import NotReadyError

_MEBIBYTE: Final = 1024 * 1024


def mapping_settings(
    deployed: Deployed, *, endpoint: str, region: str, state: Path, rules: Path, metrics_port: int
) -> dict[str, Any]:
    mapping, function = deployed.mapping, deployed.function
    return {
        "endpoint": endpoint,
        "region": region,
        "table": deployed.table,
        "stream_arn": mapping["EventSourceArn"],
        "state_dir": str(state),
        "uuid": mapping["UUID"],
        "function": {
            "name": function["FunctionName"],
            "handler": function["Handler"],
            "timeout_s": int(function["Timeout"]),
            "memory_mb": int(function["MemorySize"]),
            "env": {
                **function["Environment"]["Variables"],
                **emulator.credentials(region),
                "AWS_ENDPOINT_URL": endpoint,
                # In the artefact they lie beside the code.
                "LAKESTREAM_RULES": str(rules),
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
        "metrics_port": metrics_port,
    }


def _on_failure(destination: str | None) -> dict[str, Any] | None:
    if not destination:
        return None
    if not destination.startswith("arn:aws:s3:::"):
        raise NotReadyError(
            f"the mapping's on-failure destination {destination} is no bucket", hint="the template names one"
        )
    return {"s3": {"bucket": destination.rsplit(":", 1)[1], "prefix": ""}}


def delivery_settings(
    deployed: Deployed, *, endpoint: str, region: str, state: Path, metrics_port: int
) -> dict[str, Any]:
    delivery: Mapping[str, Any] = deployed.delivery
    hints = delivery["BufferingHints"]
    if delivery["CompressionFormat"] != "GZIP":
        raise NotReadyError(f"the local delivery writes gzip, not {delivery['CompressionFormat']}")
    return {
        "endpoint": endpoint,
        "region": region,
        "stream": deployed.stream,
        "bucket": delivery["BucketARN"].rsplit(":", 1)[1],
        "prefix": delivery["Prefix"],
        "error_prefix": delivery["ErrorOutputPrefix"],
        "buffer_s": int(hints["IntervalInSeconds"]),
        "buffer_bytes": int(hints["SizeInMBs"]) * _MEBIBYTE,
        "state_dir": str(state),
        "metrics_port": metrics_port,
    }


def archive_prefix(deployed: Deployed) -> str:
    """The folders before the first expression of the prefix: `archive/` of `archive/date=!{timestamp:…}/`."""
    fixed = str(deployed.delivery["Prefix"]).split("!{", 1)[0]
    return fixed[: fixed.rfind("/") + 1]

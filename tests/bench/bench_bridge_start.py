"""The bridge's cold start and size, in the artefact's own environment: what `infra.artefact` builds, and nothing else.

`python -m tests.bench.bench_bridge_start` builds the artefact for this machine's architecture, unpacks it into a
temporary folder as Lambda does, and starts it in fresh interpreters: import, rules, Kinesis client. Lambda's own start
of the interpreter is not in it. Processor time is what the bridge is responsible for; elapsed time also shows what else
the machine was doing. Sizes are those of the artefact that is deployed.
"""

import argparse
import io
import json
import os
import platform
import statistics
import subprocess
import sys
import zipfile
from pathlib import Path
from tempfile import TemporaryDirectory

from infra.artefact import build

TABLE = "chargeminder-car-telemetry"
HERE = f"manylinux2014_{platform.machine()}"
START = """
import json, sys, time
elapsed, spent = time.perf_counter(), time.process_time()
sys.path.insert(0, sys.argv[1])
import bridge_lambda.handler
assert bridge_lambda.handler.load_bridge.cache_info().currsize == 1
print(json.dumps({
    "elapsed_ms": (time.perf_counter() - elapsed) * 1000,
    "processor_ms": (time.process_time() - spent) * 1000,
    "modules": len(sys.modules),
}))
"""


def start(folder: Path) -> dict[str, float]:
    env = {
        "AWS_REGION": "us-east-1",
        "AWS_ACCESS_KEY_ID": "none",
        "AWS_SECRET_ACCESS_KEY": "none",
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_LAMBDA_RUNTIME_API": "127.0.0.1:9001",  # the handler's module makes itself ready; nobody listens
        "LAMBDA_TASK_ROOT": str(folder),  # so that tracing is on, as it is there
        "LAKESTREAM_STREAM": "changes",
        "LAKESTREAM_BUCKET": "bucket",
    }
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", START, str(folder)],
        env=env,
        cwd=folder,
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
    )
    measured: dict[str, float] = json.loads(done.stdout)
    return measured


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--starts", type=int, default=15)
    options = parser.parse_args()
    with TemporaryDirectory(prefix="bridge-") as temporary:
        folder = Path(temporary)
        with zipfile.ZipFile(io.BytesIO(build(TABLE, platform=HERE).zipped())) as archive:
            archive.extractall(folder)
        start(folder)  # the first reads the files from disk
        starts = [start(folder) for _ in range(options.starts)]
    figures: dict[str, float] = {name: round(statistics.median(each[name] for each in starts)) for name in starts[0]}
    figures["elapsed_ms_min"] = round(min(each["elapsed_ms"] for each in starts))
    figures["load_average"] = round(os.getloadavg()[0], 1)
    deployed = build(TABLE)
    figures["unzipped_mib"] = round(deployed.size / 2**20, 1)
    figures["zipped_mib"] = round(len(deployed.zipped()) / 2**20, 1)
    sys.stdout.writelines(f"{name:<16} {value}\n" for name, value in figures.items())
    return 0


if __name__ == "__main__":
    sys.exit(main())

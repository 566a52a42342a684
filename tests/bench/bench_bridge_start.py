"""The bridge's cold start and size, in an environment that holds its lock file's packages and nothing else.

`python -m tests.bench.bench_bridge_start` lays the package out in a temporary folder as Lambda unpacks it - packages,
code, compiled rules, byte code - and starts it in fresh interpreters: import, rules, Kinesis client. Lambda's own
start of the interpreter is not in it. Processor time is what the bridge is responsible for; elapsed time also shows
what else the machine was doing.
"""

import argparse
import compileall
import io
import json
import os
import py_compile
import shutil
import statistics
import subprocess
import sys
import zipfile
from pathlib import Path
from tempfile import TemporaryDirectory

from config.rules import main as compile_rules

ROOT = Path(__file__).parents[2]
LOCK = ROOT / "infra" / "locks" / "bridge.txt"
SERVICES = frozenset(("kinesis", "s3", "secretsmanager"))
"""The services whose models the bridge reads; botocore brings those of all."""
START = """
import json, sys, time
elapsed, spent = time.perf_counter(), time.process_time()
sys.path.insert(0, sys.argv[1])
import bridge_lambda.handler
imported = time.perf_counter()
bridge_lambda.handler.load_bridge()
done = time.perf_counter()
print(json.dumps({
    "elapsed_ms": (done - elapsed) * 1000,
    "import_ms": (imported - elapsed) * 1000,
    "load_ms": (done - imported) * 1000,
    "processor_ms": (time.process_time() - spent) * 1000,
    "modules": len(sys.modules),
}))
"""


def lay_out(folder: Path) -> None:
    """As Lambda unpacks it. Byte code comes with it: the folder is read-only there, each start would compile anew."""
    quietly = ("--quiet", "--disable-pip-version-check", "--no-input")
    locked = ("--require-hashes", "--no-compile", "--target", str(folder), "-r", str(LOCK))
    subprocess.run([sys.executable, "-m", "pip", "install", *quietly, *locked], check=True)
    (folder / "config").mkdir()
    shutil.copytree(ROOT / "bridge_lambda", folder / "bridge_lambda", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("__init__.py", "limits.py"):
        shutil.copy(ROOT / "config" / name, folder / "config")
    assert compile_rules([str(folder / "rules.json")]) == 0
    for model in (folder / "botocore" / "data").iterdir():
        if model.is_dir() and model.name not in SERVICES:
            shutil.rmtree(model)
    compileall.compile_dir(folder, quiet=2, invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH)


def start(folder: Path) -> dict[str, float]:
    env = {
        "AWS_REGION": "us-east-1",
        "AWS_ACCESS_KEY_ID": "none",
        "AWS_SECRET_ACCESS_KEY": "none",
        "AWS_EC2_METADATA_DISABLED": "true",
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


def zipped_bytes(folder: Path) -> int:
    body = io.BytesIO()
    with zipfile.ZipFile(body, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                archive.write(path, path.relative_to(folder))
    return len(body.getvalue())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--starts", type=int, default=15)
    options = parser.parse_args()
    with TemporaryDirectory(prefix="bridge-") as temporary:
        folder = Path(temporary)
        lay_out(folder)
        start(folder)  # the first reads the files from disk
        starts = [start(folder) for _ in range(options.starts)]
        figures = {name: round(statistics.median(each[name] for each in starts)) for name in starts[0]}
        figures["elapsed_ms_min"] = round(min(each["elapsed_ms"] for each in starts))
        figures["load_average"] = round(os.getloadavg()[0], 1)
        figures["unzipped_mib"] = round(sum(p.stat().st_size for p in folder.rglob("*") if p.is_file()) / 2**20, 1)
        figures["zipped_mib"] = round(zipped_bytes(folder) / 2**20, 1)
    sys.stdout.writelines(f"{name:<16} {value}\n" for name, value in figures.items())
    return 0


if __name__ == "__main__":
    sys.exit(main())

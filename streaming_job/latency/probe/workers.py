"""Workers of the Kinesis Client Library: its Java daemon, kept running. Each takes its part of the shards by leases."""

import logging
import os
import shlex
import shutil
import subprocess
import sys
import threading
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from config.settings import Settings
from streaming_job.aws import emulator_credentials, is_emulator
from streaming_job.latency.probe.wire import SOCKET_VARIABLE

ROOT: Final = Path(__file__).parents[3]
STOP_S: Final = 10.0
_AGAIN_S: Final = (1.0, 30.0)
"""Before an ended worker is started again: the first time, and at most."""
_DAEMON: Final = "software.amazon.kinesis.multilang.MultiLangDaemon"
_LOGBACK: Final = """<configuration>
  <appender name="out" class="ch.qos.logback.core.ConsoleAppender">
    <encoder><pattern>%d{HH:mm:ss.SSS} %-5level %logger{20} %msg%n%ex{3}</pattern></encoder>
  </appender>
  <root level="WARN"><appender-ref ref="out"/></root>
</configuration>
"""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    settings: Settings
    application: str
    """Names the lease table: workers of one application share the shards."""
    start: str
    leases_endpoint: str | None
    """Another emulator's address, where the stream's has no DynamoDB."""
    library: Path
    """Holds `amazon_kclpy` with its jars."""
    folder: Path
    """For the daemon's files; its path has no spaces, which the library would split."""
    socket: Path


def properties(plan: Plan, worker: str, processor: Path) -> dict[str, str]:
    aws = plan.settings.aws
    given = {
        "executableName": str(processor),
        "streamName": plan.settings.source.stream,
        "applicationName": plan.application,
        "workerId": worker,
        "AwsCredentialsProvider": "DefaultCredentialsProvider",
        "processingLanguage": "python/3.11",
        "initialPositionInStream": plan.start.upper(),
        "regionName": aws.region,
        "retrievalMode": "POLLING",
        "idleTimeBetweenReadsInMillis": "250",
        # Answers without records tell that the tip was reached.
        "callProcessRecordsEvenForEmptyRecordList": "true",
        "failoverTimeMillis": "3000",
        "shardSyncIntervalMillis": "5000",
        "parentShardPollIntervalMillis": "2000",
        "billingMode": "PAY_PER_REQUEST",
        "metricsLevel": "NONE",
        "clientVersionConfig": "CLIENT_VERSION_CONFIG_COMPATIBLE_WITH_2X",
    }
    if aws.endpoint:
        given |= {"kinesisEndpoint": aws.endpoint, "dynamoDBEndpoint": plan.leases_endpoint or aws.endpoint}
    return given


def environment(plan: Plan) -> dict[str, str]:
    keys = emulator_credentials(plan.settings.aws)
    names = {"aws_access_key_id": "AWS_ACCESS_KEY_ID", "aws_secret_access_key": "AWS_SECRET_ACCESS_KEY"}
    return {
        **os.environ,
        **{names[name]: value for name, value in keys.items()},
        SOCKET_VARIABLE: str(plan.socket),
        "PYTHONPATH": f"{ROOT}{os.pathsep}{plan.library}",
    }


def command(plan: Plan, properties_file: Path, logback: Path) -> list[str]:
    home = os.environ.get("JAVA_HOME")
    java = str(Path(home) / "bin" / "java") if home else shutil.which("java") or "java"
    # Emulators do not speak CBOR.
    cbor = ["-Daws.cborEnabled=false"] if is_emulator(plan.settings.aws) else []
    jars = plan.library / "amazon_kclpy" / "jars" / "*"
    memory = ["-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"]
    given = ["--properties-file", str(properties_file), "--log-configuration", str(logback)]
    return [java, *memory, *cbor, "-cp", str(jars), _DAEMON, *given]


class Worker:
    """One daemon, started again whenever it ends, until it is told to stop."""

    def __init__(self, plan: Plan, name: str, started: Callable[[], None]) -> None:
        folder = plan.folder / name
        folder.mkdir(parents=True)
        processor, properties_file, logback = (
            folder / file for file in ("processor", "worker.properties", "logback.xml")
        )
        python = shlex.join([sys.executable, "-m", "streaming_job.latency.probe.processor"])
        processor.write_text(f"#!/bin/sh\nexec {python}\n", encoding="utf-8")
        processor.chmod(0o700)
        # Of its own at each start: the leases of a worker that was killed are free when they expire, not before.
        identity = f"{name}-{uuid.uuid4().hex[:8]}"
        lines = [f"{key} = {value}" for key, value in properties(plan, identity, processor).items()]
        properties_file.write_text("\n".join(lines) + "\n", encoding="utf-8")
        logback.write_text(_LOGBACK, encoding="utf-8")
        self._command = command(plan, properties_file, logback)
        self._environment: Mapping[str, str] = environment(plan)
        self._name = name
        self._started = started
        self._process: subprocess.Popen[bytes] | None = None
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"probe-{name}", daemon=True)

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process else None

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """The daemon lets its processors write their last checkpoints; what does not end in time is killed."""
        self._stopping.set()
        process = self._process
        if process is not None:
            process.terminate()
            try:
                process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()
        self._thread.join(STOP_S)

    def _run(self) -> None:
        pause_s = _AGAIN_S[0]
        while not self._stopping.is_set():
            self._process = subprocess.Popen(
                self._command, env=dict(self._environment), stdin=subprocess.DEVNULL, stdout=sys.stderr
            )
            self._started()
            code = self._process.wait()
            if not self._stopping.is_set():
                log.warning("a worker ended and is started again", extra={"worker": self._name, "exit_code": code})
            self._stopping.wait(pause_s)
            pause_s = min(_AGAIN_S[1], pause_s * 2)

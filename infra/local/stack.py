"""`lakestream local up` and `down`: the order in which the embedded stack comes and goes, in one place each."""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml

from config.rules import TABLES, compile_rules
from config.tables import TableConfig, load_tables
from infra import validate
from infra.local import checks, emulator, kcl, processes
from infra.local.deployment import Deployed, deploy, validated
from infra.local.errors import NotPossibleError
from infra.local.home import Home, write_json
from infra.local.launching import Launcher, uninterrupted
from infra.local.ports import LOOPBACK, free_ports
from infra.local.processes import Identity
from infra.local.settings import LocalSettings
from infra.local.worker_settings import Place, archive_prefix, worker_settings
from infra.template_model import Template
from infra.template_values import Values

STOP_ORDER = ("dashboard", "job", "probe", "delivery", "mapping", "expiries", "emulator")
"""Readers before what they read, so that none reports the next one's end as a failure."""

Say = Callable[[str], None]
_LAKESTREAM = str(Path(sys.executable).parent / "lakestream")


@dataclass(frozen=True, kw_only=True)
class UpOptions:
    port: int = 0
    metrics_port: int = 0
    job: bool = True
    probe: bool = False
    emulator: str | None = None
    """Address of one that somebody else started, and ends."""


def up(home: Home, settings: LocalSettings, options: UpOptions, say: Say) -> dict[str, object]:
    """Checks, begins anew, starts, waits, and only then writes stack.json. Whatever stops it ends all it started."""
    values = check(home, settings, options)
    with home.locked():
        refuse_second(home)
        home.check_ours()
        home.wipe()
        started: list[Identity] = []
        try:
            return _Start(home, settings, values, options, say=say, started=started).run()
        except BaseException:
            with uninterrupted():
                say("ending what was started")
                stop_all(started, settings.stop_within_s)
                home.journal.unlink(missing_ok=True)
            raise


def check(home: Home, settings: LocalSettings, options: UpOptions) -> Values:
    """Everything that can be known to fail before the first process starts."""
    values = validated(Template.load(settings.template), settings.deploy)
    validate.check_key(values, table_rules(values.parameters["TableName"]))
    compile_rules(TABLES, (validate.table_of(values),))
    if options.emulator is None:
        checks.emulator()
    else:
        _check_emulator(options.emulator, settings)
    if options.job:
        checks.java()
        checks.jars()
    if options.probe:
        checks.java()
        kcl.check()
    checks.disk(home.path, settings.disk_free_gb_min)
    checks.folder(home.path)
    refuse_second(home)
    checks.port(options.port, "--port")
    checks.port(options.metrics_port, "--metrics-port")
    if options.port and options.emulator:
        raise NotPossibleError("--port is the port of an emulator to start, and --emulator names one", hint="give one")
    if options.port and options.port == options.metrics_port:
        raise NotPossibleError(f"--port and --metrics-port are both {options.port}", hint="0 takes a free one")
    return values


def _check_emulator(endpoint: str, settings: LocalSettings) -> None:
    """One that somebody else started: on this machine, there, and empty."""
    parts = urlsplit(endpoint)
    if parts.scheme != "http" or parts.hostname != LOOPBACK or not parts.port or parts.path.strip("/"):
        raise NotPossibleError(
            f"--emulator {endpoint!r} is no http://{LOOPBACK}:PORT", hint="only loopback is emulated"
        )
    if emulator.answers(f"{endpoint}/_ministack/ready") != 200:
        raise NotPossibleError(f"no emulator answers at {endpoint}", hint="start it, or leave --emulator out")
    if validate.stack_status(emulator.Clients(endpoint, settings.region), settings.stack) is not None:
        raise NotPossibleError(
            f"the emulator at {endpoint} holds a stack {settings.stack} already", hint="give one that is empty"
        )


def refuse_second(home: Home) -> None:
    if running := home.running():
        raise NotPossibleError(
            f"a stack runs in {home.path} already ({running[0].name}, pid {running[0].pid})",
            hint="use it, end it with `lakestream local down`, or name another folder with --dir",
        )


def table_rules(table: str) -> TableConfig:
    tables = load_tables(TABLES)
    if table not in tables:
        raise NotPossibleError(
            f"no rules for table {table!r}", hint="add its file to config/tables, or name another table"
        )
    return tables[table]


class _Start:
    """One start; its steps read from top to bottom in `run`."""

    def __init__(
        self,
        home: Home,
        settings: LocalSettings,
        values: Values,
        options: UpOptions,
        *,
        say: Say,
        started: list[Identity],
    ) -> None:
        self._home, self._settings, self._values = home, settings, values
        self._options, self._say, self._started = options, say, started
        port, job, mapping, delivery, expiries, dashboard, probe = free_ports(7)
        self._port = options.port or port
        self._ports = {
            "job": options.metrics_port or job,
            "mapping": mapping,
            "delivery": delivery,
            "expiries": expiries,
            "dashboard": dashboard,
            "probe": probe,
        }
        self._endpoint = options.emulator or emulator.endpoint_of(self._port)
        self._env = emulator.process_environment(self._endpoint, settings.region)
        self._launcher = Launcher(home, settings.ready_within_s, started)

    def run(self) -> dict[str, object]:
        rules = self._home.file("rules.json")
        write_json(rules, compile_rules(TABLES, (validate.table_of(self._values),)))
        if self._options.emulator is None:
            self._say("emulator")
            self._start_emulator()
        self._say("deploying the template")
        clients = emulator.Clients(self._endpoint, self._settings.region)
        deployed = deploy(clients, self._values, self._settings.deploy, rules=rules)
        self._say("mapping and delivery")
        self._start_workers(deployed, rules)
        job_settings = yaml.safe_dump(self._job_settings(deployed), sort_keys=False)
        self._home.file("job.yaml").write_text(job_settings, encoding="utf-8")
        if self._options.probe:
            self._say("probe")
            self._start_probe()
        if self._options.job:
            self._say("streaming job and dashboard")
            self._start_dashboard(deployed)
            self._start_job()
            self._launcher.wait("dashboard")
        stack = self._stack(deployed)
        write_json(self._home.stack_file, stack)
        return stack

    def _start_emulator(self) -> None:
        env = emulator.environment(self._port, self._home.state, self._settings.region)
        self._launcher.start("emulator", [str(checks.EMULATOR)], env, f"{self._endpoint}/_ministack/ready")
        self._launcher.wait("emulator")

    def _start_workers(self, deployed: Deployed, rules: Path) -> None:
        place = Place(
            endpoint=self._endpoint,
            region=self._settings.region,
            state=self._home.state,
            rules=rules,
            ports=self._ports,
        )
        settings = worker_settings(deployed, place)
        for name, value in settings.items():
            file = self._home.file(f"{name}.json")
            write_json(file, value)
            self._launch(name, [sys.executable, "-m", f"infra.local.{name}", "--settings", str(file)], "metrics")
        for name in settings:
            self._launcher.wait(name)

    def _start_job(self) -> None:
        self._launch("job", [_LAKESTREAM, "run", "--config", str(self._home.file("job.yaml"))], "healthz")
        self._launcher.wait("job")

    def _start_probe(self) -> None:
        """From the stream's beginning, so that its count and the bridge's begin together."""
        command = [_LAKESTREAM, "probe", "--config", str(self._home.file("job.yaml")), "--start", "trim_horizon"]
        command += ["--bridge", self._metrics_urls()["mapping"], "--metrics-port", str(self._ports["probe"])]
        self._launch("probe", command, "metrics")
        self._launcher.wait("probe")

    def _start_dashboard(self, deployed: Deployed) -> None:
        """Before the job, as a process of its own: it is there to say so when the job is not."""
        command = [_LAKESTREAM, "dashboard", "--port", str(self._ports["dashboard"]), "--title", deployed.table]
        for name, url in self._metrics_urls().items():
            command += ["--metrics", f"{name}={url}"]
        command += ["--verify-record", str(self._home.file("verify.json").absolute())]
        self._launch("dashboard", command, "")

    def _metrics_urls(self) -> dict[str, str]:
        """Of every process that publishes figures, the job first."""
        names = ["job"] * self._options.job + ["mapping", "delivery"] + ["probe"] * self._options.probe
        return {name: f"http://{LOOPBACK}:{self._ports[name]}/metrics" for name in names}

    def _launch(self, name: str, command: list[str], page: str) -> None:
        self._launcher.start(name, command, self._env, f"http://{LOOPBACK}:{self._ports[name]}/{page}")

    def _job_settings(self, deployed: Deployed) -> dict[str, Any]:
        """Settings of config/settings.py, so that `lakestream run` needs nothing but this file."""
        job = self._settings.job
        return {
            "aws": {"region": self._settings.region, "endpoint": self._endpoint},
            "source": {"stream": deployed.stream, "starting_position": job.starting_position},
            "lake": {"root": str(self._home.lake.absolute()), "checkpoint": str(self._home.checkpoint.absolute())},
            "bucket": {
                "name": deployed.bucket,
                "archive_prefix": archive_prefix(deployed),
                "failed_batches": f"s3://{deployed.dead_letter_bucket}/",
            },
            "tables": [deployed.table],
            "trigger": {"interval_ms": job.trigger_interval_ms},
            "http": {"host": LOOPBACK, "port": self._ports["job"], "unhealthy_after_s": job.unhealthy_after_s},
            "spark": dict(job.spark),
        }

    def _stack(self, deployed: Deployed) -> dict[str, object]:
        lake = self._home.lake.absolute()
        name = table_rules(deployed.table).lake.name
        metrics = self._metrics_urls()
        return {
            "aws_endpoint": self._endpoint,
            "region": self._settings.region,
            "stream": deployed.stream,
            "bucket": deployed.bucket,
            "dead_letter_bucket": deployed.dead_letter_bucket,
            "archive_prefix": archive_prefix(deployed),
            "dashboard_url": f"http://{LOOPBACK}:{self._ports['dashboard']}/" if self._options.job else None,
            "metrics_url": metrics.get("job"),
            "metrics": metrics,
            "tables": {
                deployed.table: {
                    "current": str(lake / name / "current"),
                    "history": str(lake / name / "history"),
                    "rejects": str(lake / "rejects"),
                    "latency": str(lake / "latency"),
                }
            },
            "processes": {process.name: process.as_json() for process in self._started},
        }


def down(home: Home, settings: LocalSettings, say: Say) -> dict[str, bool]:
    """Ends what runs, and says of each process whether it ended in time; empty when nothing ran."""
    if not home.path.is_dir():
        return {}
    with home.locked():
        running = home.running()
        ended = stop_all(home.processes(), settings.stop_within_s, say)
        home.stack_file.unlink(missing_ok=True)
        home.journal.unlink(missing_ok=True)
        names = {process.name for process in running}
        return {name: in_time for name, in_time in ended.items() if name in names}


def stop_all(started: list[Identity], within_s: float, say: Say = lambda _: None) -> dict[str, bool]:
    order = {name: place for place, name in enumerate(STOP_ORDER)}
    ended = {}
    for process in sorted(started, key=lambda process: order[process.name]):
        say(process.name)
        ended[process.name] = processes.stop(process, within_s=within_s)
    return ended

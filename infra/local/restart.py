"""`lakestream local restart`: what has ended of a stack runs again, by the very command it was started with."""

from collections.abc import Mapping
from typing import Any

from infra.local import emulator, processes
from infra.local.errors import NotPossibleError
from infra.local.home import Home, write_json
from infra.local.launching import Launcher
from infra.local.stack import Say


def restart(home: Home, ready_within_s: float, say: Say) -> dict[str, int]:
    """Names and new pids; empty when everything runs."""
    stack: Mapping[str, Any] = home.stack()
    with home.locked():
        known = home.processes()
        ended = [process for process in known if not processes.is_alive(process)]
        if any(process.name == "emulator" for process in ended):
            raise NotPossibleError(
                "the emulator has ended, and with it what the table and its streams held",
                hint="`lakestream local down`, then `lakestream local up` begins anew",
            )
        env = emulator.process_environment(stack["aws_endpoint"], stack["region"])
        launcher = Launcher(home, ready_within_s, known)
        for process in ended:
            say(process.name)
            # A killed job may leave its JVM behind, a killed mapping its function.
            processes.stop(process, within_s=0)
            assert process.answers_at is not None
            launcher.start(process.name, process.command, env, process.answers_at)
        for process in ended:
            launcher.wait(process.name)
        write_json(home.stack_file, {**stack, "processes": {process.name: process.as_json() for process in known}})
        return {process.name: process.pid for process in known if process.name in {each.name for each in ended}}

"""A command as a Databricks wheel task: done when it returns, failed when it raises, never by sys.exit."""

import subprocess
import sys

import pytest

from config.errors import ConfigurationError
from streaming_job import task


def test_a_command_that_is_done_returns(capsys: pytest.CaptureFixture[str]) -> None:
    task.run(["cost", "50", "--json"])
    assert capsys.readouterr().out.startswith("{")


def test_an_exit_code_other_than_0_is_a_failure_that_names_it() -> None:
    with pytest.raises(task.TaskFailedError, match="lakestream cost minus-one: exit code 2"):
        task.run(["cost", "minus-one"])


def test_an_error_meant_for_people_stays_what_it_is() -> None:
    with pytest.raises(ConfigurationError, match="cannot read /no/such/file"):
        task.run(["verify", "--config", "/no/such/file"])


def test_the_entry_point_takes_its_words_from_the_command_line() -> None:
    done = subprocess.run(
        [sys.executable, "-c", "from streaming_job.task import main; main(); print('returned')", "cost", "--help"],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert done.stdout.rstrip().endswith("returned")

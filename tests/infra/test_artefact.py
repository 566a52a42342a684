"""The bridge's artefact: complete, for Lambda's runtime, small, and the same for the same input."""

import io
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from templates import synthesized

from config.rules import TABLES, compile_rules
from infra import artefact
from infra.artefact import IN_THE_RUNTIME, Artefact, ArtefactError, own_files


@pytest.fixture(scope="module")
def built() -> Artefact:
    return artefact.build()


def test_the_same_input_gives_the_same_artefact(built: Artefact) -> None:
    again = artefact.build()
    assert again.digest == built.digest
    assert again.zipped() == built.zipped()


def test_another_input_gives_another_key(built: Artefact) -> None:
    changed = Artefact({**built.files, "rules.json": b"{}"})
    assert changed.key != built.key
    assert Artefact({**built.files, "more": b""}).key != built.key


def test_what_is_compiled_is_compiled_for_the_function(built: Artefact) -> None:
    """Architecture and interpreter as template.yaml names them."""
    function = synthesized()["Resources"]["Bridge"]["Properties"]
    assert f"python{artefact.PYTHON}" == function["Runtime"]
    assert artefact.PLATFORM.endswith({"arm64": "aarch64", "x86_64": "x86_64"}[function["Architectures"][0]])
    compiled = [name for name in built.files if name.endswith(".so")]
    assert compiled
    assert all(f"cpython-{artefact.PYTHON.replace('.', '')}-aarch64" in name for name in compiled)


def test_what_the_runtime_has_is_not_carried_twice(built: Artefact) -> None:
    packages = {name.split("/")[0] for name in built.files}
    assert not packages & {name.replace("python-", "") for name in IN_THE_RUNTIME}


def test_nothing_of_the_project_but_the_bridge_is_in_it(built: Artefact) -> None:
    ours = {name for name in built.files if name.split("/")[0] in ("bridge_lambda", "config", "infra", "streaming_job")}
    assert {name for name in ours if not name.startswith("bridge_lambda/")} == {
        "config/__init__.py",
        "config/limits.py",
    }


def test_the_artefact_keeps_to_its_budget_or_says_so(built: Artefact) -> None:
    assert artefact.within_budget(built).size <= artefact.BYTES_MAX
    with pytest.raises(ArtefactError, match="its budget is 1000"):
        artefact.within_budget(built, 1_000)


def test_the_handler_imports_from_the_artefacts_own_code(tmp_path: Path) -> None:
    """With the libraries of this machine beside it: what is missing of ours would show."""
    own = Artefact(own_files(compile_rules(TABLES)))
    with zipfile.ZipFile(io.BytesIO(own.zipped())) as archive:
        archive.extractall(tmp_path)
    code = (
        "import sys, bridge_lambda.handler, config; print(config.__file__, *({'yaml', 'pydantic'} & set(sys.modules)))"
    )
    env = {
        **os.environ,
        "PYTHONPATH": str(tmp_path),
        "AWS_DEFAULT_REGION": "us-east-1",
        "POWERTOOLS_TRACE_DISABLED": "1",
    }
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, env=env, check=True
    )
    assert done.stdout.split() == [str(tmp_path / "config" / "__init__.py")]


def test_a_lock_that_cannot_be_installed_is_one_line(tmp_path: Path) -> None:
    lock = tmp_path / "bridge.txt"
    lock.write_text("orjson==3.13.0 \\\n    --hash=sha256:" + "0" * 64 + "\n")
    with pytest.raises(ArtefactError, match="pip could not install: ERROR"):
        artefact.libraries(lock)

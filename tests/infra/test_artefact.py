"""The bridge's artefact: complete, for Lambda's runtime, small, and the same for the same input."""

import importlib.util
import io
import json
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from templates import synthesized

from config.rules import TABLES, compile_rules
from config.tables import load_tables
from infra import artefact
from infra.artefact import Artefact, ArtefactError, own_files

TABLE = "chargeminder-car-telemetry"


@pytest.fixture(scope="module")
def built() -> Artefact:
    return artefact.build(TABLE)


def test_the_same_input_gives_the_same_artefact(built: Artefact) -> None:
    """Made from nothing, without what was kept."""
    own = own_files(compile_rules(TABLES, (TABLE,)))
    libraries = artefact.libraries()
    again = Artefact({**libraries, **artefact.compiled(libraries), **own, **artefact.compiled(own)})
    assert again.digest == built.digest
    assert again.zipped() == built.zipped()


def test_the_artefact_holds_the_rules_of_its_stacks_own_table_alone(built: Artefact) -> None:
    """Another's may hash with a secret that this bridge is not let at, and then it would not start."""
    assert len(load_tables(TABLES)) > 1
    assert json.loads(built.files["rules.json"])["tables"].keys() == {TABLE}


def test_libraries_that_were_kept_half_are_made_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a lock of one library."""
    (block,) = re.findall(r"(?m)^orjson==(?:.*\\\n)+.*\n", artefact.LOCK.read_text())
    (tmp_path / "bridge.txt").write_text(block)
    monkeypatch.setattr(artefact, "LOCK", tmp_path / "bridge.txt")
    monkeypatch.setattr(artefact, "_CACHE", tmp_path / "cache")
    first = artefact.kept_libraries(artefact.PLATFORM)
    assert any(name.endswith(".pyc") for name in first)
    (kept,) = (tmp_path / "cache").iterdir()
    kept.write_bytes(kept.read_bytes()[:1000])
    assert artefact.kept_libraries(artefact.PLATFORM) == first
    kept.write_bytes(Artefact({"kept": b""}).zipped())
    assert artefact.kept_libraries(artefact.PLATFORM) == {"kept": b""}, "what is kept is not made again"


def test_another_input_gives_another_key(built: Artefact) -> None:
    changed = Artefact({**built.files, "rules.json": b"{}"})
    assert changed.key != built.key
    assert Artefact({**built.files, "more": b""}).key != built.key


def test_what_is_compiled_is_compiled_for_the_function(built: Artefact) -> None:
    """Architecture as template.yaml names it; the runtime that is deployed is the interpreter's that compiled."""
    function = synthesized()["Resources"]["Bridge"]["Properties"]
    assert function["Runtime"] == {"Ref": "PythonRuntime"}
    assert artefact.PLATFORM.endswith({"arm64": "aarch64", "x86_64": "x86_64"}[function["Architectures"][0]])
    libraries = [name for name in built.files if name.endswith(".so")]
    tag = f"cpython-{artefact.PYTHON.replace('.', '')}"
    assert libraries
    assert all(f"{tag}-aarch64" in name for name in libraries)
    assert all(f".{tag}.pyc" in name for name in built.files if name.endswith(".pyc"))


def test_every_source_has_byte_code_that_is_trusted_without_a_look(built: Artefact) -> None:
    """PEP 552: magic number, then flags - 1 is checked or not by hash, 2 by checking it."""
    sources = [name for name in built.files if name.endswith(".py")]
    for name in sources:
        code = built.files[importlib.util.cache_from_source(name)]
        assert code[:4] == importlib.util.MAGIC_NUMBER
        assert int.from_bytes(code[4:8], "little") == 1
    # What a stack trace names is where Lambda has it.
    assert (
        b"/var/task/bridge_lambda/handler.py"
        in built.files[importlib.util.cache_from_source("bridge_lambda/handler.py")]
    )


def test_byte_code_is_not_part_of_what_names_the_artefact(built: Artefact) -> None:
    sources = {name: body for name, body in built.files.items() if not name.endswith(".pyc")}
    assert Artefact(sources).key == built.key


def test_botocore_is_left_with_the_services_that_the_functions_call(built: Artefact) -> None:
    described = {name.split("/")[2] for name in built.files if re.match(r"botocore/data/[^/]+/", name)}
    assert described == artefact.SERVICES
    called = {
        service
        for body in own_files({}).values()
        for service in re.findall(r"""_client\(\s*"([a-z0-9]+)\"""", body.decode())
    }
    assert called == artefact.SERVICES


def test_nothing_of_the_project_but_the_functions_is_in_it(built: Artefact) -> None:
    packages = ("bridge_lambda", "config", "infra", "streaming_job")
    ours = {name for name in built.files if name.split("/")[0] in packages and name.endswith(".py")}
    assert {name for name in ours if not name.startswith(("bridge_lambda/", "infra/arrival/"))} == {
        "config/__init__.py",
        "config/limits.py",
        "infra/__init__.py",
    }


def test_the_artefact_keeps_to_its_budget_or_says_so(built: Artefact) -> None:
    assert artefact.within_budget(built).size <= artefact.BYTES_MAX
    with pytest.raises(ArtefactError, match="its budget is 1000"):
        artefact.within_budget(built, 1_000)


def test_a_source_that_cannot_be_compiled_is_named() -> None:
    with pytest.raises(ArtefactError, match=r"broken\.py"):
        artefact.compiled({"broken.py": b"def ("})


@pytest.mark.parametrize("handler", ["bridge_lambda.handler", "infra.arrival.handler"])
def test_a_handler_imports_from_the_artefacts_own_code(handler: str, tmp_path: Path) -> None:
    """With the libraries of this machine beside it: what is missing of ours would show."""
    own = Artefact(own_files(compile_rules(TABLES)))
    with zipfile.ZipFile(io.BytesIO(own.zipped())) as archive:
        archive.extractall(tmp_path)
    code = (
        f"import sys, {handler}; slow = {{'boto3', 'pydantic', 'yaml'}} & set(sys.modules); "
        f"print(sys.modules['{handler}'].__file__, *slow)"
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
    assert done.stdout.split() == [str(tmp_path / f"{handler.replace('.', '/')}.py")]


def test_a_lock_that_cannot_be_installed_is_one_line(tmp_path: Path) -> None:
    lock = tmp_path / "bridge.txt"
    lock.write_text("orjson==3.13.0 \\\n    --hash=sha256:" + "0" * 64 + "\n")
    with pytest.raises(ArtefactError, match="pip could not install: ERROR"):
        artefact.libraries(lock)

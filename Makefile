# `make` lists the targets. Everything happens inside .venv; nothing is installed elsewhere.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
READY_DEV := $(VENV)/.ready-dev
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
WORKERS ?= 2
COMPILE := $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header \
	--no-annotate --no-emit-index-url --no-emit-find-links

.DEFAULT_GOAL := help
.PHONY: help setup run test check format schema lock check-jobs-model check-jobs-bugs check-tags check-freshness check-freshness-bugs bench-feed bench-jobs bench-cache bench-timings bench-alerts try-alerts chaos-jobs check-pool check-delivery clean

help:  ## List the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'

setup: $(READY) $(READY_DEV)  ## Make the virtual environment with the pinned dependencies

$(READY): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "pgreflex needs Python 3.11 or newer; name one with: make PYTHON=python3.12"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing the pinned dependencies into $(VENV)"
	@$(PIP) --require-hashes --requirement requirements.lock
	@$(PIP) --no-deps --no-build-isolation --editable .
	@touch $@

$(READY_DEV): $(READY) tests/requirements.lock tests/requirements-oracle.lock
	@echo "installing what the tests need"
	@$(PIP) --require-hashes --requirement tests/requirements.lock
	@$(PIP) --require-hashes --requirement tests/requirements-oracle.lock || \
		echo "tdigest could not be built (no C compiler?); the tests that compare with it will be skipped"
	@touch $@

run: $(READY)  ## Start the demo: a Postgres of its own, traffic, and the live picture
	@$(BIN)/pgreflex demo $(ARGS)

test: check  ## Run every check and every test, on a Postgres that they start themselves
	$(BIN)/python -m pytest -n $(WORKERS) $(ARGS)

check: $(READY_DEV)  ## Lint, types and import contracts
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(READY_DEV)  ## Format the code and mend what can be mended
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

schema: $(READY_DEV)  ## Write sql/schema.sql anew from the migrations
	$(BIN)/python -m tests.golden_schema

lock: $(READY_DEV)  ## Pin the newest dependencies that pyproject.toml allows
	$(COMPILE) --extra embedded --group build pyproject.toml --output-file requirements.lock
	$(COMPILE) --group dev --constraint requirements.lock --output-file tests/requirements.lock
	$(COMPILE) --group oracle --constraint tests/requirements.lock --output-file tests/requirements-oracle.lock

check-jobs-model: $(READY_DEV)  ## Compare the job queue with its model over 10,000 random runs
	PGREFLEX_JOBS_RANDOM=1 PGREFLEX_JOBS_EXAMPLES=10000 $(BIN)/python -m pytest -q tests/sql/test_jobs_machine.py

check-tags: $(READY_DEV)  ## Compare automatic tags with an oracle for SECONDS (120), then seed mistakes until each is found
	@$(BIN)/python -m tests.check_tags

check-jobs-bugs: $(READY_DEV)  ## Show that the tests of the job queue find each of many seeded mistakes
	@$(BIN)/python -m tests.check_jobs_bugs $(ARGS)

bench-feed: $(READY)  ## Measure the feed; BENCH=quick ends within a minute
	@$(BIN)/python -m bench.feed

bench-jobs: $(READY)  ## Measure the job queue beside the others; BENCH=quick ends within a minute
	@$(BIN)/python -m bench.jobs

bench-cache: $(READY)  ## Measure the cache beside the others; BENCH=quick ends within a minute
	@$(BIN)/python -m bench.cache

bench-timings: $(READY)  ## Measure what timing costs, takes in and keeps; BENCH=quick ends within a minute
	@$(BIN)/python -m bench.timings

bench-alerts: $(READY)  ## Measure what alerts cost and how soon they are told; BENCH=quick ends within a minute
	@$(BIN)/python -m bench.alerts

try-alerts: $(READY)  ## See an alert go from a held lock to a webhook and back, on pgbench; takes a minute
	@$(BIN)/python -m bench.alerts_tour

chaos-jobs: $(READY)  ## Kill, stop and cut whatever the job queue stands on, and check it; CHAOS=quick ends within a minute
	@$(BIN)/python -m bench.chaos_jobs

check-pool: $(READY)  ## Let 200 clients do everything wrong with a pool of 10, for a minute; BENCH=quick ends within half of one
	@$(BIN)/python -m bench.pool_check

check-delivery: $(READY)  ## Tell alerts to a receiver that is away for ten minutes, and kill the daemon; BENCH=quick ends within one
	@$(BIN)/python -m bench.delivery

check-freshness: $(READY)  ## Judge every cached read while everything breaks, for ten minutes; FRESHNESS=quick ends within one
	@$(BIN)/python -m bench.freshness

check-freshness-bugs: $(READY)  ## Show that the check of freshness finds each of many seeded mistakes
	@$(BIN)/python -m bench.freshness_seeded $(ARGS)

clean:  ## Remove the virtual environment and what tools left behind
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis dist build
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

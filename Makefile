# Each target does its own set-up in .venv; `make help` lists them.

VENV := .venv
BIN := $(VENV)/bin
REPO ?= gpt2-medium
ARGS ?=
WORKERS ?= 3
# One test at a time to each worker, the long ones first (tests/conftest.py): no worker ends minutes after the others.
PARALLEL := -n $(WORKERS) --dist loadgroup
# Without bytecode each worker, and each gpuaria that a test starts, compiles everything again.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help demo fetch unit test faults lab bench lint format clean

help:  ## List the targets
	@awk -F':.*## ' '/^[a-z-]+:.*## /{printf "  make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(VENV)/run.stamp  ## The main job for real, against embedded mirrors, without internet
	@$(BIN)/python scripts/demo.py $(ARGS)

fetch: $(VENV)/run.stamp  ## The same against the real hub: make fetch REPO=gpt2-medium ARGS="--to DIR"
	@$(BIN)/gpuaria fetch --repo "$(REPO)" $(ARGS)

unit: $(VENV)/dev.stamp  ## The pure rooms alone, in seconds
	@$(BIN)/python -m pytest $(PARALLEL) tests/unit $(ARGS)

test: $(VENV)/dev.stamp  ## All tests in parallel, with a part of each kind of fault; what this machine cannot do is skipped
	@$(BIN)/python -m pytest $(PARALLEL) $(ARGS)

faults: SEED := $(or $(SEED),$(shell date +%s))
faults: $(VENV)/dev.stamp  ## Every fault of docs/faults.md and all that takes long; a failure again: make faults SEED=N
	@GPUARIA_TEST_SEED=$(SEED) $(BIN)/python -m pytest -m "fault or deep" $(ARGS)

lab: $(VENV)/run.stamp  ## Unequal mirrors in namespaces beside plain aria2 (root): make lab ARGS="--runs 3 --failures"
	@$(BIN)/python scripts/mirrors_lab.py $(ARGS)

bench: $(VENV)/bench.stamp  ## Eleven scenarios beside the rivals, docs/benchmarks.md: make bench SCENARIO=3 RUNS=5 (root)
	@$(BIN)/python -m benchmarks $(SCENARIO:%=--scenario %) $(RUNS:%=--runs %) $(ARGS)

lint: $(VENV)/dev.stamp  ## ruff and mypy --strict
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

format: $(VENV)/dev.stamp  ## Let ruff lay the code out
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

clean:  ## Remove the set-up and what tools left behind
	rm -rf $(VENV) dist build .pytest_cache .mypy_cache .ruff_cache .hypothesis

$(VENV)/run.stamp: pyproject.toml scripts/bootstrap.sh
	@sh scripts/bootstrap.sh $(VENV) '.[demo]'
	@touch $@

$(VENV)/bench.stamp: $(VENV)/run.stamp
	@sh scripts/bootstrap.sh $(VENV) '.[demo,plot,next]'
	@touch $@

$(VENV)/dev.stamp: $(VENV)/run.stamp
	@sh scripts/bootstrap.sh $(VENV) '.[demo,dev,plot,next,model-signing]'
	@touch $@

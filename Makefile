# Each target does its own set-up in .venv; `make help` lists them.

# Versions of the packages: newest, locked (requirements-dev.lock) or oldest (the lower bounds of pyproject.toml).
DEPS ?= newest
VENV := .venv$(if $(filter-out newest,$(DEPS)),-$(DEPS))
BIN := $(VENV)/bin
TOOLS := build/tools
DIST := dist
LOCK := requirements-dev.lock
comma := ,
REPO ?= gpt2-medium
ARGS ?=
WORKERS ?= 3
# One test at a time to each worker, the long ones first (tests/conftest.py): no worker ends minutes after the others.
PARALLEL := -n $(WORKERS) --dist loadgroup
# Without bytecode each worker, and each gpuaria that a test starts, compiles everything again.
unexport PYTHONDONTWRITEBYTECODE
# The interpreter for a new environment, instead of the first one that suits: make test PYTHON=python3.14
export PYTHON

.DEFAULT_GOAL := help
.PHONY: help demo fetch unit test coverage faults lab bench lint format man notice lock audit dist single clean

help:  ## List the targets
	@awk -F':.*## ' '/^[a-z-]+:.*## /{printf "  make %-9s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(VENV)/run.stamp  ## The main job for real, against embedded mirrors, without internet
	@$(BIN)/python scripts/demo.py $(ARGS)

fetch: $(VENV)/run.stamp  ## The same against the real hub: make fetch REPO=gpt2-medium ARGS="--to DIR"
	@$(BIN)/gpuaria fetch --repo "$(REPO)" $(ARGS)

unit: $(VENV)/dev.stamp  ## The pure rooms alone, in seconds
	@$(BIN)/python -m pytest $(PARALLEL) tests/unit $(ARGS)

test: $(VENV)/dev.stamp  ## All tests in parallel, with a part of each kind of fault; what this machine cannot do is skipped
	@$(BIN)/python -m pytest $(PARALLEL) $(ARGS)

coverage: $(VENV)/dev.stamp  ## The pure modules under tests/unit: fails below 100 %; then the figure of the whole package
	@$(BIN)/python -m pytest $(PARALLEL) tests/unit --cov --cov-report= --cov-fail-under=0 $(ARGS)
	@$(BIN)/coverage report
	@printf 'whole package: %s %%\n' "$$($(BIN)/coverage report --include='gpuaria/*' --fail-under=0 --format=total)"

faults: SEED := $(or $(SEED),$(shell date +%s))
faults: $(VENV)/dev.stamp  ## Every fault of docs/faults.md and all that takes long; a failure again: make faults SEED=N
	@GPUARIA_TEST_SEED=$(SEED) $(BIN)/python -m pytest -m "fault or deep" $(ARGS)

lab: $(VENV)/run.stamp  ## Unequal mirrors in namespaces, compared with plain aria2 (root): make lab ARGS="--runs 3 --failures"
	@$(BIN)/python scripts/mirrors_lab.py $(ARGS)

bench: $(VENV)/bench.stamp  ## Eleven scenarios compared with other downloaders, docs/benchmarks.md: make bench SCENARIO=3 RUNS=5 (root)
	@$(BIN)/python -m benchmarks $(SCENARIO:%=--scenario %) $(RUNS:%=--runs %) $(ARGS)

lint: $(VENV)/dev.stamp  ## ruff, mypy --strict and codespell
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/codespell

format: $(VENV)/dev.stamp  ## Let ruff lay the code out
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

man: $(VENV)/dev.stamp  ## Write man/ from the help texts
	@$(BIN)/python scripts/man.py

notice: $(VENV)/dev.stamp  ## Write NOTICE from the metadata of the installed packages
	@$(BIN)/python scripts/notice.py

lock: $(TOOLS)/stamp  ## Write requirements-dev.lock for Python 3.11 and later: make lock ARGS=--upgrade for new versions
	@$(TOOLS)/bin/uv pip compile -q --universal --python-version 3.11 --all-extras --generate-hashes \
		--no-emit-index-url --no-emit-find-links --custom-compile-command "make lock" $(ARGS) -o $(LOCK) pyproject.toml

audit: $(TOOLS)/stamp  ## Look for known vulnerabilities in the locked packages
	@$(TOOLS)/bin/pip-audit --require-hashes --disable-pip -r $(LOCK) $(ARGS)

dist: $(VENV)/dev.stamp  ## Build the sdist, and the wheel from it, into dist/: equal bytes at each build
	@rm -f $(DIST)/*.whl $(DIST)/*.tar.gz
	@$(BIN)/python -m build --no-isolation --outdir $(DIST)

single: $(TOOLS)/stamp  ## Build the single file dist/gpuaria.pyz, for this system and Python version
	@mkdir -p $(DIST)
	@$(TOOLS)/bin/shiv -q --reproducible --compressed -c gpuaria -p '/usr/bin/env python3' -o $(DIST)/gpuaria.pyz .

clean:  ## Remove the set-up and what tools left behind
	rm -rf .venv .venv-locked .venv-oldest .coverage dist build .pytest_cache .mypy_cache .ruff_cache .hypothesis

install = sh scripts/bootstrap.sh $(VENV) -e '.[$(1)]'
ifeq ($(DEPS),locked)
install = sh scripts/bootstrap.sh $(VENV) --require-hashes -r $(LOCK) && \
	sh scripts/bootstrap.sh $(VENV) --no-deps --no-build-isolation -e .
$(VENV)/run.stamp: $(LOCK)
endif
ifeq ($(DEPS),oldest)
install = sh scripts/bootstrap.sh $(VENV) -c build/oldest.txt -e '.[$(1)]'
$(VENV)/run.stamp: build/oldest.txt
endif

$(VENV)/run.stamp: pyproject.toml scripts/bootstrap.sh
	@$(call install,demo)
	@touch $@

$(VENV)/bench.stamp: $(VENV)/run.stamp
	@$(call install,demo$(comma)plot$(comma)next)
	@touch $@

$(VENV)/dev.stamp: $(VENV)/run.stamp
	@$(call install,demo$(comma)dev$(comma)plot$(comma)next$(comma)model-signing)
	@touch $@

$(TOOLS)/stamp: scripts/bootstrap.sh
	@mkdir -p $(TOOLS)
	@sh scripts/bootstrap.sh $(TOOLS) 'uv>=0.5' 'shiv>=1.0.8' 'pip-audit>=2.7'
	@touch $@

build/oldest.txt: pyproject.toml $(TOOLS)/stamp
	@$(TOOLS)/bin/uv pip compile -q --upgrade --resolution lowest-direct --python-version 3.11 -o $@ pyproject.toml

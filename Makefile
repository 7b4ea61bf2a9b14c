# Everything a person types. `make help` lists it. Needs Python 3.11 or newer, git and make; the rest is installed into .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PYTEST := $(BIN)/python -m pytest
# They share nothing, so each core takes whole files.
UNIT := $(PYTEST) tests/unit tests/property tests/architecture --numprocesses=auto --maxprocesses=8 --dist=loadfile
# Those that start servers wait in plenty: two files at a time, each beside servers of its own, the longest first.
SERVERS := $(PYTEST) tests/chaos tests/e2e tests/integration tests/contract tests/gpu --numprocesses=2 --dist=loadfile --no-loadscope-reorder
CHECKS := lint types imports proto-check docs-check

.DEFAULT_GOAL := help
.PHONY: help setup demo up test unit lint types imports proto proto-check docs docs-check bench bench-dataprep bench-training bench-scheduler bench-tracking bench-export bench-gpu soak dist clean

help: ## list what can be made
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  \033[1m%-14s\033[0m %s\n", $$1, $$2}'

# torch first and exact: a looser range may bring several GB of CUDA libraries along. pip would compile on one core;
# some libraries carry files that no Python of ours can.
$(STAMP): pyproject.toml clients/python/pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed; set PYTHON=..."; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --no-compile --constraint constraints.txt torch==2.13.0
	$(BIN)/python -m pip install --quiet --no-compile --constraint constraints.txt --editable clients/python --editable '.[cluster,embedded,dev]'
	@$(BIN)/python -m compileall -qq -j 0 $(VENV)/lib || true
	@touch $@

# Our own code too: where Python may not write, each of the many processes would compile it again as it starts.
setup: $(STAMP) ## create .venv and install everything, pinned
	@$(BIN)/python -m compileall -qq -j 0 services ray_cluster gateway clients/python tests/support

demo: setup ## run the main job end to end on this machine
	$(BIN)/finemesh demo

up: setup ## start the mesh in this folder and keep it running
	$(BIN)/finemesh up

test: setup ## lint, types, import rules, protos, and every test that needs no GPU
	$(MAKE) --jobs=2 $(CHECKS)
	$(UNIT)
	$(SERVERS)

unit: setup ## the tests that start no server
	$(UNIT)

lint: setup ## ruff
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: setup ## basedpyright, strict, tests included
	$(BIN)/basedpyright

imports: setup ## who may import whom
	$(BIN)/lint-imports

proto: setup ## regenerate what follows from the protos; needs no network
	$(BIN)/python protos/generate.py
	$(BIN)/buf lint

proto-check: setup ## buf lint, breaking changes, and stubs up to date
	$(BIN)/python protos/generate.py --check
	$(BIN)/buf lint
	$(BIN)/buf format protos --diff --exit-code
	$(BIN)/buf breaking protos --against protos/baseline.binpb

docs: setup ## regenerate the pages that follow from the code
	$(BIN)/python docs/generate.py

docs-check: setup ## the generated pages are up to date
	$(BIN)/python docs/generate.py --check

bench: setup ## speed, a JSON line per bar
	$(BIN)/python -m tests.bench

bench-dataprep: setup ## the data compiler against its peers, a JSON line per bar; ten minutes
	$(BIN)/python -m tests.bench.dataprep

bench-training: setup ## the training loop against its peers, a JSON line per bar; an hour
	$(BIN)/python -m tests.bench.training

bench-scheduler: setup ## the scheduler with 100,000 jobs, 1,000 nodes and 50 projects; twenty minutes
	$(BIN)/python -m tests.bench.scheduler

bench-tracking: setup ## Tracking against MLflow, Aim and TensorBoard, a JSON line per bar; twenty minutes
	$(BIN)/python -m tests.bench.tracking

bench-export: setup ## packages on their way out, a JSON line per bar
	$(BIN)/python -m tests.bench.export_merge
	$(BIN)/python -m tests.bench.export_download
	$(BIN)/python -m tests.bench.export_server
	$(BIN)/python -m tests.bench.export_onnx

bench-gpu: setup ## the training loop on an accelerator against a plain loop of transformers and peft
	$(BIN)/python -m tests.bench.gpu

soak: setup ## long rounds of faults, and property tests on new examples
	for round in 1 2 3 4 5; do $(UNIT) --hypothesis-profile=search || exit 1; done
	$(PYTEST) tests/chaos --rounds=20 --ignore=tests/chaos/test_tracking_faults.py
	$(PYTEST) tests/chaos/test_faults.py -k outlives --rounds=13 --alone
	$(PYTEST) tests/chaos/test_tracking_faults.py --rounds=50

dist: setup ## both wheels, into dist/
	$(BIN)/python -m build --wheel --no-isolation --outdir dist clients/python
	$(BIN)/python -m build --wheel --no-isolation --outdir dist .

clean: ## remove .venv and everything generated outside git
	rm -rf $(VENV) dist .finemesh .pytest_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Two commands on a fresh machine: `make demo` and `make test`. Both set up what they need.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
STAMP := $(VENV)/.installed

.PHONY: demo test test-slow faults lint types layers check docs wheel gpu-check clean

# torch first and pinned: any other version pulls gigabytes of CUDA packages.
$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable .
	touch $(READY)

$(STAMP): $(READY)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $(STAMP)

demo: $(READY)            ## search on real data, print the front, write a report and exported files
	$(BIN)/petra demo

# On all cores, at most four: each process computes on one thread. A file's tests stay together: they share fixtures.
PYTEST := $(BIN)/python -m pytest --numprocesses=logical --maxprocesses=4 --dist=loadfile --no-loadscope-reorder

test: $(STAMP)            ## the fast tests, about 10 minutes on 2 cores
	$(PYTEST)

test-slow: $(STAMP)       ## the slow tests as well
	$(PYTEST) -m 'slow or not slow'

faults: $(STAMP)          ## attacks of every kind, under 30 minutes; writes benchmarks/results/faults.md
	$(BIN)/python benchmarks/faults.py

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(STAMP)
	$(BIN)/mypy
	MYPYPATH=src:benchmarks $(BIN)/mypy $(wildcard benchmarks/*.py)

layers: $(STAMP)
	$(BIN)/lint-imports

check: lint types layers  ## every gate but the tests

$(VENV)/.docs: $(STAMP)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[docs]'
	touch $(VENV)/.docs

docs: $(VENV)/.docs       ## the documentation site into build/site; a warning is an error
	$(BIN)/python -m mkdocs build --strict

# What is published, not the checkout: built, installed into an empty environment, and run there.
wheel: $(STAMP)           ## the wheel into dist/, tried out
	rm -rf dist build/lib
	$(BIN)/python -m pip wheel --quiet --no-deps --wheel-dir dist .
	$(BIN)/python benchmarks/try_wheel.py dist/petra-*.whl

# It needs a PyTorch built with CUDA; where the one installed here is not, GPU_PYTHON names an interpreter that has one.
GPU_PYTHON ?= $(BIN)/python
gpu-check: $(STAMP)       ## everything that needs CUDA, under 8 minutes; skipped where there is no GPU
	PYTHONPATH=src $(GPU_PYTHON) benchmarks/gpu_check.py

clean:
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .import_linter_cache

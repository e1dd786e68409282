# `make demo` and `make test` set up everything they need, also on a fresh machine.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
# A python 3.12, for the packages that training on borrowed time needs and no others.
MINIMAL_PYTHON ?= python3.12
MINIMAL := .venv-minimal
PROCESSES ?= 2
SOURCES := fabrec_hf training tests space hubconf.py

.DEFAULT_GOAL := help
.PHONY: help install demo cards test test-minimal gpu-check quality style clean

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*##/:/'

install: $(INSTALLED)  ## create .venv and install the package with everything that its tests need

# The stamp makes an installation out of date when, and only when, pyproject.toml is newer than it.
$(INSTALLED): pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch $@

demo: $(INSTALLED)  ## find the faces and landmarks in the example photographs
	$(BIN)/fabrec detect examples/*.jpg --output demo_output

# The title and the file of a card are the name of its checkpoint.
cards: $(INSTALLED)  ## write model_cards/ from the results and the pictures of the embedded checkpoints
	for folder in fabrec_hf/weights/*/; do \
		name=$$(basename $$folder); \
		$(BIN)/fabrec card $$name --photo examples/*.jpg --output model_cards/$$name.md || exit; \
	done

# Processes with a thread each are faster than one with several: most tests are too small to share out. A file's tests
# stay together, and with them what they prepare. Threads that wait leave the core to the other process.
test: $(INSTALLED)  ## run the tests, in PROCESSES processes
	OMP_NUM_THREADS=1 OMP_WAIT_POLICY=PASSIVE $(BIN)/python -m pytest --numprocesses $(PROCESSES) --dist loadfile \
		--no-loadscope-reorder

$(MINIMAL)/.installed: training/requirements-minimal.txt
	test -x $(MINIMAL)/bin/python || $(MINIMAL_PYTHON) -m venv $(MINIMAL)
	$(MINIMAL)/bin/python -m pip install --quiet --requirement $<
	touch $@

test-minimal: $(MINIMAL)/.installed  ## climb the training ladder, tiny, in .venv-minimal, with the few packages that it needs
	$(MINIMAL)/bin/python tests/support/minimal_ladder.py

gpu-check: $(INSTALLED)  ## compare this machine's GPU with its CPU, and time it; tiny without a GPU
	$(BIN)/python training/gpu_check.py

quality: $(INSTALLED)  ## check style and types
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/ruff format --check $(SOURCES)
	$(BIN)/mypy

style: $(INSTALLED)  ## repair style
	$(BIN)/ruff check --fix $(SOURCES)
	$(BIN)/ruff format $(SOURCES)

clean:  ## remove what the other targets made
	rm -rf $(VENV) $(MINIMAL) demo_output build dist .mypy_cache .pytest_cache .ruff_cache

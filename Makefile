PYTHON ?= python3
comma := ,
BIN := .venv/bin
# On a machine with an NVIDIA GPU, TensorFlow's CUDA libraries come along.
EXTRAS := dev$(if $(shell command -v nvidia-smi),$(comma)gpu)

.PHONY: demo test chaos test-all bench lint clean

# The stamp is newer than what it was made from, so that a changed pin installs anew.
.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -c "import sys; assert (3, 11) <= sys.version_info < (3, 14), 'Python 3.11 to 3.13 is needed: make PYTHON=python3.12'"
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable ".[$(EXTRAS)]"
	touch $@

demo: .venv/installed
	$(BIN)/flowers-batch demo --out demo $(DEMO_FLAGS)

test: .venv/installed
	$(BIN)/python -m pytest -m "not slow and not chaos"

# Actors, drivers and a node are killed at random for some minutes.
chaos: .venv/installed
	$(BIN)/python -m pytest -m slow tests/test_chaos.py

test-all: .venv/installed
	$(BIN)/python -m pytest

# What is claimed of speed and exactness, measured here and now: benchmarks/RESULTS.md. FLOWERS_BATCH_PHOTOS names photos.
bench: .venv/installed
	$(BIN)/python benchmarks/all.py

lint: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

clean:
	rm -rf .venv demo .hypothesis .pytest_cache .ruff_cache .mypy_cache

PYTHON ?= python3
comma := ,
BIN := .venv/bin
# On a machine with an NVIDIA GPU, TensorFlow's CUDA libraries come along.
EXTRAS := dev$(if $(shell command -v nvidia-smi),$(comma)gpu)

.PHONY: demo test chaos test-all bench screenshots docs lint clean

# A stamp file: a changed pin makes it out of date, so that everything is installed again.
.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -c "import sys; assert (3, 11) <= sys.version_info < (3, 14), 'Python 3.11 to 3.13 is needed: make PYTHON=python3.12'"
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable ".[$(EXTRAS)]"
	touch $@

demo: .venv/installed
	$(BIN)/flowers-batch demo --out demo $(DEMO_FLAGS)

# The pages are tested in a browser: an installed one, else Playwright's, else Debian's. Without one, these tests are skipped.
.venv/browser: .venv/installed
	@command -v chromium chromium-browser google-chrome > /dev/null \
	  || $(BIN)/playwright install chromium > /dev/null 2>&1 \
	  || { apt-get update -qq && apt-get install -y -qq --no-install-recommends chromium > /dev/null; } \
	  || echo "There is no browser: tests of the pages are skipped."
	touch $@

# Some tests read sidecars with ExifTool. Without it, these are skipped.
.venv/exiftool: .venv/installed
	@command -v exiftool > /dev/null \
	  || { apt-get update -qq && apt-get install -y -qq --no-install-recommends libimage-exiftool-perl > /dev/null; } \
	  || echo "There is no ExifTool: tests that read sidecars with it are skipped."
	touch $@

test: .venv/browser .venv/exiftool
	$(BIN)/python -m pytest -n 2 -m "not slow and not faults and not nightly"

# Kills actors, drivers and a node at random for some minutes.
chaos: .venv/installed
	$(BIN)/python -m pytest -m nightly tests/end_to_end/test_chaos.py

test-all: .venv/browser .venv/exiftool
	$(BIN)/python -m pytest

# Measures the main claims about speed and exactness, and writes benchmarks/RESULTS.md. FLOWERS_BATCH_PHOTOS names photos.
bench: .venv/installed
	$(BIN)/python benchmarks/all.py

# Takes the screenshots in docs/, of the photos in FLOWERS_BATCH_PHOTOS.
screenshots: .venv/browser
	$(BIN)/python docs/screenshots.py

# The documentation as a site, in site/; a broken link or reference fails.
docs: .venv/installed
	$(BIN)/mkdocs build --strict --quiet

lint: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(MAKE) --no-print-directory docs

clean:
	rm -rf .venv demo site .hypothesis .pytest_cache .ruff_cache .mypy_cache

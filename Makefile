# The two commands: `make run` trains on the embedded digits, `make test` checks everything.
# Both make their own environment first; `make setup` is that alone.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
# Python compiles what is imported, when it is; pip would compile all 150 packages first, which takes half of its time.
PIP := $(BIN)/python -m pip install --no-compile --quiet --disable-pip-version-check --constraint constraints.txt
# One thread for each of two processes: small networks gain nothing from more. Each process begins with its half of the
# tests in order, so that what the tests of a file share is made once.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses 2 --dist worksteal

.PHONY: setup run test pytest quick nightly lint audit docs format clean

setup: $(INSTALLED)

$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(PIP) --editable '.[dev]'
	@touch $(INSTALLED)

run: setup
	$(BIN)/ramify train

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# The source and the pinned packages, looked through for what is known to be dangerous. It asks pypi.org for advisories,
# and has an environment of its own, so that its packages are none of ours. What is passed over stands in pyproject.toml.
audit: setup
	$(PYTHON) -m venv $(VENV)-audit
	$(VENV)-audit/bin/python -m pip install --no-compile --quiet --disable-pip-version-check bandit==1.9.4 pip-audit==2.10.1
	$(VENV)-audit/bin/bandit --quiet --recursive --configfile pyproject.toml src
	$(VENV)-audit/bin/pip-audit --strict --no-deps --disable-pip --requirement constraints.txt

# Lint beside the tests: mypy takes one core for a minute.
test: setup
	@$(MAKE) --no-print-directory --jobs 2 lint pytest

pytest: setup
	$(PYTEST)

# The fast tests, one case of each, while you work.
quick: setup
	RAMIFY_TESTS=quick $(PYTEST)

# Every kill, every damaged byte, and twenty-five times as many random examples.
nightly: lint
	RAMIFY_TESTS=nightly $(PYTEST)

# The guides and the API as a site in docs/_build, checked: open docs/_build/html/index.html.
docs: $(VENV)/.docs
	rm -rf docs/_build
	$(BIN)/sphinx-build -W -q -b html -d $(VENV)/doctrees docs docs/_build/html
	$(BIN)/python docs/check.py docs/_build/html

$(VENV)/.docs: $(INSTALLED)
	$(PIP) --editable '.[docs]'
	@touch $(VENV)/.docs

format: setup
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) $(VENV)-audit docs/_build .pytest_cache .mypy_cache .ruff_cache .hypothesis

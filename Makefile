# Two commands do everything on a fresh machine: `make demo` and `make test`. Each makes the environment it
# needs in .venv; nothing is installed outside of it.
PYTHON ?= $(shell for p in python3.13 python3.12 python3.11 python3.14 python3 python; do \
  "$$p" -c 'import sys, venv, ensurepip; raise SystemExit(not (3, 11) <= sys.version_info < (3, 15))' 2>/dev/null && echo $$p && break; done)
VENV := .venv
BIN := $(VENV)/bin
# Files in the order they are collected in, which puts networks last (tests/conftest.py).
TWO_CORES := -n 2 --dist loadfile --no-loadscope-reorder
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check

.PHONY: help demo test cov test-all fuzz test-oldest lint format clean
help:
	@echo "make demo        simulate, train, evaluate; writes demo/report.html (about 4 minutes after the install)"
	@echo "make test        lint, types, layers and the fast tests"
	@echo "make cov         the same, and the share of lines that they run"
	@echo "make test-all    the slow tests as well"
	@echo "make fuzz        3,000 damaged inputs through the command line (FUZZ=N for another number); half an hour"
	@echo "make test-oldest the fast tests with the oldest versions that pyproject.toml allows"
	@echo "make kill        kill simulate, average, embed and train thirty times each, and stop train by signals as often (half an hour)"
	@echo "make format      format the code"
	@echo "make clean       remove the environment and the demonstration"

$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "Python 3.11 to 3.14 with venv is needed; set PYTHON=/path/to/python"; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.demo: pyproject.toml | $(BIN)/python
	@echo "installing vis2img and what the demonstration needs into $(VENV) ..."
	$(PIP) -e '.[demo]'
	@touch $@

$(VENV)/.dev: pyproject.toml | $(BIN)/python
	@echo "installing vis2img and its development tools into $(VENV) ..."
	$(PIP) -e '.[dev]'
	@touch $@ $(VENV)/.demo

demo: $(VENV)/.demo
	$(BIN)/vis2img demo

test: $(VENV)/.dev lint
	$(BIN)/python -m pytest $(TWO_CORES) $(COVERAGE)

cov:
	$(MAKE) test COVERAGE="--cov --cov-report=term:skip-covered"

test-all: $(VENV)/.dev lint
	$(BIN)/python -m pytest $(TWO_CORES) -m "slow or not slow"

# Another seed each time, which it prints, with the table of docs/benchmarks.md.
FUZZ ?= 3000
fuzz: $(VENV)/.dev
	$(BIN)/python -m tests.fuzz.run $(FUZZ)

# The oldest versions that pyproject.toml allows, in an environment of its own; pip cannot choose them, uv can.
test-oldest: pyproject.toml | $(BIN)/python
	$(PIP) uv
	test -x $(VENV)-oldest/bin/python || $(BIN)/python -m venv $(VENV)-oldest
	$(BIN)/uv pip install --quiet --python $(VENV)-oldest/bin/python --resolution lowest-direct -e '.[dev]'
	$(VENV)-oldest/bin/python -m pytest $(TWO_CORES)

kill: $(VENV)/.dev
	$(BIN)/python -m pytest tests/test_kills.py tests/test_signals.py -m slow -k thirty

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(VENV)/.dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) $(VENV)-oldest demo

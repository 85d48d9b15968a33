# Two commands do everything on a fresh machine: `make demo` and `make test`. Each makes the environment it
# needs in .venv; nothing is installed outside of it.
PYTHON ?= $(shell for p in python3.13 python3.12 python3.11 python3 python; do \
  "$$p" -c 'import sys, venv, ensurepip; raise SystemExit(not (3, 11) <= sys.version_info < (3, 14))' 2>/dev/null && echo $$p && break; done)
VENV := .venv
BIN := $(VENV)/bin
# Files in the order they are collected in, which puts networks last (tests/conftest.py).
TWO_CORES := -n 2 --dist loadfile --no-loadscope-reorder
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check

.PHONY: help demo test test-all lint format clean
help:
	@echo "make demo      simulate, train, evaluate; writes demo/report.html (about 4 minutes after the install)"
	@echo "make test      lint, types, layers and the fast tests"
	@echo "make test-all  the slow tests as well"
	@echo "make format    format the code"
	@echo "make clean     remove the environment and the demonstration"

$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "Python 3.11, 3.12 or 3.13 with venv is needed; set PYTHON=/path/to/python"; exit 1; }
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
	$(BIN)/python -m pytest $(TWO_CORES)

test-all: $(VENV)/.dev lint
	$(BIN)/python -m pytest $(TWO_CORES) -m "slow or not slow"

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(VENV)/.dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) demo

# Each target sets up all it needs. PYTHON: any Python ≥ 3.11 with venv.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: setup demo test check bench test-gimp

setup: .venv/.installed

# The install generates the protos' code, so a changed proto installs again.
.venv/.installed: pyproject.toml hatch_build.py $(wildcard protos/pconv_api/v1/*.proto)
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch $@

test: setup
	$(BIN)/python -m pytest

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(MAKE) test

demo: setup
	$(BIN)/python -m pconv_server.demo build/demo

bench: setup
	$(BIN)/python -m bench

test-gimp:
	@echo 'make test-gimp: nothing to test yet: there is no plug-in.' >&2; exit 1

# Each target sets up all it needs. PYTHON: any Python ≥ 3.11 with venv.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: setup demo test check bench test-gimp gimps plugin-zip

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

# The folder for who has GIMP, but not our Python: to be unpacked into the plug-ins folder of a GIMP profile.
plugin-zip: setup
	$(BIN)/python -m pconv_server.plugin dist

# GIMP 3.0 and 3.2 of Debian, installed once into build/; elsewhere, or without root, this machine's own GIMP is tested.
ifeq ($(shell id -u):$(shell . /etc/os-release 2>/dev/null && echo $$ID),0:debian)
GIMPS := build/gimp-3.0/.ready build/gimp-3.2/.ready
endif

build/gimp-3.0/.ready: SUITE := trixie
build/gimp-3.2/.ready: SUITE := forky
build/gimp-%/.ready:
	tests/gimp/prepare.sh $(abspath $(@D)) $(SUITE)

test-gimp: setup
	$(MAKE) -j2 gimps
	$(BIN)/python -m pytest tests/gimp

gimps: $(GIMPS)

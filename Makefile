# `make demo` and `make test` need only git, make and Python >= 3.11 with venv; everything goes into .venv.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed

.PHONY: demo test unit lint types wheel bench clean help

help:
	@echo "make demo   two upgrades of a simulated node, told as they happen"
	@echo "make test   linters, types, the whole test suite, the built wheel in an empty environment"
	@echo "make unit   only the tests:  make unit ARGS='tests/actor -k restart'"
	@echo "make bench  the benchmarks (docs/performance.md)"

$(STAMP): setup.cfg pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed; name one: make PYTHON=python3.11 ..." if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	touch $@

demo: $(STAMP)
	$(BIN)/visor-actors demo

test: lint types unit wheel

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(STAMP)
	$(BIN)/mypy

unit: $(STAMP)
	@# Where PYTHONDONTWRITEBYTECODE is set, each visor that a test starts would compile all of itself again.
	@$(BIN)/python -m compileall -q visor_actors
	$(BIN)/python -m pytest $(ARGS)

wheel: $(STAMP)
	rm -rf build  # or modules that are gone would be packed again
	$(BIN)/python -m build --quiet --wheel --outdir build/wheel .
	$(PYTHON) -m venv --clear build/wheel/env
	build/wheel/env/bin/python -m pip install --quiet --disable-pip-version-check build/wheel/*.whl
	cd / && $(CURDIR)/build/wheel/env/bin/visor-actors version

bench: $(STAMP)
	for b in benchmarks/[a-z]*.py; do $(BIN)/python $$b || exit 1; done

clean:
	rm -rf $(VENV) build dist *.egg-info

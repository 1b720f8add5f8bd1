# `make help` lists what can be made.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
.DEFAULT_GOAL := help
.PHONY: help run test test-fast test-long check format docs bench deb lock clean

help: ## what can be made
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-11s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

$(VENV)/run.done: requirements/run.lock pyproject.toml
	@echo "Making $(VENV) and installing the locked dependencies …"
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed; $(PYTHON) is `$(PYTHON) --version`" >&2; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/run.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-build-isolation --no-deps -e .
	@touch $@

$(VENV)/test.done: $(VENV)/run.done requirements/test.lock
	@echo "Installing what the tests need …"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/test.lock
	@touch $@

run: $(VENV)/run.done ## start an agent on 127.0.0.1:8010 with a configuration of its own under ./var
	@$(BIN)/python -m scalarizr.cli.trial var

test: $(VENV)/test.done ## install what the tests need, and run them all
	@sh tests/install-servers.sh
	@sh tests/install-ferretdb.sh
	@$(MAKE) --no-print-directory check
	@rm -rf .pytest_cache
	@$(BIN)/python -m pytest -m "not long" -n 2 --dist loadfile || $(BIN)/python tests/again_alone.py

test-fast: $(VENV)/test.done ## unit tests alone, under a minute
	@$(BIN)/python -m pytest -q tests/unit

test-long: $(VENV)/test.done ## what takes longer: hundreds of kills, soaks
	@sh tests/install-servers.sh
	@sh tests/install-ferretdb.sh
	@sh tests/install-vm.sh
	@$(BIN)/python -m pytest -q --override-ini timeout=3600

check: $(VENV)/test.done ## formatting, lint, types, layers
	@$(BIN)/ruff format --check --quiet . || { echo "run 'make format'" >&2; exit 1; }
	@$(BIN)/ruff check --quiet .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-cache

format: $(VENV)/test.done ## format the code
	@$(BIN)/ruff format --quiet .
	@$(BIN)/ruff check --quiet --fix .

docs: $(VENV)/test.done ## build the documentation into docs/_build
	@$(BIN)/sphinx-build -q -b html docs docs/_build/html
	@$(BIN)/sphinx-build -q -b html docs/ru docs/_build/html/ru

bench: $(VENV)/test.done ## measure, and print the table that docs/performance.md holds
	@$(BIN)/python -m benchmarks

deb: $(VENV)/test.done ## build the Debian package into dist
	@sh packaging/deb/build.sh

lock: $(VENV)/test.done ## pin the dependencies anew (needs uv)
	@uv pip compile -q pyproject.toml --python-version 3.11 --generate-hashes --universal --no-header --group build -o requirements/run.lock
	@uv pip compile -q pyproject.toml --python-version 3.11 --generate-hashes --universal --no-header -c requirements/run.lock -o requirements/package.lock
	@uv pip compile -q pyproject.toml --python-version 3.11 --generate-hashes --universal --no-header --all-extras --group build --group test --group check --group docs --group bench -c requirements/run.lock -o requirements/test.lock

clean: ## remove what was made here
	@rm -rf $(VENV) build dist docs/_build

# `make help` lists what can be made.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
.DEFAULT_GOAL := help
.PHONY: help run test test-fast test-long check format docs bench fuzz dist deb audit lock clean

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
	@$(MAKE) --no-print-directory fuzz

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

RUNS := 1000000
FUZZ_SECONDS := 300
FUZZ := .fuzz-venv

$(FUZZ)/fuzz.done: requirements/run.lock fuzz/requirements.txt
	@echo "Making $(FUZZ) and installing what fuzzing needs …"
	@test -x $(FUZZ)/bin/python || $(PYTHON) -m venv $(FUZZ)
	@$(FUZZ)/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/run.lock -r fuzz/requirements.txt
	@touch $@

fuzz: $(FUZZ)/fuzz.done ## look for inputs that break a promise (RUNS=10000000 FUZZ_SECONDS=14400 for more)
	@PYTHONPATH=src:. PYTHONDONTWRITEBYTECODE=1 $(FUZZ)/bin/python -m fuzz.run --runs $(RUNS) --seconds $(FUZZ_SECONDS)

dist: $(VENV)/test.done ## build the wheel and the source archive into dist
	@SOURCE_DATE_EPOCH=$${SOURCE_DATE_EPOCH:-$$(git log -1 --format=%ct)} $(BIN)/hatchling build

deb: $(VENV)/test.done ## build the Debian package into dist
	@sh packaging/deb/build.sh

audit: $(VENV)/test.done ## look for known vulnerabilities of what is installed on servers
	@$(BIN)/pip-audit --strict --disable-pip --require-hashes -r requirements/run.lock
	@for extra in $(EXTRAS); do $(BIN)/pip-audit --strict --disable-pip --require-hashes -r requirements/extra-$$extra.lock || exit 1; done

# What the Debian package leaves out (docs/package.md): Debian's libpq5 is in the place of psycopg-binary, and nothing that
# the agent does loads the others.
LEFT_OUT := dnspython markdown-it-py mdurl psycopg-binary pycparser pygments tzdata
EXTRAS := cloudstack ec2 gce openstack
COMPILE := uv pip compile -q pyproject.toml --python-version 3.11 --generate-hashes --universal --no-header

lock: $(VENV)/test.done ## pin the dependencies anew (needs uv)
	@$(COMPILE) --group build -o requirements/run.lock
	@$(COMPILE) $(addprefix --no-emit-package ,$(LEFT_OUT)) -c requirements/run.lock -o requirements/package.lock
	@$(COMPILE) --all-extras --group build --group test --group check --group docs --group bench --group supply -c requirements/run.lock -o requirements/test.lock
	@for extra in $(EXTRAS); do \
	    $(COMPILE) --extra $$extra $(addprefix --no-emit-package ,$(LEFT_OUT)) -c requirements/test.lock \
	        $$(sed -n 's/^\([^ =]*\)==.*/--no-emit-package \1/p' requirements/package.lock) -o requirements/extra-$$extra.lock || exit 1; \
	done

clean: ## remove what was made here
	@rm -rf $(VENV) $(FUZZ) build dist docs/_build

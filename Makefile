# One door to everything: `make help` lists it. Settings of the tools are in pyproject.toml, versions in *.lock.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin

# A folder inside .venv remembers what was installed: a changed lock or project file installs again, else it takes no time.
READY     := $(VENV)/.ready
BASE      := $(READY)/venv
RUNTIME   := $(READY)/runtime
DEV       := $(READY)/dev
EDITABLE  := $(READY)/editable

# What `make test` runs first, on two workers; CI, which has run the fast tests already, asks for the slow ones only.
PARALLEL ?= not processes and not services and not brokers

# Which seeds `make simulate` runs. CI runs known ones: a fresh seed that fails is news for its finder, not for whoever
# happens to land next.
SIMULATE ?= --fresh --minutes 4

UV := $(BIN)/uv
# pip tells an index of one's own in PIP_INDEX_URL; uv would not look there.
ifdef PIP_INDEX_URL
export UV_DEFAULT_INDEX ?= $(PIP_INDEX_URL)
endif

# Exit code 5 of pytest means that no test was asked for, which is no failure.
NONE_IS_FINE = || [ $$? -eq 5 ]

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.NOTPARALLEL: # two installers would meet in one .venv
.PHONY: help setup dev demo check test brokers simulate bench docs infra lock clean

help:  ## list these targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-7s %s\n", $$1, $$2}' Makefile

setup: $(RUNTIME) $(EDITABLE)  ## make .venv and install mendstream as locked (seconds)

dev: $(DEV) $(EDITABLE)  ## the same, with the tools that check and test

demo: setup  ## run the demonstration: faults go in, the pipeline heals
	$(BIN)/mendstream demo

check: dev  ## lint, types, architecture and the fast tests: what CI runs first
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo
	$(BIN)/pytest -n 2 -m "not slow and not processes and not services and not brokers" $(NONE_IS_FINE)

test: dev  ## all tests; then those with real services, a file at a time; and with real processes, one by one
	$(BIN)/pytest -n 2 -m "$(PARALLEL)" $(NONE_IS_FINE)
	scripts/services install || [ "$(CI)" != true ] # what is missing then is told again in the summary of the tests
	$(BIN)/pytest -n 2 --dist loadfile -m "services and not processes and not brokers" $(NONE_IS_FINE)
	$(BIN)/pytest -m processes $(NONE_IS_FINE)

brokers: dev  ## hurt real brokers under a real house: freeze, kill, fence; not yet a part of `make test`
	scripts/services install
	$(BIN)/pytest -m brokers $(NONE_IS_FINE)

simulate: setup  ## hurt simulated houses, of seeds that nobody has run, for four minutes
	$(BIN)/mendstream simulate $(SIMULATE) --out build/failing

bench: setup  ## run every benchmark and print the results as JSON
	$(BIN)/mendstream bench all --json

docs: setup  ## write the generated pages of the reference again
	$(BIN)/python tools/make_docs.py

infra: setup  ## write the generated files of infra/ again
	$(BIN)/python -m tools.make_infra

lock: $(BASE)  ## resolve the newest allowed versions and write the lock files
	$(COMPILE) --upgrade --group build -o requirements.lock pyproject.toml
	$(COMPILE) --upgrade --group dev -c requirements.lock -o requirements-dev.lock pyproject.toml
	grep -o '^mlflow-skinny==[0-9.]*' requirements.lock | $(COMPILE) --upgrade --group mlflow-server -c /dev/stdin -o tools/services/mlflow.lock
	$(COMPILE) --upgrade --group postgres-server --no-deps -o tools/services/postgres.lock

clean:  ## remove caches and build leftovers; keeps .venv and your data
	@[ ! -d build/services/up ] || scripts/services down
	rm -rf build dist .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -not -path './$(VENV)/*' -prune -exec rm -rf {} +

# ------------------------------------------------------------------------------------------------ how .venv is made

COMPILE = $(UV) pip compile --quiet --python-version 3.11 --universal --generate-hashes --no-emit-index-url \
	--custom-compile-command "make lock"
INSTALL = $(UV) pip install --quiet --python $(BIN)/python --compile-bytecode

# pip brings uv, by the hashes in the lock, and uv brings the rest in a tenth of the time.
$(BASE): requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' || { \
	  echo "mendstream needs Python 3.11, 3.12 or 3.13. $(PYTHON) is: $$($(PYTHON) --version 2>&1)" >&2; \
	  echo "If you have one under another name: make $(MAKECMDGOALS) PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { \
	  echo "$(PYTHON) cannot make virtual environments. On Debian and Ubuntu: apt install python3-venv" >&2; exit 1; }
	@echo "making $(VENV) with $$($(PYTHON) --version)"
	@$(PYTHON) -m venv $(VENV)
	@mkdir -p $(READY)
	@awk '/^[^ #]/ {uv = /^uv==/} uv' requirements.lock > $(READY)/uv.txt
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r $(READY)/uv.txt
	@touch $@

# Either set of packages serves at run time; `dev` contains `runtime` in the same versions.
$(RUNTIME): requirements.lock $(BASE)
	@echo "installing the locked packages"
	@$(INSTALL) --require-hashes -r requirements.lock
	@touch $@

$(DEV): requirements-dev.lock $(BASE)
	@echo "installing the locked packages and the tools"
	@$(INSTALL) --require-hashes -r requirements-dev.lock
	@touch $@ $(RUNTIME)

# From the lock and this folder alone: nothing is asked of an index. Waits for whichever set was asked for.
$(EDITABLE): pyproject.toml $(BASE) | $(if $(filter dev check test,$(MAKECMDGOALS)),$(DEV),$(RUNTIME))
	@$(INSTALL) --offline --no-deps --no-build-isolation --editable .
	@touch $@

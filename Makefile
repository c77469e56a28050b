# make run    install what is needed, measure the quickstart, draw its figures
# make test   everything that continuous integration runs
PYTHON ?= python3
BIN := .venv/bin
NICE_PIP := PIP_DISABLE_PIP_VERSION_CHECK=1 $(BIN)/python -m pip install --quiet

.PHONY: run test check audit docs install install-dev install-locust benchmark clean
.DEFAULT_GOAL := run

run: install
	@$(BIN)/python -m memgap unlock
	@MEMGAP_SAYS_WHERE=1 $(BIN)/snakemake -j1 --quiet rules
	@$(BIN)/python -m memgap where

install: .venv/.installed .venv-engine/memgap-engine.json

install-dev: install install-locust .venv/.installed-dev

.venv/.python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "memgap needs Python 3.11 or newer; name one: make PYTHON=python3.12 run" >&2; exit 2; }
	@echo "Making .venv ..."
	@$(PYTHON) -m venv .venv && touch $@

.venv/.installed: .venv/.python envs/workflow.txt pyproject.toml
	@echo "Installing the workflow into .venv (about half a minute) ..."
	@$(NICE_PIP) --require-hashes -r envs/workflow.txt
	@$(NICE_PIP) --no-deps --no-build-isolation --editable .
	@touch $@

.venv/.installed-dev: .venv/.installed envs/dev.txt
	@echo "Installing what the tests need ..."
	@$(NICE_PIP) --require-hashes -r envs/dev.txt
	@touch $@

.venv-engine/memgap-engine.json: .venv/.installed workflow/scripts/install_engine.py envs/engine-cpu.txt envs/engine-cpu-torch.txt envs/engine-cuda.txt
	@$(BIN)/python workflow/scripts/install_engine.py

install-locust: .venv-locust/memgap-locust.json

.venv-locust/memgap-locust.json: .venv/.installed workflow/scripts/install_locust.py envs/locust.txt
	@$(BIN)/python workflow/scripts/install_locust.py

test:
	@$(MAKE) --no-print-directory -j2 install-dev
	@PYTHON=$(BIN)/python .ci/test

check: install-dev
	@PYTHON=$(BIN)/python .ci/test --static

# Known vulnerabilities of what the locks name; needs the network, so it is no part of check or test.
audit: install-dev
	@PYTHON=$(BIN)/python .ci/audit

docs: .venv/.installed
	@$(BIN)/python -m memgap.config.reference docs/config.md
	@$(BIN)/python -m memgap.engine.reference docs/engines.md
	@$(BIN)/python -m memgap.tables.reference docs/figures.md
	@$(BIN)/python -m memgap.labs.reference docs/labs/form.md
	@$(BIN)/python -m memgap.labs pages docs/labs

clean:
	rm -rf .venv .venv-engine .venv-locust .snakemake

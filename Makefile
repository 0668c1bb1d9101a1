# The two commands of a newcomer: make train, make test. Each does the whole set-up first.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
OUTPUTS ?= outputs
PORT ?= 5000

.PHONY: setup train test lint docs ui clean help

help:  ## List the targets
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 10

setup: $(INSTALLED)  ## Make .venv with the project and its pinned dependencies

$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "error: $(PYTHON) is older than 3.11: install a newer one, or call make PYTHON=python3.12" >&2; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $@

train: setup  ## Train MoHGE and a standard MoE on the Python library, and compare them
	$(BIN)/mohge-train experiment=quickstart

test: setup lint  ## Run every test
	$(BIN)/python -m pytest --numprocesses 3 --dist worksteal --cov=mohge --cov-report=term --cov-fail-under=85

lint: setup  ## Check style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: setup  ## Make the HTML site of all documents in build/site
	$(BIN)/python docs/site/build.py

ui: setup  ## Open MLflow on the runs of OUTPUTS=outputs at PORT=5000, on this machine only
	@$(BIN)/python -m callbacks.tracking.ui $(OUTPUTS) $(PORT)

clean:  ## Remove the environment and caches; runs in outputs stay
	rm -rf $(VENV) build .pytest_cache .mypy_cache .ruff_cache .hypothesis .coverage

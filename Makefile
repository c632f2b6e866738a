# Two commands do everything: `make demo` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

WORKERS ?= 2
# The rooms whose tests take no time to speak of: no training, no pipeline, no process of their own.
FAST := tests/losses tests/models tests/batches tests/inference tests/reporting tests/page tests/test_*.py tests/methods/test_u2pl.py \
	tests/data/test_[c-s]*.py tests/pipeline/test_[ps]*.py
# What meets MLflow's absence: every command, a run, an ablation. All tests that need no MLflow: WITHOUT_MLFLOW=tests
WITHOUT_MLFLOW := tests/training/test_ablation.py tests/runs/test_folder.py tests/cli/test_cli.py

.DEFAULT_GOAL := help
.PHONY: help demo docs test test-fast test-without-mlflow test-release lint install install-test clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

demo: install ## install the project, run the demonstration pipeline (less than ten minutes on two slow cores), say where the report is
	$(BIN)/u2pl plan demo
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/u2pl plan run --jobs 2
	@echo "The report: $(CURDIR)/reports/index.html"

docs: install-test ## build the site from docs/ strictly, into build/site/index.html; nothing is fetched
	$(BIN)/python -m sphinx -E -b html -W --keep-going -q docs build/site
	@echo "The site: $(CURDIR)/build/site/index.html"

test: lint $(VENV)/.annotation-tools ## install what the tests need, check format, lint and types, run the tests
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal
	$(MAKE) test-without-mlflow

test-fast: lint ## format, lint, types, and the quick tests: about a minute or two
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal -m "not slow" -q $(FAST)

test-without-mlflow: install-test ## run the tests of training and the command line where MLflow is not installed
	$(BIN)/python tests/without_mlflow.py $(VENV)/without-mlflow
	$(VENV)/without-mlflow/bin/python -m pytest -n $(WORKERS) --dist worksteal -m "not mlflow" $(WITHOUT_MLFLOW)

test-release: install-test ## build sdist and wheel, and do in an empty environment what one does first
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal tests/release

lint: install-test ## check format, lint and types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

install: $(VENV)/.installed ## create .venv and install the project with the versions in constraints.txt

install-test: $(VENV)/.installed-test

# The stamp files keep a second `make` from asking the package index again.
$(VENV)/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "u2pl needs Python 3.11 or newer; name one with: make PYTHON=python3.12 demo")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[lite]'
	@touch $@

$(VENV)/.installed-test: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[lite,test]'
	@touch $@

# They pin older versions of OpenCV, pandas and Pillow than ours.
$(VENV)/.annotation-tools: tests/annotations/tools.txt
	$(PYTHON) -m venv $(VENV)/annotation-tools
	$(VENV)/annotation-tools/bin/python -m pip install --quiet --requirement tests/annotations/tools.txt
	@touch $@

clean: ## remove the environment and everything that can be made again (runs, models, results, data)
	rm -rf $(VENV) data runs models results reports/index.html reports/tables dvc.lock mlflow.db mlartifacts

# `make` lists the targets. Each makes the environment it needs, from the hashed locks in requirements/.

PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && command -v $$p && break; done)
DEVICE ?= cpu
RUN := .venv/bin
DEV := .venv-dev/bin
PIP_FLAGS := --disable-pip-version-check --quiet --no-deps

.PHONY: help serve test test-all check fix docs bench lock image clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

serve: .venv/ready-$(DEVICE) ## run the service on port 5555 (DEVICE=cuda for NVIDIA; ARCFACE_… variables are its settings)
	@exec $(RUN)/arcface-api serve $(ARGS)

test: .venv-dev/ready ## run the tests
	$(DEV)/python -m pytest $(ARGS)

test-all: ## run the tests on every supported Python that is installed
	tests/all-pythons $(ARGS)

check: .venv-dev/ready ## style, types, floors, generated docs
	$(DEV)/ruff check .
	$(DEV)/ruff format --check .
	$(DEV)/mypy
	$(DEV)/lint-imports
	$(DEV)/python docs/generate.py --check

fix: .venv-dev/ready ## mend what can be mended by itself
	$(DEV)/ruff check --fix .
	$(DEV)/ruff format .
	$(DEV)/python docs/generate.py

lock: ## write the locks in requirements/ anew, with the newest versions
	$(PYTHON) -m venv .venv-lock && .venv-lock/bin/pip $(filter-out --no-deps,$(PIP_FLAGS)) install uv
	requirements/lock

image: ## build the container image
	docker build --tag arcface-api .

clean: ## remove the environments and caches
	rm -rf .venv .venv-dev .venv-lock .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis dist build

.venv/ready-$(DEVICE): requirements/$(DEVICE).txt pyproject.toml
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer is needed; set PYTHON=/path/to/python."; exit 1; }
	@echo "Making .venv with $(PYTHON) (once; a minute or two) …"
	@$(PYTHON) -m venv --clear .venv
	@$(RUN)/pip install $(PIP_FLAGS) --require-hashes -r requirements/build.txt -r requirements/$(DEVICE).txt
	@$(RUN)/pip install $(PIP_FLAGS) --no-build-isolation --editable .
	@touch $@

.venv-dev/ready: requirements/dev.txt pyproject.toml
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer is needed; set PYTHON=/path/to/python."; exit 1; }
	@echo "Making .venv-dev with $(PYTHON) (once; a minute or two) …"
	@$(PYTHON) -m venv --clear .venv-dev
	@$(DEV)/pip install $(PIP_FLAGS) --require-hashes -r requirements/dev.txt
	@$(DEV)/pip install $(PIP_FLAGS) --no-build-isolation --editable .
	@touch $@

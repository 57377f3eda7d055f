# `make` lists the targets. Each makes the environment it needs, from the hashed locks in requirements/.

PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && command -v $$p && exit; done; command -v python3)
DEVICE ?= cpu
RUN := .venv-$(DEVICE)/bin/python
DEV := .venv-dev/bin/python
ENVIRONMENT := @requirements/make-environment

.PHONY: help serve packs bench evaluate test test-all check check-deep fuzz fix livez open-pack lock image clean \
	run-environment dev-environment

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

serve: run-environment ## run the service on port 5555; ARCFACE_… variables are its settings (DEVICE=cuda for NVIDIA)
	@exec env ARCFACE_PACK=$${ARCFACE_PACK:-auto} \
		ARCFACE_DEVICE=$${ARCFACE_DEVICE:-$(if $(filter cuda,$(DEVICE)),cuda,auto)} $(RUN) -m arcface_api serve $(ARGS)

packs: run-environment ## manage model packs: make packs ARGS='pull antelopev2 --accept-license'
	@exec $(RUN) -m arcface_api packs $(ARGS)

bench: run-environment ## measure the service on this machine, in about a minute: make bench ARGS='--output bench.json'
	@exec env ARCFACE_PACK=$${ARCFACE_PACK:-auto} \
		ARCFACE_DEVICE=$${ARCFACE_DEVICE:-$(if $(filter cuda,$(DEVICE)),cuda,auto)} $(RUN) -m arcface_api bench $(ARGS)

evaluate: ## measure which threshold to use, from your own pairs: make evaluate ARGS='pairs.csv crops/ --output report'
	@$(ENVIRONMENT) .venv-evaluate-$(DEVICE) "$(PYTHON)" requirements/build.txt requirements/$(DEVICE).txt requirements/evaluate.txt
	@exec env ARCFACE_PACK=$${ARCFACE_PACK:-auto} \
		ARCFACE_DEVICE=$${ARCFACE_DEVICE:-$(if $(filter cuda,$(DEVICE)),cuda,auto)} .venv-evaluate-$(DEVICE)/bin/python -m arcface_api evaluate $(ARGS)

test: dev-environment ## run the tests
	$(DEV) -m pytest $(ARGS)

test-all: ## run the tests on every supported Python that is installed (but for EXCEPT=3.11)
	EXCEPT=$(EXCEPT) tests/all-pythons $(ARGS)

check: dev-environment ## style, types, floors, generated docs
	$(DEV) -m ruff check .
	$(DEV) -m ruff format --check .
	$(DEV) -m mypy
	.venv-dev/bin/lint-imports
	$(DEV) docs/generate.py --check

check-deep: ## three minutes of fuzzing, then tests and checks: before a release, and before another OpenCV
	$(MAKE) fuzz ARGS='--seconds 180'
	$(MAKE) check test

fuzz: dev-environment ## look for pictures that decoding dies of: make fuzz ARGS='--seconds 600 --seed 2' (or --help)
	PYTHONPATH=tests:benchmarks $(DEV) -m fuzz $(ARGS)

fix: dev-environment ## mend what can be mended by itself
	$(DEV) -m ruff check --fix .
	$(DEV) -m ruff format .
	$(DEV) docs/generate.py

livez: dev-environment ## measure /livez under load on an IResNet100 with random weights (PICTURE=face.jpg)
	@test -n "$(PICTURE)" || { echo "Name a picture to embed: make livez PICTURE=face.jpg"; exit 1; }
	@mkdir -p build
	@test -f build/iresnet100.onnx || $(DEV) benchmarks/iresnet.py build/iresnet100.onnx
	$(DEV) benchmarks/livez.py build/iresnet100.onnx $(PICTURE) $(ARGS)

open-pack: dev-environment ## make the open pack's networks anew, from packages of the registry (ARGS='--from FOLDER': from files)
	$(DEV) training/open_pack/make_pack.py $(ARGS)

lock: ## write the locks in requirements/ anew, with the newest versions
	$(PYTHON) -m venv .venv-lock && .venv-lock/bin/python -m pip install --quiet uv
	requirements/lock

image: ## build the container image
	docker build --tag arcface-api .

clean: ## remove the environments and caches
	rm -rf .venv-* .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis dist build

run-environment:
	@case "$(DEVICE)" in cpu) ;; cuda) echo "DEVICE=cuda installs CUDA's libraries, about 2.7 GB.";; \
		*) echo "DEVICE=$(DEVICE) is not allowed: cpu or cuda."; exit 1;; esac
	$(ENVIRONMENT) .venv-$(DEVICE) "$(PYTHON)" requirements/build.txt requirements/$(DEVICE).txt

dev-environment:
	$(ENVIRONMENT) .venv-dev "$(PYTHON)" requirements/dev.txt

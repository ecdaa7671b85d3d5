# make demo and make test each do all their own set-up; a second run reuses it.
#   make PYTHON=python3.12 ...         another interpreter (3.11 or 3.12)
#   make TORCH_INDEX=https://... ...   the index to take torch from, such as PyTorch's CPU wheel index

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.PHONY: help set-up demo test lint bench bench-model bench-training bare lock lock-sizes reproduce-small train-default ship-default clean

VENV ?= .venv
PYTHON ?=
TORCH_INDEX ?=
# Inside the clone, so that a clone is self-contained; name a shared folder to keep the assets of several clones.
export MMDG_ASSETS ?= $(abspath $(VENV))/assets
# Two OpenMP threads beside one busy process spin each other to a crawl (docs/architecture.md).
export OMP_WAIT_POLICY ?= PASSIVE
RUN := $(VENV)/bin

help:  ## this text
	@echo 'mmdg-live: is the face in front of an RGB-D-IR camera a live person?'
	@echo
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-15s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo
	@echo 'Start with: make demo (simulated camera, no hardware needed), then make test.'

set-up:  ## check this machine, create .venv from the lock, fetch assets (the targets below do this themselves)
	@python=$$(PYTHON='$(PYTHON)' sh scripts/preflight.sh) && \
	  "$$python" scripts/set_up.py --venv '$(VENV)' --torch-index '$(TORCH_INDEX)'

demo: set-up  ## simulated people and attacks through the whole pipeline; writes demo/contact_sheet.png
	$(RUN)/mmdg demo --out demo

lint: set-up  ## ruff, mypy, import contracts
	$(RUN)/ruff check .
	$(RUN)/mypy
	$(RUN)/lint-imports

test: lint  ## lint, import contracts and the whole test suite
	$(RUN)/python -m pytest $(PYTEST_ARGUMENTS)

bench: set-up  ## every benchmark script, quickly where it can; prints ratios from this machine
	@for script in benchmarks/*.py; do \
	  [ -e "$$script" ] || { echo 'no benchmarks in this tree'; break; }; \
	  quick=; ! grep -q -e --quick "$$script" || quick=--quick; \
	  echo "== $$script $$quick"; $(RUN)/python "$$script" $$quick; done

bare:  ## prove set-up, doctor and demo in a minimal Debian chroot (needs root and debootstrap; 3: not possible here)
	bash scripts/bare.sh

lock:  ## resolve requirements.lock again (needs uv; UPGRADE=1 moves the pins)
	@python=$$(PYTHON='$(PYTHON)' sh scripts/preflight.sh) && \
	  PATH="$$PATH:$(abspath $(RUN))" "$$python" scripts/lock.py $(if $(UPGRADE),--upgrade)

bench-model: set-up  ## every inference backend against a naive reference: time, agreement, share of the peak
	$(RUN)/python benchmarks/model.py $(BENCH_ARGUMENTS)

bench-training: set-up  ## a base ReGrad training step against the published form: time, memory (about half an hour)
	$(RUN)/python benchmarks/training.py $(BENCH_ARGUMENTS)

# SMALL_DATA, SMALL_RUNS and SMALL_REPORT name other folders; BENCHMARK_ARGUMENTS such as --time-limit 20m or --dry-run.
SMALL_DATA ?= out/simulated_benchmark
SMALL_RUNS ?= out/reproduce_small
SMALL_REPORT ?= out/reproduce_small_report
reproduce-small: set-up  ## Protocol 1 on simulated data: five methods, resumable, then a report (hours on two cores)
	[ -f '$(SMALL_DATA)/lists/W-test.txt' ] || $(RUN)/mmdg simulate benchmark '$(SMALL_DATA)' --size small
	$(RUN)/mmdg benchmark --recipe reproduce_small --data '$(SMALL_DATA)' \
	  --metadata '$(SMALL_DATA)/lists/P-metadata.csv' --cache-mib 512 --out '$(SMALL_RUNS)' $(BENCHMARK_ARGUMENTS)
	$(RUN)/mmdg report '$(SMALL_RUNS)' --out '$(SMALL_REPORT)'

# Every step can be stopped and goes on when the target is made again; TRAIN_ARGUMENTS='--time-limit 9m' stops by itself.
# DEFAULT_SIZE is of the tree, DEFAULT_SPECIFICATION the simulator's difficulty specification, DEFAULT_POINT the operating
# point that calibration writes (make evaluate-default).
DEFAULT_DATA ?= out/default_data
DEFAULT_SIZE ?= medium
DEFAULT_RUN ?= out/default_run
DEFAULT_CANDIDATE ?= out/default_candidate
DEFAULT_POINT ?= out/default_sessions/operating_point.json
DEFAULT_EVALUATION ?= out/default_sessions/evaluation.json
DEFAULT_SPECIFICATION ?=
SHIPPED ?= mmdg_model/shipped
SHIP = $(RUN)/mmdg weights ship '$(DEFAULT_RUN)' $(if $(DEFAULT_SPECIFICATION),--specification '$(DEFAULT_SPECIFICATION)')

train-default: set-up  ## the default weights from a seed: simulate, train, export; resumable (hours on two cores)
	[ -f '$(DEFAULT_DATA)/lists/L-test.txt' ] || \
	  $(RUN)/mmdg simulate benchmark '$(DEFAULT_DATA)' --size '$(DEFAULT_SIZE)' --domains CLPSW
	$(RUN)/mmdg train --recipe default_weights --data '$(DEFAULT_DATA)' --lists '$(DEFAULT_DATA)/lists' \
	  --metadata '$(DEFAULT_DATA)/lists/P-metadata.csv' --out '$(DEFAULT_RUN)' --threads 2 --cache-mib 1024 \
	  $(TRAIN_ARGUMENTS)
	@if [ -f '$(DEFAULT_RUN)/done.json' ]; then \
	  $(SHIP) --out '$(DEFAULT_CANDIDATE)' && \
	  echo 'next: make evaluate-default (calibration, then figures), then make ship-default'; \
	else echo 'not at its end yet: make train-default goes on'; fi

ship-default: set-up  ## the trained default weights with their operating point, and figures if there are, into the package
	$(SHIP) --operating-point '$(DEFAULT_POINT)' --out '$(SHIPPED)' \
	  $$([ ! -f '$(DEFAULT_EVALUATION)' ] || echo --evaluation '$(DEFAULT_EVALUATION)')
	$(RUN)/mmdg weights show --json

lock-sizes:  ## what a new machine downloads, from the index's own file sizes (needs uv)
	@PATH="$$PATH:$(abspath $(RUN))" $$(PYTHON='$(PYTHON)' sh scripts/preflight.sh) scripts/lock.py --sizes

clean:  ## remove .venv, caches and build output (recordings and settings stay)
	rm -rf '$(VENV)' build dist .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -not -path './.git/*' -prune -exec rm -rf {} +

# make demo and make test each do all their own set-up; a second run reuses it.
#   make PYTHON=python3.12 ...         another interpreter (3.11 or 3.12)
#   make TORCH_INDEX=https://... ...   the index to take torch from, such as PyTorch's CPU wheel index

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.PHONY: help set-up demo test lint fuzz bench bench-model bench-training kiosk-node bench-kiosk conformance-demo bare lock lock-sizes reproduce-small reproduce-tables simulate-small audit-simulator train-default evaluate-default ship-default generalisation clean

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

# FUZZ_SEED does an earlier run again; FUZZ_ARGUMENTS such as --sessions 1000000 or --case out/fuzz/case-7-12.json.
FUZZ_SEED ?=
FUZZ_ARGUMENTS ?=
fuzz: set-up  ## 100,000 faulted sessions in virtual time twice, each guard removed in turn, every decoder (about half an hour)
	$(RUN)/python -m tests.fuzz $(if $(FUZZ_SEED),--seed $(FUZZ_SEED)) $(FUZZ_ARGUMENTS)
	$(RUN)/python -m tests.fuzz $(if $(FUZZ_SEED),--seed $(FUZZ_SEED)) --hopeless --mutant-cases 0 --decoder-seconds 0

bench: set-up  ## every benchmark script, quickly where it can; prints ratios from this machine
	@for script in benchmarks/*.py; do \
	  [ -e "$$script" ] || { echo 'no benchmarks in this tree'; break; }; \
	  quick=; ! grep -q -e --quick "$$script" || quick=--quick; \
	  echo "== $$script $$quick"; $(RUN)/python "$$script" $$quick; done

# NPM names another npm. The client's tests run in `make test`, too, those with an engine only where this was done before.
NPM ?= npm
kiosk-node: set-up  ## the Node.js client: npm ci, its own tests, whole sessions with a simulated engine, the door (needs node 20)
	cd examples/kiosk_node && $(NPM) ci --no-audit --no-fund && $(NPM) test
	$(RUN)/python -m pytest tests/examples/test_kiosk_node.py

bare:  ## prove set-up, doctor and demo in a minimal Debian chroot (needs root and debootstrap; 3: not possible here)
	bash scripts/bare.sh

lock:  ## resolve requirements.lock again (needs uv; UPGRADE=1 moves the pins)
	@python=$$(PYTHON='$(PYTHON)' sh scripts/preflight.sh) && \
	  PATH="$$PATH:$(abspath $(RUN))" "$$python" scripts/lock.py $(if $(UPGRADE),--upgrade)

bench-model: set-up  ## every inference backend against a naive reference: time, agreement, share of the peak
	$(RUN)/python benchmarks/model.py $(BENCH_ARGUMENTS)

bench-training: set-up  ## a base ReGrad training step against the published form: time, memory (about half an hour)
	$(RUN)/python benchmarks/training.py $(BENCH_ARGUMENTS)

bench-kiosk: set-up  ## the kiosk socket in wall-clock time against its goals; kills processes of its own engines (ten minutes)
	$(RUN)/python benchmarks/kiosk.py $(BENCH_ARGUMENTS)

conformance-demo: set-up  ## the kiosk contract tried on a running mmdg-live with a simulated camera (a minute)
	RUN='$(RUN)' bash examples/kiosk_demo/conformance.sh

# SMALL_DATA, SMALL_RUNS and SMALL_REPORT name other folders; BENCHMARK_ARGUMENTS such as --time-limit 20m or --dry-run.
SMALL_DATA ?= out/simulated_benchmark
SMALL_RUNS ?= out/reproduce_small
SMALL_REPORT ?= out/reproduce_small_report

simulate-small: set-up  ## a small simulated tree of all five domains with a contact sheet (minutes)
	$(RUN)/mmdg simulate benchmark out/simulated_small --size 300 --domains CLPSW

reproduce-small: set-up  ## Protocol 1 on simulated data: five methods, resumable, then a report (hours on two cores)
	[ -f '$(SMALL_DATA)/lists/W-test.txt' ] || $(RUN)/mmdg simulate benchmark '$(SMALL_DATA)' --size small
	$(RUN)/mmdg benchmark --recipe reproduce_small --data '$(SMALL_DATA)' \
	  --metadata '$(SMALL_DATA)/lists/P-metadata.csv' --cache-mib 512 --out '$(SMALL_RUNS)' $(BENCHMARK_ARGUMENTS)
	$(RUN)/mmdg report '$(SMALL_RUNS)' --out '$(SMALL_REPORT)'

# Protocol 1 for every row of the paper's tables on simulated data, all ViTs from one backbone pretrained here on other
# simulated people. Every step goes on where it was. TABLES_SEEDS names seeds (an order claim needs five);
# TABLES_SHARD=2/4 is one machine's share; a shard ends by itself after TABLES_TIME.
TABLES_DATA ?= $(SMALL_DATA)
TABLES_PEOPLE ?= out/pretraining_people
TABLES_PRETRAINING ?= out/pretraining_micro
TABLES_RUNS ?= out/reproduce_tables
TABLES_REPORT ?= out/reproduce_tables_report
TABLES_COSTS ?= out/method_costs
TABLES_SEEDS ?= 0
TABLES_TIME ?= 55m
TABLES_SHARD ?= 1/1
reproduce-tables: set-up  ## all methods x Protocol 1 on simulated data, in shards of at most an hour, then all tables and figures
	[ -f '$(TABLES_DATA)/lists/W-test.txt' ] || $(RUN)/mmdg simulate benchmark '$(TABLES_DATA)' --size small
	[ -f '$(TABLES_PEOPLE)/lists/W-test.txt' ] || $(RUN)/mmdg simulate benchmark '$(TABLES_PEOPLE)' --size small --seed 1
	[ -f '$(TABLES_PRETRAINING)/backbone.safetensors' ] || $(RUN)/mmdg pretrain '$(TABLES_PEOPLE)' \
	  '$(TABLES_PRETRAINING)' --recipe micro --disjoint-from '$(TABLES_DATA)' --max-minutes 55
	[ -f '$(TABLES_COSTS)/method_costs.csv' ] || $(RUN)/python benchmarks/method_costs.py --all-train \
	  --out '$(TABLES_COSTS)'
	$(RUN)/mmdg benchmark --table all --scale micro --data '$(TABLES_DATA)' \
	  --metadata '$(TABLES_DATA)/lists/P-metadata.csv' --backbone '$(TABLES_PRETRAINING)/backbone.safetensors' \
	  --cache-mib 512 --seeds '$(TABLES_SEEDS)' --shard '$(TABLES_SHARD)' --time-limit '$(TABLES_TIME)' \
	  --timings '$(TABLES_COSTS)/method_costs.csv' --out '$(TABLES_RUNS)' $(BENCHMARK_ARGUMENTS) || [ $$? = 1 ]
	$(RUN)/mmdg report '$(TABLES_RUNS)' --costs '$(TABLES_COSTS)/method_costs.csv' --keep '$(TABLES_REPORT)/runs' \
	  --out '$(TABLES_REPORT)'

# Rendering the three trees is most of it; they are kept, and an interrupted rendering goes on. AUDIT_ARGUMENTS such as
# --runs DIR, --commit docs/simulator-difficulty.json.
AUDIT_SIZE ?= 2000
AUDIT_FRAMES ?= 2
AUDIT_TREES ?= out/simulator_audit_trees
AUDIT_REPORT ?= out/simulator_audit
AUDIT_ARGUMENTS ?=
audit-simulator: set-up  ## what the simulator gives away: probes, single cues, noise, balance; fails where a bound does
	$(RUN)/mmdg simulate benchmark '$(AUDIT_TREES)/tree' --size $(AUDIT_SIZE) --frames $(AUDIT_FRAMES) --domains CPSWL
	$(RUN)/mmdg simulate benchmark '$(AUDIT_TREES)/other_seed' --size $(AUDIT_SIZE) --frames $(AUDIT_FRAMES) --domains CPSWL --seed 1
	$(RUN)/mmdg simulate benchmark '$(AUDIT_TREES)/null_attack' --size $(AUDIT_SIZE) --frames $(AUDIT_FRAMES) --domains CPSWL --null-attack
	$(RUN)/mmdg simulate audit '$(AUDIT_TREES)/tree' '$(AUDIT_TREES)/other_seed' '$(AUDIT_TREES)/null_attack' \
	  --out '$(AUDIT_REPORT)' $(AUDIT_ARGUMENTS)

# Every step can be stopped and goes on when the target is made again; TRAIN_ARGUMENTS='--time-limit 9m' stops by itself.
# DEFAULT_SIZE and DEFAULT_FRAMES are of the tree, DEFAULT_PROCESSES says where it trains (a GPU: '--accelerator cuda
# --workers 8'), DEFAULT_SPECIFICATION is the simulator's difficulty specification, DEFAULT_POINT the operating point that
# calibration writes (make evaluate-default).
DEFAULT_DATA ?= out/default_data
DEFAULT_SIZE ?= 4000
DEFAULT_FRAMES ?= 2
DEFAULT_PROCESSES ?= --accelerator cpu --devices 2 --threads 1
DEFAULT_FIRST_RUN ?= out/default_first_run
DEFAULT_FIRST ?= out/default_first
DEFAULT_FURTHER_DATA ?= out/default_further_data
DEFAULT_FURTHER_SIZE ?= 10000
DEFAULT_RUN ?= out/default_run
DEFAULT_CANDIDATE ?= out/default_candidate
DEFAULT_SESSIONS ?= out/default_sessions
DEFAULT_POINT ?= $(DEFAULT_SESSIONS)/operating_point.json
DEFAULT_EVALUATION ?= $(DEFAULT_SESSIONS)/evaluation.json
DEFAULT_SPECIFICATION ?= docs/simulator-difficulty.json
SHIPPED ?= mmdg_model/shipped
SHIP_OF = $(RUN)/mmdg weights ship '$(1)' $(if $(DEFAULT_SPECIFICATION),--specification '$(DEFAULT_SPECIFICATION)')
SHIP = $(call SHIP_OF,$(DEFAULT_RUN))

train-default: set-up  ## the default weights from seeds: simulate, train in two stages, export; resumable, long on two cores
	[ -f '$(DEFAULT_DATA)/lists/L-test.txt' ] || \
	  $(RUN)/mmdg simulate benchmark '$(DEFAULT_DATA)' --size '$(DEFAULT_SIZE)' --frames '$(DEFAULT_FRAMES)' \
	    --domains CLPSW --image-size 112
	$(RUN)/mmdg train --recipe default_weights --data '$(DEFAULT_DATA)' --lists '$(DEFAULT_DATA)/lists' \
	  --metadata '$(DEFAULT_DATA)/lists/P-metadata.csv' --out '$(DEFAULT_FIRST_RUN)' --cache-mib 1024 \
	  $(DEFAULT_PROCESSES) $(TRAIN_ARGUMENTS)
	@if [ ! -f '$(DEFAULT_FIRST_RUN)/done.json' ]; then echo 'not at its end yet: make train-default goes on'; exit 0; fi; \
	[ -f '$(DEFAULT_FURTHER_DATA)/lists/L-test.txt' ] || $(RUN)/mmdg simulate benchmark '$(DEFAULT_FURTHER_DATA)' \
	  --size '$(DEFAULT_FURTHER_SIZE)' --frames '$(DEFAULT_FRAMES)' --seed 5 --domains L --image-size 112; \
	[ -f '$(DEFAULT_FIRST)/default.safetensors' ] || $(call SHIP_OF,$(DEFAULT_FIRST_RUN)) --out '$(DEFAULT_FIRST)'; \
	$(RUN)/mmdg train --recipe default_weights_refined --start '$(DEFAULT_FIRST)/default.safetensors' \
	  --data '$(DEFAULT_FURTHER_DATA)' --lists '$(DEFAULT_FURTHER_DATA)/lists' --out '$(DEFAULT_RUN)' --cache-mib 1500 \
	  $(DEFAULT_PROCESSES) $(TRAIN_ARGUMENTS)
	@if [ -f '$(DEFAULT_RUN)/done.json' ]; then \
	  $(SHIP) --out '$(DEFAULT_CANDIDATE)' && \
	  echo 'next: make evaluate-default (calibration, then figures), then make ship-default'; \
	else echo 'not at its end yet: make train-default goes on'; fi

ship-default: set-up  ## the trained default weights with their operating point, and figures if there are, into the package
	$(SHIP) --operating-point '$(DEFAULT_POINT)' --out '$(SHIPPED)' \
	  $$([ ! -f '$(DEFAULT_EVALUATION)' ] || echo --evaluation '$(DEFAULT_EVALUATION)')
	$(RUN)/mmdg weights show --json

# CALIBRATE_COUNT sessions of each main species calibrate, EVALUATE_COUNT are judged; EVALUATE_ARGUMENTS such as --jobs 16
# or --frames 12 go to the filming. Without a finished run of make train-default the shipped weights are judged.
CALIBRATE_COUNT ?= 40
EVALUATE_COUNT ?= 150
evaluate-default: set-up  ## the default weights on simulated sessions: calibrate, then error rates of decisions; resumable, long
	$(RUN)/mmdg simulate films '$(DEFAULT_SESSIONS)/val' --split val --count $(CALIBRATE_COUNT) $(EVALUATE_ARGUMENTS)
	$(RUN)/mmdg simulate films '$(DEFAULT_SESSIONS)/test' --split test --count $(EVALUATE_COUNT) $(EVALUATE_ARGUMENTS)
	model=(); \
	if [ -f '$(DEFAULT_RUN)/done.json' ]; then \
	  $(RUN)/mmdg simulate calibrate '$(DEFAULT_SESSIONS)/val' --model '$(DEFAULT_CANDIDATE)/default.safetensors' \
	    --out '$(DEFAULT_POINT)'; \
	  $(SHIP) --operating-point '$(DEFAULT_POINT)' --out '$(DEFAULT_SESSIONS)/calibrated'; \
	  model=(--model '$(DEFAULT_SESSIONS)/calibrated/default.safetensors'); \
	fi; \
	$(RUN)/mmdg simulate evaluate '$(DEFAULT_SESSIONS)/test' "$${model[@]}" --out '$(DEFAULT_SESSIONS)'

# GENERAL_DATA, GENERAL_SIZE, GENERAL_RUNS and GENERAL_REPORT name other folders and sizes; BENCHMARK_ARGUMENTS such as
# --time-limit 9m --jobs 20 --accelerator cuda, or --parts domains_mmdg,domains_plain.
GENERAL_DATA ?= out/generalisation_data
GENERAL_SIZE ?= medium
GENERAL_RUNS ?= out/generalisation
GENERAL_REPORT ?= out/generalisation_report
generalisation: set-up  ## simulated data: data sets, families of attacks and modalities left out; resumable, long on two cores
	[ -f '$(GENERAL_DATA)/lists/L-test.txt' ] || \
	  $(RUN)/mmdg simulate benchmark '$(GENERAL_DATA)' --size '$(GENERAL_SIZE)' --domains CPSWL
	$(RUN)/mmdg benchmark --recipe generalisation --data '$(GENERAL_DATA)' \
	  --metadata '$(GENERAL_DATA)/lists/P-metadata.csv' --cache-mib 512 --out '$(GENERAL_RUNS)' $(BENCHMARK_ARGUMENTS)
	$(RUN)/mmdg report '$(GENERAL_RUNS)' --generalisation --out '$(GENERAL_REPORT)'

lock-sizes:  ## what a new machine downloads, from the index's own file sizes (needs uv)
	@PATH="$$PATH:$(abspath $(RUN))" $$(PYTHON='$(PYTHON)' sh scripts/preflight.sh) scripts/lock.py --sizes

clean:  ## remove .venv, caches and build output (recordings and settings stay)
	rm -rf '$(VENV)' build dist .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -not -path './.git/*' -prune -exec rm -rf {} +

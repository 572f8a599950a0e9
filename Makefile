PYTHON ?= python3
BIN := .venv/bin
TABLES := table3 table4 table5 table6 table7 table8 table9 table10 table11
ARGS ?=
NAMED = test -n "$(SWEEP)" || { echo "name a sweep, SWEEP=leakage; there are $(notdir $(basename $(wildcard sweeps/*.yaml)))"; exit 1; }
RUN_NAMED = test -n "$(RUN)" || { echo "name a run directory or an exported file, RUN=runs/…/seed0"; exit 1; }

.DEFAULT_GOAL := help
# Offline, another Python that has torch will do: make gpu PY=python3 BUNDLE=bundle
PY ?= $(BIN)/python
NEEDS = $(if $(filter $(BIN)/python,$(PY)),setup)
MINUTES ?= 9
DEVICE ?= gpu
PYVERSION ?= 3.12
GIVEN = $(if $(DATA),--data $(DATA)) $(if $(WEIGHTS),--weights $(WEIGHTS))
BENCH ?= bench

.PHONY: help setup demo test lint rivals $(TABLES) tables sweep status report claims export app bench gpu gpu-bundle
.PHONY: test-real size ledger keras-parity keras-weights data lock

help:  ## This list
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 16
	@echo 'What a sweep is given is the same for all: make table4 ARGS="seed=0 weights=folder budget=cpu"'

setup: .venv/.installed  ## Create .venv with the exact versions of requirements.lock

.venv/.installed: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(0 if (3, 11) <= v < (3, 14) else \
	  f"Python 3.11-3.13 is needed, this is {v.major}.{v.minor}: make setup PYTHON=python3.12")'
	$(PYTHON) -m venv .venv
	@# Compiling every file of torch takes longer than the few that are used.
	$(BIN)/python -m pip install --quiet --no-compile --requirement requirements.lock
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	@touch $@

demo: setup  ## Set up, and run the main job on drawn images: no download, a few minutes
	$(BIN)/python train.py experiment=demo

test: setup  ## Set up, and run the tests; some of them: ARGS="tests/models -k cut"
	$(BIN)/python -m pytest -n auto --dist loadscope $(ARGS)

test-real: setup  ## Train, predict, export and tabulate real images: ../shared/ham10000-200x150
	$(BIN)/python -m pytest -m real $(ARGS)

size: setup  ## How many lines each room has, and how far it is from the command to a training step
	@$(BIN)/python -m pytest -q -s tests/test_size.py 

lint: setup  ## Check style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

rivals: setup  ## The systems that the paper names, by image and by lesion: train what is missing, write the table

rivals $(TABLES): setup
	@$(MAKE) --no-print-directory sweep SWEEP=$@

sweep: setup  ## Train what is missing of a sweep and write its table: SWEEP=table9 (or: make table9)
	@$(NAMED)
	@code=0; $(BIN)/python train.py -cd sweeps -cn $(SWEEP) -m $(ARGS) || code=$$?; \
	  $(BIN)/skinlesion tables $(SWEEP) $(ARGS) && exit $$code

status: setup  ## How far a sweep is: SWEEP=table9
	@$(NAMED)
	@$(BIN)/skinlesion status $(SWEEP) $(ARGS)

tables: setup  ## Write Tables 3-11 from the runs that there are
	@$(BIN)/skinlesion tables $(ARGS)

report: setup  ## Write one page of all runs: tables, figures, leakage, provenance
	@$(BIN)/skinlesion report $(ARGS)

claims: setup  ## Put the paper's conclusions to the test, from runs/ or ARGS="folders of runs"
	@$(BIN)/skinlesion claims $(ARGS)

export: setup  ## Turn a trained run into files to carry away, with a model card: RUN=runs/…/seed0
	@$(RUN_NAMED)
	@$(BIN)/skinlesion export $(RUN) $(ARGS)

app: setup  ## Show a trained model in the browser, on this machine only: RUN=runs/…/seed0
	@$(RUN_NAMED)
	@$(BIN)/skinlesion app $(RUN) $(ARGS)

bench: setup  ## Measure how fast it is here, as ratios: one measurement ARGS="pipeline", or all
	$(BIN)/python -m benchmarks --out $(BENCH) $(ARGS)

gpu: $(NEEDS)  ## Test, measure, train Table 4 on a GPU, MINUTES=9 a call: DATA=archive WEIGHTS=folder
	@$(PY) -m benchmarks.gpu --minutes $(MINUTES) --device $(DEVICE) $(GIVEN) \
	  $(if $(BUNDLE),--bundle $(BUNDLE)) $(ARGS)

gpu-bundle: setup  ## Pack what an offline GPU machine lacks: BUNDLE=bundle PYVERSION=3.12 DATA= WEIGHTS=
	@$(BIN)/python -m benchmarks.bundle $(or $(BUNDLE),bundle) --python $(PYVERSION) $(GIVEN)

ledger: setup  ## Count every parameter against Keras' and explain each difference
	$(BIN)/skinlesion ledger

keras-parity: setup .venv-keras/.installed  ## Compare with Keras at every cut (installs Keras aside, 1.5 GB)
	.venv-keras/bin/python -m skinlesion.fidelity.keras_side record .venv-keras/parity.npz
	$(BIN)/skinlesion parity .venv-keras/parity.npz
	.venv-keras/bin/python -m pytest --noconftest tests/fidelity/test_keras_files.py

keras-weights: .venv-keras/.installed  ## Convert Keras' weights: FILE=nasnet_mobile.h5 (or none: downloaded)
	.venv-keras/bin/python -m skinlesion.fidelity.keras_side convert $(FILE) nasnet_mobile.safetensors

.venv-keras/.installed: skinlesion/fidelity/keras-requirements.txt
	$(PYTHON) -m venv .venv-keras
	.venv-keras/bin/python -m pip install --quiet --no-compile --no-deps --requirement $<
	@touch $@

data: setup  ## Download HAM10000 (3 GB) into data/ham10000; ARGS=--test: the ISIC 2018 test set; --masks
	$(BIN)/skinlesion data download $(ARGS)

lock: setup  ## Write requirements.lock anew from pyproject.toml
	$(BIN)/python -m pip install --quiet uv
	$(BIN)/uv pip compile --upgrade --universal --generate-hashes --python-version 3.11 --extra dev \
	  --no-annotate --no-header --no-emit-index-url --output-file requirements.lock pyproject.toml

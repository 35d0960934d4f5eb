# make train: environment, install, and the main job on the embedded default. make test: the whole suite.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
FLAGS ?=

.PHONY: train test lint docs site wheel-check bench bench-check clean

train: $(VENV)/installed
	$(BIN)/python jepa_world_model_trainer.py $(FLAGS)

test: $(VENV)/installed-dev
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n auto $(FLAGS)

lint: $(VENV)/installed-dev
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy

docs: $(VENV)/installed
	$(BIN)/jepa-wm docs

site: $(VENV)/installed-dev
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build  # the theme advertises another program otherwise

wheel-check: $(VENV)/installed
	$(BIN)/python benchmarks/wheel.py $(FLAGS)

# Throughput of the default step against the machine and against a naive step: tables, some minutes.
bench: $(VENV)/installed
	$(BIN)/python benchmarks/throughput.py $(FLAGS)
	$(BIN)/python benchmarks/naive.py --threads 1

# Ratios of step times that must hold on any machine: under a minute.
bench-check: $(VENV)/installed-dev
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/regression.py

$(VENV)/installed: pyproject.toml setup.py constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt torch torchvision
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e .
	touch $@

$(VENV)/installed-dev: $(VENV)/installed
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev,atari,vla,data,docs,hub,tensorboard]" minigrid
	touch $@

clean:
	rm -rf $(VENV) build *.egg-info

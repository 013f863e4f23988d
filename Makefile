# The two commands of the README are `make demo` and `make test`; `make` alone lists the rest.
PYTHON ?= python3
WORKERS ?= 4
VENV := .venv/bin
unexport PYTHONPATH

.PHONY: help env demo rehearse lint test test-nemo27 fuzz test-ledger test-sentinel test-together test-methods test-labels test-skypilot test-ci-cancel test-late faults bench leaks clean

help:
	@echo "make env     build .venv (the launcher) and .venv-recipes (NeMo, torch); a no-op when they are current"
	@echo "make demo    the main job from recordings to receipt, on the demo corpus (SEED=2: other voices)"
	@echo "make rehearse   rent on a simulated cloud: plan, YES, train there, release; costs nothing (as root; YES=1: no question)"
	@echo "make test    lint, then all tests (TESTS='tests/launcher -k plan' for some, WORKERS=2 for less memory)"
	@echo "make test-nemo27   models restore in NeMo 2.7.3, too (builds .venv-nemo27)"
	@echo "make test-ledger   64 processes x 50 rounds against one cap, on SQLite and PostgreSQL, killed at random"
	@echo "make faults  kill us at every failpoint on a simulated cloud (as root; hours; CASES='runpod resume 0:40')"
	@echo "make test-skypilot   every row of the providers' conformance suite through SkyPilot, too, and two machines as one job"
	@echo "make test-ci-cancel   50 CI runs cancelled at random moments of renting, and what the reaper leaves of them"
	@echo "make test-sentinel   runners killed on rented machines of the simulated cloud, a disk that is full (as root)"
	@echo "make test-together   training in several processes and on several machines, every kind of base"
	@echo "make test-methods   a telephone line and a new language learned, and nothing forgotten"
	@echo "make test-labels   every kind of base as a teacher, and a folder labelled on a machine of the simulated cloud (as root)"
	@echo "make test-late   the tests that act on a run in its midst, each of them two seconds late (LATE_S=5: later)"
	@echo "make fuzz    hostile files and event streams through the command line (EXAMPLES=1000: more)"
	@echo "make lint    ruff and mypy"
	@echo "make bench   the benchmarks; results in bench/results/"
	@echo "make leaks   what plain SkyPilot leaves billing, row by row, and what we leave (as root; ROWS='server end')"
	@echo "make clean   remove both environments and the caches"

env:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "$(PYTHON) is not Python 3.11 or newer. Say which is: make env PYTHON=python3.11" >&2; exit 2; }
	@$(PYTHON) -m launcher.envbuild

demo: env
	@$(VENV)/python examples/demo.py $(if $(SEED),--seed $(SEED))

rehearse: env
	@$(VENV)/python examples/rehearse.py $(if $(YES),--yes) $(if $(PROVIDER),--provider $(PROVIDER)) \
	  $(if $(STEPS),--steps $(STEPS))

lint: env
	$(VENV)/ruff check .
	$(VENV)/mypy

test: lint
	@$(VENV)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder $(TESTS)

# Models made with NeMo 3.0.0 restore in NeMo 2.7.3 and hear the same: in an environment of its own (2 GB).
test-nemo27: env
	@test -e .venv-nemo27/ready || { $(PYTHON) -m venv .venv-nemo27 && \
	  .venv-nemo27/bin/pip install torch==2.13.0 'nemo_toolkit[asr]==2.7.3' && touch .venv-nemo27/ready; }
	LAUNCHER_STOCK_NEMO_PYTHON=$(CURDIR)/.venv-nemo27/bin/python \
	  $(VENV)/python -m pytest tests/recipes/finetune/test_four_bases.py -k "restore_in_stock or every_kind"

# The money tests at their full size (some minutes; make test runs them small).
test-ledger: env
	LAUNCHER_TEST_STORM=64x50 LAUNCHER_TEST_EXAMPLES=200 $(VENV)/python -m pytest -s \
	  tests/launcher/ledger/test_storm.py tests/launcher/ledger/test_states_of_money.py

# Each effect of a whole run named, a full disk at each write of the ledger, reapers whose clock is wrong, a death at
# every effect at every provider, 200 random schedules (SCHEDULES=20 for fewer); results in bench/results/faults.md.
faults: env
	LAUNCHER_FAULTS=all $(VENV)/python -m pytest -s tests/faults/test_every_effect_is_named.py \
	  tests/faults/test_full_disk.py tests/launcher/run/test_reap_wipes.py tests/launcher/run/test_wrong_clock_reap.py
	$(VENV)/python -m tests.faults $(CASES)
	$(VENV)/python -m tests.faults.schedules $(or $(SCHEDULES),200)

# A launch through SkyPilot takes half a minute and most rows need one: make test runs those that matter most.
test-skypilot: env
	LAUNCHER_TEST_WHOLE=1 $(VENV)/python -m pytest tests/launcher/providers/test_provider_conformance.py -k skypilot
	LAUNCHER_TEST_WHOLE=1 $(VENV)/python -m pytest tests/launcher/run/test_several_machines.py

# The cancelled CI runs and the shut laptops at their full number (as root; make test cancels three, and shuts two).
test-ci-cancel: env
	LAUNCHER_TEST_CANCELS=50 LAUNCHER_FAULTS=all $(VENV)/python -m pytest -s \
	  tests/launcher/run/test_ci_cancel.py tests/launcher/run/test_laptop_shut.py

# Several processes and machines that train as one, of every kind of base (make test has two processes, one kind).
test-together: env
	LAUNCHER_TEST_TOGETHER=1 $(VENV)/python -m pytest tests/recipes/finetune/test_together.py

# What each way to fine-tune learns (make test has the first of each), and five seeds of each optimizer.
test-methods: env
	LAUNCHER_TEST_METHODS=1 $(VENV)/python -m pytest tests/recipes/finetune/test_methods_learn.py \
	  tests/recipes/finetune/test_memory_modes.py tests/recipes/finetune/test_second_language.py

# Every kind of base as a teacher, and a whole labelling job (make test has that a student learns from one).
test-labels: env
	LAUNCHER_TEST_LABELS=1 $(VENV)/python -m pytest tests/recipes/pseudo_label tests/launcher/run/test_labels.py

# What outlives a runner, on real machines of the simulated cloud (make test has the part that is quick).
test-sentinel: env
	LAUNCHER_TEST_SENTINEL=1 $(VENV)/python -m pytest tests/launcher/sentinel

# What a busy machine does to tests now and then, done to each of them: whatever one waits for, it learns late.
test-late: env
	LAUNCHER_TEST_LATE_S=$(or $(LATE_S),2) $(VENV)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder \
	  $(or $(TESTS),tests/launcher tests/cloud tests/recipes/finetune tests/recipes/pseudo_label)

# The fuzz tests at length (some minutes; make test runs a few examples of each).
fuzz: env
	LAUNCHER_TEST_EXAMPLES=$(or $(EXAMPLES),300) $(VENV)/python -m pytest tests/launcher/test_fuzz.py \
	  tests/launcher/run/test_secrets.py

bench: env
	@set -e; for bench in bench/*.py; do $(VENV)/python $$bench; done

# Each row of what plain SkyPilot was seen to do, done to it and to us; results in bench/results/leaks.md.
leaks: env
	$(VENV)/python -m bench.leaks $(ROWS)

clean:
	rm -rf .venv .venv-recipes .venv-nemo27 .mypy_cache .ruff_cache .pytest_cache .hypothesis

# The two commands of the README are `make demo` and `make test`; `make` alone lists the rest.
PYTHON ?= python3
WORKERS ?= 2
VENV := .venv/bin
unexport PYTHONPATH

.PHONY: help env demo lint test bench clean

help:
	@echo "make env     build .venv (the launcher) and .venv-recipes (NeMo, torch); a no-op when they are current"
	@echo "make demo    the main job from recordings to receipt, on the demo corpus (SEED=2: other voices)"
	@echo "make test    lint, then all tests (TESTS='tests/launcher -k plan' for some, WORKERS=1 for less memory)"
	@echo "make lint    ruff and mypy"
	@echo "make bench   the benchmarks; results in bench/results/"
	@echo "make clean   remove both environments and the caches"

env:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "$(PYTHON) is not Python 3.11 or newer. Say which is: make env PYTHON=python3.11" >&2; exit 2; }
	@$(PYTHON) -m launcher.envbuild

demo: env
	@$(VENV)/python examples/demo.py $(if $(SEED),--seed $(SEED))

lint: env
	$(VENV)/ruff check .
	$(VENV)/mypy

test: lint
	@$(VENV)/python -m pytest -n $(WORKERS) --dist loadfile $(TESTS)

bench: env
	@set -e; for bench in bench/*.py; do $(VENV)/python $$bench; done

clean:
	rm -rf .venv .venv-recipes .mypy_cache .ruff_cache .pytest_cache .hypothesis

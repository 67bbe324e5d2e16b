# The commands people type. `make run` and `make test` set up all they need in .venv.

PYTHON ?= python3
BIN := .venv/bin

.PHONY: run test test-lowest test-slow bench bench-compile docs notebooks check format dist man clean

run: .venv/installed  ## the main job: four learners on a stream of handwritten digits, then the report
	$(BIN)/metaleader run

test: .venv/installed-dev  ## the tests, a few minutes
	$(BIN)/pytest -n auto --dist loadscope

# The lowest versions that pyproject.toml allows, on a part of the tests that touches nearly every dependency: the
# command, reports and searches (tyro, rich, matplotlib, optuna), models of flax and equinox, data (pooch, platformdirs),
# the theory (scipy, float64) and frames (pandas). Rendering is left out, which takes a minute. Old versions warn of one
# another, which is no failure of ours.
LOWEST := tests/experiments tests/models/test_adapters.py::test_a_run_that_was_stopped_goes_on tests/problem/test_batch.py \
	tests/results/test_names.py tests/streams/test_data.py tests/tuning/test_tune.py \
	tests/theory/test_theory.py::test_the_solver_gives_the_closed_form_and_stationary_points_by_finite_differences
test-lowest: .venv-lowest/installed  ## a part of the tests on the lowest versions of all dependencies
	.venv-lowest/bin/pytest -n auto --dist loadscope -W default $(LOWEST)

test-slow: .venv/installed-dev  ## the long acceptance runs
	$(BIN)/pytest -m slow

bench: .venv/installed-bench  ## time and memory next to other libraries and to the bars, minutes; writes docs/benchmarks.md
	$(BIN)/python -m benchmarks

bench-compile: .venv/installed-bench  ## the meta-gradient against torch.compile, which compiles for minutes; needs g++
	$(BIN)/python -m benchmarks compiled

docs: .venv/installed-docs  ## the documentation site, in docs/_build/html; warnings are errors
	$(BIN)/python -m sphinx -b html -W --keep-going -q docs docs/_build/html

notebooks: .venv/installed-docs  ## the tutorials as notebooks, in docs/notebooks
	mkdir -p docs/notebooks
	for page in $$(grep -l ^kernelspec docs/tutorials/*.md); do \
		$(BIN)/jupytext --quiet --from md:myst --to ipynb --output docs/notebooks/$$(basename $$page .md).ipynb $$page || exit 1; \
	done

check: .venv/installed-dev  ## format, lint, types, and that imports go one way
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy
	$(BIN)/lint-imports

format: .venv/installed-dev  ## format, and mend what the linter can
	$(BIN)/ruff format
	$(BIN)/ruff check --fix

dist: .venv/installed-dev  ## the wheel and the archive of sources, in dist/
	rm -rf dist
	$(BIN)/python -m build --quiet

man: .venv/installed  ## the man page, dist/metaleader.1
	mkdir -p dist
	$(BIN)/metaleader man > dist/metaleader.1

clean:  ## remove the environment and all caches
	rm -rf .venv .venv-lowest dist docs/_build docs/notebooks .mypy_cache .pytest_cache .ruff_cache .hypothesis

.venv/bin/uv:
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet uv

# Of what is installed, only that is compiled which is used.
INSTALL := $(BIN)/uv pip install --quiet --python $(BIN)/python

.venv/installed: .venv/bin/uv pyproject.toml
	$(INSTALL) --editable .
	touch $@

.venv/installed-dev: .venv/bin/uv pyproject.toml
	$(INSTALL) --editable '.[dev]'
	touch $@ .venv/installed

.venv/installed-docs: .venv/bin/uv pyproject.toml
	$(INSTALL) --editable '.[docs]'
	touch $@ .venv/installed

.venv/installed-bench: .venv/bin/uv pyproject.toml
	$(INSTALL) --editable '.[bench]'
	touch $@ .venv/installed

.venv-lowest/installed: .venv/bin/uv pyproject.toml
	$(BIN)/uv venv --quiet --clear --python $(BIN)/python .venv-lowest
	$(BIN)/uv pip install --quiet --python .venv-lowest/bin/python --resolution lowest-direct --editable '.[dev]'
	touch $@

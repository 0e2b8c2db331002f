# make run, test, lint, bench, torture, fuzz; PYTHON=... names the Python that the environments are built with.

PYTHON ?= python3
# How often, and for how long, `make bench` measures each row of its table; ONLY=latency runs that part alone.
ROUNDS ?= 3
SECONDS ?= 4
ONLY ?=
# For how long `make torture` torments each database, and `make fuzz` sends hostile requests. Without a seed they make one
# up; CASES= sends some of an earlier run of fuzz again.
MINUTES ?= 2
SEED ?=
CASES ?=

export PIP_DISABLE_PIP_VERSION_CHECK = 1

.PHONY: help run test lint bench torture fuzz

help:
	@echo 'make run | test | lint | bench | torture | fuzz'
	@echo 'PORT=8000, PYTHON=python3, ROUNDS=3 SECONDS=4 ONLY=table for bench, MINUTES=2 SEED=7 for torture and fuzz'

run: .venv/complete
	.venv/bin/python asgi_app.py

test: .venv/with-brokers
	.venv/bin/python -m pytest

lint: .venv/with-brokers
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy --strict .

bench: .venv-bench/complete
	.venv-bench/bin/python -m benchmarks --rounds $(ROUNDS) --seconds $(SECONDS) $(addprefix --only ,$(ONLY))

torture: .venv/complete
	.venv/bin/python -m torture --minutes $(MINUTES) $(addprefix --seed ,$(SEED))

fuzz: .venv/complete
	.venv/bin/python -m fuzz --minutes $(MINUTES) $(addprefix --seed ,$(SEED)) $(addprefix --cases ,$(CASES))

# The file `complete` comes last: an environment whose making was interrupted is made anew.
.venv/complete: requirements.txt
.venv-bench/complete: requirements.txt requirements-bench.txt

# What only a fleet and its tests need; the service itself runs without.
.venv/with-brokers: .venv/complete requirements-celery.txt requirements-sqs.txt
	.venv/bin/pip install --quiet -r requirements-sqs.txt
	@touch $@

%/complete:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo 'This needs Python 3.11 or newer, and $(PYTHON) is not: make PYTHON=/path/to/python3.11 ...' >&2; exit 1; }
	$(PYTHON) -m venv --clear $*
	$*/bin/pip install --quiet $(addprefix -r ,$^)
	@touch $@

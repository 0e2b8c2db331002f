# make run, test, lint, lock, bench, torture, fuzz; PYTHON=... names the Python that the environments are built with.

PYTHON ?= python3
# How often, and for how long, `make bench` measures each row of its tables; ONLY='table latency' runs those parts alone.
ROUNDS ?= 2
SECONDS ?= 3
ONLY ?=
# For how long `make torture` torments each database, and `make fuzz` sends hostile requests. Without a seed they make one
# up; CASES= sends some of an earlier run of fuzz again.
MINUTES ?= 2
SEED ?=
CASES ?=
# `make lock UPGRADE=--upgrade` takes the newest versions of what no requirements*.txt pins.
UPGRADE ?=
LOCK ?= requirements.lock

export PIP_DISABLE_PIP_VERSION_CHECK = 1

.PHONY: help run test lint lock bench torture fuzz

help:
	@echo 'make run | test | lint | lock | bench | torture | fuzz'
	@echo 'PORT=8000, PYTHON=python3, ROUNDS=2 SECONDS=3 ONLY=table for bench, MINUTES=2 SEED=7 for torture and fuzz'

# The operator's routes answer this machine, which nobody else can reach it from: it listens to 127.0.0.1.
run: export DEVELOPMENT ?= 1
run: .venv/complete
	.venv/bin/python asgi_app.py

test: .venv/for-tests
	.venv/bin/python -m pytest

lint: .venv/for-tests
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy --strict .

# What is locked stays as it is, unless a pin or UPGRADE moves it; for any platform, and any Python from 3.11 on.
lock: .venv/bin/uv
	.venv/bin/uv pip compile --quiet --universal --python-version 3.11 --annotation-style line $(UPGRADE) \
		--custom-compile-command 'make lock' requirements-dev.txt --output-file $(LOCK)

bench: .venv-bench/complete .venv-bench-arq/complete
	.venv-bench/bin/python -m benchmarks --rounds $(ROUNDS) --seconds $(SECONDS) $(addprefix --only ,$(ONLY))

torture: .venv/complete
	.venv/bin/python -m torture --minutes $(MINUTES) $(addprefix --seed ,$(SEED))

fuzz: .venv/for-tests
	.venv/bin/python -m fuzz --minutes $(MINUTES) $(addprefix --seed ,$(SEED)) $(addprefix --cases ,$(CASES))
	$(if $(CASES),,.venv/bin/python -m fuzz.described --minutes $(MINUTES) $(addprefix --seed ,$(SEED)))

# The file `complete` comes last: an environment whose making was interrupted is made anew.
.venv/complete: requirements.txt requirements.lock
.venv-bench/complete: requirements.txt requirements-bench.txt
.venv-bench-arq/complete: requirements.txt requirements-bench-arq.txt
# What bench compares with takes an older redis than ours, so its environments are not locked.
.venv/%: LOCKED = --constraint requirements.lock

# What only lint, a fleet and its tests need; the service itself runs without.
.venv/for-tests: .venv/complete requirements-celery.txt requirements-sqs.txt requirements-dev.txt
	.venv/bin/pip install -r requirements-dev.txt $(LOCKED)
	@touch $@

%/complete:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo 'This needs Python 3.11 or newer, and $(PYTHON) is not: make PYTHON=/path/to/python3.11 ...' >&2; exit 1; }
	@echo 'Making $*: this takes a minute the first time'
	$(PYTHON) -m venv --clear $*
	$*/bin/pip install $(addprefix -r ,$(filter %.txt,$^)) $(LOCKED)
	@touch $@

# By itself, because nothing can be installed while the lock lags behind a pin.
.venv/bin/uv:
	$(PYTHON) -m venv .venv
	.venv/bin/pip install "$$(grep -o '^uv==[0-9.]*' requirements-dev.txt)"

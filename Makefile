# Every target sets itself up: git, make and Python 3.11 or newer are enough.

PYTHON ?= $(shell for python in python3 python3.14 python3.13 python3.12 python3.11; do \
	$$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
	&& echo $$python && break; done)
BIN := .venv/bin
SAM := .venv-sam/bin/sam
# Debian's packages that the tests start programs of, and these programs.
PACKAGES := bind9 nginx-light haproxy apache2 openssl
PROGRAMS := named nginx haproxy apache2 openssl
MISSING := $(shell for program in $(PROGRAMS); do \
	PATH=$$PATH:/usr/sbin:/sbin command -v $$program >/dev/null || echo $$program; done)
# Three tests at once: much of their time is waiting for servers, DNS and locks.
PYTEST := $(BIN)/pytest -n 3 --dist worksteal

.DEFAULT_GOAL := help
.PHONY: help setup programs demo test check fix bench bench-fleet bench-install histories rotations docs pins sam-validate sam-build clean

help:
	@echo 'make demo          watch certificates travel through a local AWS'
	@echo 'make test          run all tests'
	@echo 'make check         what CI runs: ruff, mypy, cfn-lint, the tests'
	@echo 'make fix           format and sort'
	@echo 'make bench         issue beside lego and certbot, and compare'
	@echo 'make bench-fleet   deploy to a thousand targets on a simulated clock'
	@echo 'make bench-install from a secret to the certificate that nginx serves, on one instance'
	@echo 'make histories     two thousand random histories of deployments'
	@echo 'make rotations     every way of a rotation, and what clients get at every instant of it'
	@echo 'make docs          write the generated parts of docs/ again'
	@echo 'make pins          let the functions have the versions that .venv has'
	@echo 'make sam-validate  sam validate --lint'
	@echo 'make sam-build     build the functions for AWS, into .aws-sam/'
	@echo 'make clean         remove everything that is made'

setup: .venv/.ready

.venv/.ready: pyproject.toml
	@test -n '$(PYTHON)' || { echo 'No Python 3.11 or newer found; say which: make PYTHON=…' >&2; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	touch $@

# In runlevel 1 Debian starts no service that it installs (invoke-rc.d(8)).
programs:
ifneq ($(MISSING),)
	@test "$$(id -u)" = 0 && test -e /etc/debian_version || { \
		echo 'The tests need $(MISSING): sudo apt-get install $(PACKAGES)' >&2; \
		echo '(elsewhere: BIND 9, nginx, HAProxy, Apache httpd and OpenSSL)' >&2; exit 1; }
	apt-get update -q
	RUNLEVEL=1 DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends $(PACKAGES)
endif

# SAM CLI pins a boto3 of its own, so it gets an environment of its own.
.venv-sam/.ready:
	@test -n '$(PYTHON)' || { echo 'No Python 3.11 or newer found; say which: make PYTHON=…' >&2; exit 1; }
	test -x .venv-sam/bin/python || $(PYTHON) -m venv .venv-sam
	.venv-sam/bin/python -m pip install --quiet --disable-pip-version-check aws-sam-cli
	touch $@

demo: setup
	$(BIN)/certrail demo

test: setup programs
	$(PYTEST)

check: setup programs
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/mypy functions/build.py
	$(BIN)/cfn-lint template.yaml
	$(PYTEST)

fix: setup
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

bench: setup
	$(BIN)/python -m bench.issuance

bench-fleet: setup
	$(BIN)/python -m bench.fleet

bench-install: setup
	$(BIN)/python -m bench.install

histories: setup
	$(PYTEST) -m 'thorough or not thorough' tests/deployers/test_histories.py

rotations: setup
	$(PYTEST) -m 'thorough or not thorough' tests/deployers/test_rotation_table.py

docs: setup
	$(BIN)/python -m cli.reference

pins: setup
	$(MAKE) -C functions pins

# Neither needs an account; SAM wants to be told a region all the same.
sam-validate sam-build: export AWS_DEFAULT_REGION ?= eu-central-1
sam-validate sam-build: export SAM_CLI_TELEMETRY := 0

sam-validate: .venv-sam/.ready
	$(SAM) validate --lint

sam-build: .venv-sam/.ready
	$(SAM) build

clean:
	rm -rf .venv .venv-sam .aws-sam .cache .hypothesis .mypy_cache .pytest_cache .ruff_cache *.egg-info
	find . -name __pycache__ -prune -exec rm -rf {} +

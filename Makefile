# The doors into the project. Each works on a fresh Debian with root, Python 3.11 or later, and git.
VENV := .venv
PYTHON := $(VENV)/bin/python
# The environment is made again when the requirements change.
STAMP := $(VENV)/.stamp
# What is missing here, as Debian's packages.
PACKAGES := $(shell python3 -c 'import ensurepip, venv' 2>/dev/null || echo python3-venv)

.DEFAULT_GOAL := help
.PHONY: help setup pins run unit contract test test-all chaos sleepers check format swarm image bench fuzz docs deploy \
	settings reclaim simulate simulate-check
# ENGINE=newest or ENGINE=28, on the command line, takes one of Debian's newer engines instead of the machine's.
ON_ENGINE = $(if $(ENGINE),$(PYTHON) -m dev.engines $(ENGINE))

help:  ## List all commands
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 10

setup: $(STAMP)  ## Make the virtual environment (again, when the requirements changed)

$(STAMP): requirements-dev.txt
ifneq ($(PACKAGES),)
	@if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
		apt-get update -q && \
		DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends $(PACKAGES); \
	else echo "missing here: $(PACKAGES). Install it, or run as root on Debian or Ubuntu." >&2; exit 1; fi
endif
	python3 -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or later is needed")'
	python3 -m venv $(VENV)
	$(PYTHON) -m pip install --quiet --disable-pip-version-check --require-hashes --only-binary :all: \
		-r requirements-dev.txt
	@touch $@

# For every Python from 3.11 on, and every platform. A version in a .txt stays as long as its .in allows it.
COMPILE := $(VENV)/bin/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	--annotation-style line --custom-compile-command 'make pins'
pins: $(STAMP)  ## Pin what the requirements' .in files ask for, with hashes (UPGRADE=--upgrade)
	$(COMPILE) $(UPGRADE) requirements.in -o requirements.txt
	$(COMPILE) $(UPGRADE) worker/requirements.in -c requirements.txt -o worker/requirements.txt
	$(COMPILE) $(UPGRADE) requirements-dev.in -c requirements.txt -c worker/requirements.txt -o requirements-dev.txt
	$(COMPILE) $(UPGRADE) dev/ministack.in -o dev/ministack.txt
	$(COMPILE) $(UPGRADE) dev/localstack.in -o dev/localstack.txt

# One command without a shell around it, so that a signal for make reaches it.
run: $(STAMP)  ## Start everything here, run a sample job, serve (API_PORT=8000 AWS_PORT=4566 DOCKER_HOST=)
	@$(PYTHON) -m dev.run

swarm: $(STAMP)  ## Start a swarm of three nodes in network namespaces, as root (ENGINE=28)
	@$(ON_ENGINE) $(PYTHON) -m dev.swarm

image: $(STAMP)  ## Build the worker's image on a base of Debian's packages (IMAGE=appjobs-worker:1 DOCKER_HOST=)
	@$(PYTHON) -m dev.image $(or $(IMAGE),appjobs-worker:1)

deploy: $(STAMP)  ## Put the API on AWS (STAGE=prod PARAMETERS='RetentionDays=60')
	@$(PYTHON) -m deploy.deploy $(or $(STAGE),$(error say which stage: make deploy STAGE=prod)) $(PARAMETERS)

settings: $(STAMP)  ## Print the worker's environment for a deployed API (STAGE=prod)
	@$(PYTHON) -m deploy.deploy --settings $(or $(STAGE),$(error say which stage: make settings STAGE=prod))

reclaim: $(STAMP)  ## Make a stack of what a deleted one left behind, then deploy (STAGE=prod PARAMETERS=)
	@$(PYTHON) -m deploy.reclaim $(or $(STAGE),$(error say which stage: make reclaim STAGE=prod)) $(PARAMETERS)

# The longest file first: it takes one process as long as the others take for the rest.
unit: $(STAMP)  ## Run only the unit tests: no server, no root, a minute (LIFE_EXAMPLES=40)
	$(PYTHON) -m pytest -n auto --no-loadscope-reorder tests/unit/test_life.py tests/unit

contract: $(STAMP)  ## Run only the contract tests: over HTTP, no engine, no root
	$(PYTHON) -m pytest -n 2 --no-loadscope-reorder tests/contract

# Tests wait most of the time. So three files run at once, each with servers of its own, the longest ones first.
TESTS := $(addprefix tests/,deployed localstack swarm newest contract dev unit)
test: $(STAMP)  ## Run the tests (deployed, localstack, swarm, newest, contract, dev, unit)
	LIFE_EXAMPLES=$(or $(LIFE_EXAMPLES),40) $(ON_ENGINE) $(PYTHON) -m pytest -n 3 --no-loadscope-reorder --durations 25 $(TESTS)

# Tests without an engine run only once.
test-all: $(STAMP)  ## Run all tests on the machine's engine and on the newest, 100 kills on each (KILLS=100)
	$(MAKE) test
	$(MAKE) test ENGINE=newest TESTS="tests/deployed tests/swarm tests/dev"
	$(MAKE) chaos N=$(or $(KILLS),100)
	$(MAKE) chaos N=$(or $(KILLS),100) ENGINE=newest
	$(MAKE) sleepers
	$(MAKE) simulate-check

fuzz: $(STAMP)  ## Send the API thousands of generated requests (FUZZ=450 of each kind)
	FUZZ=$(or $(FUZZ),450) $(PYTHON) -m pytest --timeout=0 tests/contract/test_openapi.py

docs: $(STAMP)  ## Write docs/api.md and the picture docs/flow.svg again
	$(PYTHON) -m dev.api_page
	$(PYTHON) -m dev.picture

bench: $(STAMP)  ## Measure what redaction costs, and how fast executions close
	$(PYTHON) -m bench.redaction
	$(PYTHON) -m bench.closing

simulate: $(STAMP)  ## Say what limits many nodes, and what they cost (NODES=10000 TARGETS=1000 ARGS=--help)
	@$(PYTHON) -m simulate --nodes $(or $(NODES),10000) --targets $(or $(TARGETS),1000) $(ARGS)

simulate-check: $(STAMP)  ## Count what 30 played nodes ask of a local AWS, and compare it with the simulation
	$(PYTHON) -m pytest tests/scale

chaos: $(STAMP)  ## Kill workers N times while commands run (N=300 ENGINE=28), as root
	N=$(or $(N),300) $(ON_ENGINE) $(PYTHON) -m pytest tests/swarm/test_chaos.py -s

sleepers: $(STAMP)  ## Let N commands sleep on one node, and say what that costs its worker (N=1000), as root
	N=$(or $(N),1000) $(PYTHON) -m pytest tests/swarm/test_sleepers.py -s

# All of them run, also after one has failed.
CHECKS := "ruff check ." "ruff format --check ." "mypy" "lint-imports"
check: $(STAMP)  ## Lint, formatting, types, who imports whom
	@failed=; for tool in $(CHECKS); do \
		echo "$$tool"; PYTHONPATH=. $(VENV)/bin/$$tool || failed="$$failed, $$tool"; \
	done; if [ -n "$$failed" ]; then echo "make check: failed: $${failed#, }" >&2; exit 1; fi

format: $(STAMP)  ## Format the code, and mend what ruff can mend
	$(VENV)/bin/ruff check --fix-only .
	$(VENV)/bin/ruff format .

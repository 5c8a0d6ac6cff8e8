# Every target sets up what it needs: a virtual environment in .venv with the pinned packages.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
CODE := functions shared edge demo benchmarks infra tests tools main.py
PINNED := requirements requirements-aws requirements-google requirements-edge requirements-dev tests/infra/google/requirements
COMPILE := $(BIN)/uv pip compile --quiet --universal --generate-hashes --python-version 3.11 --no-emit-index-url --no-emit-find-links --no-strip-extras --custom-compile-command "make pins"

.PHONY: run demo test test-slow bench fuzz faults soak check format pins packages infra clean

run: $(VENV)/.run  ## start every function on http://127.0.0.1:8080 (PORT)
	@exec $(BIN)/python -m functions.local

demo: $(VENV)/.dev  ## two organizations, a TLS edge and a broker on this machine: the whole story, in a minute
	@$(BIN)/python -m demo

test: $(VENV)/.dev tests/node_modules/.done  ## every test, with branch coverage; emulators, browser and brokers where they are found
	$(BIN)/python -m pytest

test-slow: $(VENV)/.dev tests/node_modules/.done  ## what make test leaves out: the service on Firestore and DynamoDB, Terraform applied, RabbitMQ, faults, fuzzing
	$(BIN)/python -m pytest -m "clouds or slow" --no-cov

check: $(VENV)/.dev  ## static checks only
	$(BIN)/ruff format --check $(CODE)
	$(BIN)/ruff check $(CODE)
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m infra.generate --check
	@if command -v node >/dev/null; then for file in $$(find console -name '*.js'); do node --check $$file || exit 1; done; fi

format: $(VENV)/.dev
	$(BIN)/ruff format $(CODE)
	$(BIN)/ruff check --fix $(CODE)

fuzz: $(VENV)/.dev  ## coverage-guided fuzzing of everything that takes bytes from outside (FUZZ_SECONDS per target)
	$(BIN)/python -m tests.fuzz

pins: $(VENV)/.dev  ## renew the pinned versions from the .in files
	$(BIN)/pip install --quiet uv
	for name in $(PINNED); do $(COMPILE) $$name.in -o $$name.txt || exit 1; done

faults: $(VENV)/.dev tests/node_modules/.done  ## every fault between the functions and each store, and kill -9 of the local server
	$(BIN)/python -m tests.faults --json .build/faults.json

soak: $(VENV)/.dev  ## SOAK_MINUTES (20) of mixed load on the local server, with steady memory
	$(BIN)/python -m tests.faults.soak --json .build/soak.json

bench: $(VENV)/.dev  ## how fast, against what: one table, and dist/benchmarks.json (BENCH="--quick decision scale" for less)
	$(BIN)/python -m benchmarks $(BENCH)

packages: $(VENV)/.dev  ## one zip a function for AWS Lambda, in dist/aws (docs/deploy-aws.md)
	$(BIN)/python -m infra.package

infra: $(VENV)/.dev  ## write what the deployments read of infra/table.py and functions/routes.py
	$(BIN)/python -m infra.generate

$(VENV)/pyvenv.cfg:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; name it with PYTHON=python3.12")'
	@$(PYTHON) -m venv $(VENV) || { echo "This Python cannot make a virtual environment. On Debian: apt-get install python3-venv"; rm -rf $(VENV); exit 1; }

$(VENV)/.run: requirements.txt $(VENV)/pyvenv.cfg
	@echo "Installing the pinned packages into $(VENV) (the first time only)"
	@$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements.txt
	@touch $@

$(VENV)/.dev: requirements.txt requirements-dev.txt $(VENV)/pyvenv.cfg
	@echo "Installing the pinned packages for the checks and tests into $(VENV) (the first time only)"
	@$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements-dev.txt
	@touch $@ $(VENV)/.run

tests/node_modules/.done: tests/package.json tests/package-lock.json
	@if command -v npm >/dev/null; then \
		npm ci --prefix tests --ignore-scripts --no-audit --no-fund --silent && touch $@; \
	else echo "npm is not here: tests on dynalite, and with axe-core, are skipped. On Debian: apt-get install npm"; fi

clean:
	rm -rf $(VENV) .build dist tests/node_modules screenshots .mypy_cache .pytest_cache .ruff_cache .hypothesis .coverage

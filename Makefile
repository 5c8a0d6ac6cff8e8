# Every target creates what it needs: a virtual environment in .venv with the pinned packages.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
CODE := functions shared edge demo benchmarks infra tests tools main.py
INSTALL := $(BIN)/pip install --quiet --disable-pip-version-check --require-hashes
# No lock file names a package registry: pip uses the one that it is configured with.
COMPILE := $(BIN)/uv pip compile --quiet --universal --generate-hashes --python-version 3.11 --no-emit-index-url --no-emit-find-links --no-strip-extras --custom-compile-command "make pins" $(UPGRADE)
EXPORT := $(COMPILE) --constraint requirements/all.txt

.DEFAULT_GOAL := help
.PHONY: help run demo test test-slow exact bench fuzz faults soak check house format pins packages sbom infra clean

help:  ## list the targets
	@sed -n 's/^\([a-z-]*\):[^#]*##  *\(.*\)/  make \1|\2/p' $(MAKEFILE_LIST) | awk -F'|' '{ printf "%-18s %s\n", $$1, $$2 }'

run: $(VENV)/.run  ## start every function on http://127.0.0.1:8080 (PORT)
	@exec $(BIN)/python -m functions.local

demo: $(VENV)/.dev  ## play the whole story on this machine: two organizations, a TLS edge and a broker (KEEP=1: leave it running)
	@$(BIN)/python -m demo

test: $(VENV)/.dev tests/node_modules/.done  ## run every test but the slow ones, with branch coverage
	$(BIN)/python -m pytest

test-slow: $(VENV)/.dev tests/node_modules/.done  ## run what make test leaves out: Firestore, DynamoDB, Terraform, RabbitMQ, faults, fuzzing
	$(BIN)/python -m pytest -m "clouds or slow" --no-cov

exact: $(VENV)/.dev tests/node_modules/.done  ## compare remembered and fresh verdicts on every store (EXACT_ANSWERS, EXACT_SEED)
	$(BIN)/python -m pytest tests/exact -m "slow or clouds or not slow" --no-cov -rP

check: $(VENV)/.dev  ## run the static checks: ruff, codespell, mypy, import-linter, generated files, node --check
	$(BIN)/ruff format --check $(CODE)
	$(BIN)/ruff check $(CODE)
	$(BIN)/codespell
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m infra.generate --check
	@if command -v node >/dev/null; then for file in $$(find console -name '*.js'); do node --check $$file || exit 1; done; fi

house: $(VENV)/.dev  ## measure the layout: what each package holds, imports, store calls, words
	$(BIN)/python -m tools.house

format: $(VENV)/.dev  ## format the code and apply the safe fixes of ruff
	$(BIN)/ruff format $(CODE)
	$(BIN)/ruff check --fix $(CODE)

bench: $(VENV)/.dev  ## measure speed against other ways; writes dist/benchmarks.json (BENCH="--quick decision scale" for less)
	$(BIN)/python -m benchmarks $(BENCH)

faults: $(VENV)/.dev tests/node_modules/.done  ## inject every fault between the functions and each store under load; kill -9 the local server
	$(BIN)/python -m benchmarks.faults --json .build/faults.json

soak: $(VENV)/.dev  ## load the local server for SOAK_MINUTES (20) and check that its memory is steady
	$(BIN)/python -m benchmarks.faults.soak --json .build/soak.json

fuzz: $(VENV)/.dev  ## fuzz everything that takes bytes from outside, guided by coverage (FUZZ_SECONDS per target)
	$(BIN)/python -m benchmarks.fuzz

packages: $(VENV)/.dev  ## write one zip per function for AWS Lambda to dist/aws (docs/deploy-aws.md)
	$(BIN)/python -m infra.package

sbom: $(VENV)/.dev  ## write what is installed, with versions and hashes (CycloneDX), to dist/sbom
	$(BIN)/python -m tools.sbom

infra: $(VENV)/.dev  ## write the deployment files that are generated from infra/table.py and the list of functions
	$(BIN)/python -m infra.generate

# requirements/all.txt is the lock. Every other file is an export: the same versions and hashes, of some groups.
pins: $(VENV)/.dev  ## lock the dependencies of pyproject.toml again (UPGRADE=--upgrade: with the newest versions)
	$(COMPILE) pyproject.toml --group run --group dev -o requirements/all.txt
	$(EXPORT) pyproject.toml --group run -o requirements.txt
	$(EXPORT) pyproject.toml --group aws -o requirements/aws.txt
	$(EXPORT) pyproject.toml --group google -o requirements/google.txt
	$(EXPORT) --group edge -o requirements/edge.txt
	$(EXPORT) --group dev -o requirements/dev.txt
	$(COMPILE) tests/infra/google/requirements.in -o tests/infra/google/requirements.txt

clean:  ## remove everything that the other targets create, except ./data
	rm -rf $(VENV) .build dist tests/node_modules screenshots .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis .coverage

$(VENV)/pyvenv.cfg:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; name it with PYTHON=python3.12")'
	@$(PYTHON) -m venv $(VENV) || { echo "This Python cannot create a virtual environment. On Debian: apt-get install python3-venv"; rm -rf $(VENV); exit 1; }

$(VENV)/.run: requirements.txt $(VENV)/pyvenv.cfg
	@echo "Installing the pinned packages into $(VENV) (the first time only)"
	@$(INSTALL) -r requirements.txt
	@touch $@

$(VENV)/.dev: requirements.txt requirements/dev.txt $(VENV)/pyvenv.cfg
	@echo "Installing the pinned packages for the checks and tests into $(VENV) (the first time only)"
	@$(INSTALL) -r requirements.txt -r requirements/dev.txt
	@touch $@ $(VENV)/.run

tests/node_modules/.done: tests/package.json tests/package-lock.json
	@if command -v npm >/dev/null; then \
		npm ci --prefix tests --ignore-scripts --no-audit --no-fund --silent && touch $@; \
	else echo "npm is missing: tests on dynalite and with axe-core are skipped. On Debian: apt-get install npm"; fi

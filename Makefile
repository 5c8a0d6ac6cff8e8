# Every target sets up what it needs: a virtual environment in .venv with the pinned packages.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
CODE := functions shared edge demo benchmarks tests

.PHONY: run demo test check format pins clean

run: $(VENV)/.run  ## start every function on http://127.0.0.1:8080 (PORT)
	@exec $(BIN)/python -m functions.local

demo: $(VENV)/.dev  ## two organizations, a TLS edge and a broker on this machine: the whole story, in a minute
	@$(BIN)/python -m demo

test: $(VENV)/.dev  ## every test, with branch coverage
	$(BIN)/python -m pytest

check: $(VENV)/.dev  ## static checks only
	$(BIN)/ruff format --check $(CODE)
	$(BIN)/ruff check $(CODE)
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(VENV)/.dev
	$(BIN)/ruff format $(CODE)
	$(BIN)/ruff check --fix $(CODE)

pins: $(VENV)/.dev  ## renew the pinned versions from the .in files
	$(BIN)/pip install --quiet uv
	$(BIN)/uv pip compile --quiet --universal --generate-hashes --python-version 3.11 --no-emit-index-url --no-emit-find-links --custom-compile-command "make pins" requirements.in -o requirements.txt
	$(BIN)/uv pip compile --quiet --universal --generate-hashes --python-version 3.11 --no-emit-index-url --no-emit-find-links --custom-compile-command "make pins" requirements-dev.in -o requirements-dev.txt

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

clean:
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .hypothesis .coverage

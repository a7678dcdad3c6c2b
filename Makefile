# Needs Python 3.11 or later with its venv module; everything else is installed into .venv.
PYTHON ?= python3
BIN := .venv/bin
# Tests mostly wait: eight processes of them, each with a server of its own, keep two cores busy.
PARALLEL := --numprocesses 8 --dist worksteal
# What is slow works hard, or shares a big table with others of its file.
PARALLEL_SLOW := --numprocesses 4 --dist loadfile

# Somebody's settings for other environments than .venv.
unexport PIP_USER PIP_TARGET PIP_PREFIX PIP_ROOT PIP_PYTHON PIP_REQUIRE_HASHES PYTHONHOME

.DEFAULT_GOAL := help
.PHONY: help set-up migrate run run-api run-worker stop-db psql backup restore load bench rescue verify-fcfs chaos mutations protocol check format test test-all test-pooled pin wheel

help: ## Show this list
	@awk -F ':.*## ' '/^##@ / {printf "\n%s\n", substr($$0, 5)} /^[a-z-]+:.*## / {printf "  make %-11s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

set-up:
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("Python 3.11 or later is needed, this is %d.%d: try make ... PYTHON=python3.11" % sys.version_info[:2])'
	@$(PYTHON) .ci/set_up.py

##@ Run

run: set-up ## Run the database, the API and one worker until Ctrl-C
	@exec $(BIN)/orders run

run-api: migrate ## Run the API alone
	@exec $(BIN)/orders-api

run-worker: migrate ## Run one worker alone; as many of them at once as you like
	@exec $(BIN)/orders-worker

load: set-up ## Post ORDERS=1000 orders from CLIENTS=200 at once, wait for them and report
	@$(BIN)/python bench/load.py

##@ Database

migrate: set-up ## Bring the database to the newest schema revision
	@$(BIN)/orders migrate

stop-db: set-up ## Stop the embedded database
	@$(BIN)/orders db stop

psql: set-up ## Open psql on the database; SQL='SELECT …' runs one statement
	@$(BIN)/orders db psql $(if $(SQL),--command "$$SQL")

backup: set-up ## Back the database up while it runs; TO=FILE says where
	@$(BIN)/orders db backup $(if $(TO),"$$TO")

restore: set-up ## Put a backup in the database's place; FROM=FILE says which
	@$(BIN)/orders db restore $(if $(FROM),"$$FROM")

verify-fcfs: set-up ## Check that the database's orders were claimed first come, first served, and once
	@$(BIN)/orders verify-fcfs

##@ Check

check: set-up ## Check format, lint, types and imports; count what one must read to trust the queue
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy
	$(BIN)/lint-imports
	@$(PYTHON) .ci/trust.py

format: set-up ## Format the code and mend what the linter can
	$(BIN)/ruff format
	$(BIN)/ruff check --fix

test: set-up ## Run the tests, on a temporary server of their own
	$(BIN)/pytest -m "not slow and not proof" $(PARALLEL)

test-all: set-up ## Run the tests that take longer, or prove more than they test
	$(BIN)/pytest -m "slow or proof" $(PARALLEL_SLOW)

pin: set-up ## Write the installed versions into constraints.txt
	$(BIN)/pip freeze --exclude-editable | sed '1i # Every package of a full install, at the version it is tested with. make pin refreshes it.' > constraints.txt

##@ Build

wheel: set-up ## Build the wheel into dist/, to install it elsewhere
	@rm -rf build dist
	@$(BIN)/python -m build --quiet --wheel
	@ls dist/*.whl

##@ Prove

# Debian's pgbouncer is where an ordinary user's PATH does not lead.
test-pooled chaos: export PATH := $(PATH):/usr/sbin:/usr/local/sbin

test-pooled: set-up ## Run the tests through PgBouncer in transaction mode
	TEST_POOLER=pgbouncer $(BIN)/pytest -m "not slow and not direct" $(PARALLEL)

protocol: set-up ## Check the protocol's model with Spin, and that it breaks without its fences
	@$(BIN)/python -m tests.protocol

mutations: set-up ## Break one condition of a statement at a time and show what notices
	@$(BIN)/python -m tests.model

chaos: set-up ## Run everything under faults and judge it: DURATION=60 seconds, SEED=, BREAK=, FAULTS=, POOLER=, REPORT=
	@exec $(BIN)/python -m tests.chaos

rescue: set-up ## Kill 200 workers and measure how long their orders stay theirs
	@$(BIN)/python bench/rescue.py

##@ Measure

bench: set-up ## Measure speed against floors: QUESTION=drain for one, FULL=1 for the larger sizes
	@$(BIN)/python -c 'import matplotlib' 2>/dev/null || $(BIN)/pip install --no-user --quiet --requirement bench/requirements.txt
	@$(BIN)/python -m bench

export SQL TO FROM ORDERS CLIENTS DURATION SEED BREAK FAULTS POOLER REPORT QUESTION FULL

# Two commands are all that a newcomer needs:
#   make compare    makes the virtual environment, installs, compares learners on real data, prints the report's path
#   make test       makes the virtual environment with the development tools and runs every test
PYTHON ?= python3
BIN := .venv/bin
LOCKED := -c constraints.txt
export EVERLEARN_DATA ?= $(abspath $(wildcard ../shared/data))
# one thread per test process: two of them share two cores, and results depend on the number of threads; in the order of collection,
# so that tests of Ray, whose workers yield to all others, do not run beside claims
TESTS := OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 --dist loadgroup --no-loadscope-reorder

.PHONY: compare test quick slow lint docs browser postgres serve-docs bench lock clean

compare: .venv/installed
	$(BIN)/everlearn compare

test: .venv/developed browser postgres lint docs
	$(TESTS) --durations 15

quick: .venv/developed
	$(TESTS) -m "not slow"

slow: .venv/developed browser postgres
	$(TESTS) -m slow

lint: .venv/developed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pip check

docs: .venv/developed
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

serve-docs: .venv/developed
	$(BIN)/mkdocs serve

bench:
	bash benchmarks/setup.sh
	bash benchmarks/run.sh

# Chromium for the tests of the report; without it, and without the means to install it, those tests are skipped with a reason
browser:
	@command -v chromium chromedriver >/dev/null || ! command -v apt-get >/dev/null || [ "$$(id -u)" -ne 0 ] || \
		{ apt-get update -qq && apt-get install -y -qq chromium chromium-driver >/dev/null; }

# Postgres for the tests of a log in it; the same holds
postgres:
	@ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 || command -v initdb >/dev/null || ! command -v apt-get >/dev/null || \
		[ "$$(id -u)" -ne 0 ] || { apt-get update -qq && apt-get install -y -qq postgresql >/dev/null; }

.venv/made:
	$(PYTHON) -m venv .venv
	@touch $@

.venv/installed: .venv/made pyproject.toml constraints.txt
	$(BIN)/pip install --quiet --disable-pip-version-check $(LOCKED) -e .
	@touch $@

.venv/developed: .venv/made pyproject.toml constraints.txt
	$(BIN)/pip install --quiet --disable-pip-version-check $(LOCKED) -e '.[dev]'
	@touch $@ .venv/installed

# Write the lock anew from an environment with every extra
lock:
	rm -rf .venv-lock && $(PYTHON) -m venv .venv-lock
	.venv-lock/bin/pip install --quiet torch==2.13.0
	.venv-lock/bin/pip install --quiet -e '.[dev,fast,hub,river,serve,rl,generate,ray,explain,track]'
	.venv-lock/bin/pip check
	.venv-lock/bin/pip freeze --exclude-editable | sed 's/+cpu$$//' > constraints.txt

clean:
	rm -rf .venv .venv-lock .venv-bench site build dist .pytest_cache .ruff_cache .hypothesis

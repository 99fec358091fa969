# Two commands to know: `make fit` (the main job) and `make test`. Everything lives in .venv.
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt
TARGET ?= 2*sin(x + 2*pi)
PYTEST_ARGS ?= -n auto --dist worksteal

.PHONY: fit test proof operators docs-tables check format bench clean

$(VENV)/.project: pyproject.toml constraints.txt
	python3 -m venv $(VENV) || { echo "torchpure: 'python3 -m venv' failed; on Debian: apt-get install python3-venv" >&2; exit 1; }
	$(PIP) -e .
	touch $@

$(VENV)/.dev: $(VENV)/.project
	$(PIP) -e '.[dev]'
	touch $@

$(VENV)/.bench: $(VENV)/.project
	$(PIP) -e '.[bench]'
	touch $@

# One thread: a network this small gains nothing from more, and on a busy machine they wait for each other.
fit: $(VENV)/.project
	OMP_NUM_THREADS=1 $(BIN)/torchpure fit "$(TARGET)"

test: $(VENV)/.dev
	$(BIN)/python -m pytest $(PYTEST_ARGS)

# Long: every operator of torch in every composition, and thousands of random programs.
proof: $(VENV)/.dev
	$(BIN)/python -m pytest $(PYTEST_ARGS) -m proof

operators: $(VENV)/.dev
	$(BIN)/python -W ignore tests/compositions/table.py

# The tables of docs/optimizers.md. `make operators` writes docs/operators.md, which takes long.
docs-tables: $(VENV)/.dev
	$(BIN)/python docs/generate.py

check: $(VENV)/.dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyrefly check
	$(BIN)/lint-imports

format: $(VENV)/.dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(VENV)/.bench
	$(BIN)/python -m benchmarks

clean:
	rm -rf $(VENV) .ruff_cache .hypothesis .import_linter_cache

# Two commands to know: `make fit` (the main job) and `make test`. Everything lives in .venv.
VENV := .venv
BIN := $(VENV)/bin
INSTALL := bin/pip install --quiet --disable-pip-version-check
PIP := $(VENV)/$(INSTALL) -c constraints.txt
TARGET ?= 2*sin(x + 2*pi)
PYTEST_ARGS ?= -n auto --dist worksteal

.PHONY: fit test test-python test-torch faults proof sanitize operators borders docs docs-browser docs-tables notebooks man dist test-wheel check format bench clean

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

# compileall: tests start some hundred processes, and each would compile the library again where Python writes no bytecode.
test: $(VENV)/.dev
	$(BIN)/python -m compileall -q torchpure
	$(BIN)/python -m pytest $(PYTEST_ARGS)

# Another Python, in a folder of its own: `make test-python VERSION=3.13`; PYTHON names one that is not on the path.
test-python: .venv-py$(or $(VERSION),3.13)/.dev
	$(<D)/bin/python -m pytest $(PYTEST_ARGS)

# Another torch, likewise: `make test-torch VERSION=2.15.0`. Both download several GB: PyPI has torch with CUDA only.
test-torch: .venv-torch$(or $(VERSION),2.15.0)/.dev
	$(<D)/bin/python -m pytest $(PYTEST_ARGS)

.venv-py%/.dev: pyproject.toml constraints.txt
	PYENV_VERSION=$* $(or $(PYTHON),python$*) -m venv $(@D)
	$(@D)/$(INSTALL) -c constraints.txt -e '.[dev]'
	touch $@

# PIP_CONSTRAINT: a machine may have a pin of torch of its own.
.venv-torch%/.dev: pyproject.toml constraints.txt
	$(or $(PYTHON),python3) -m venv $(@D)
	sed 's/^torch==.*/torch==$*/' constraints.txt > $(@D)/constraints.txt
	PIP_CONSTRAINT=/dev/null $(@D)/$(INSTALL) -c $(@D)/constraints.txt -e '.[dev]'
	touch $@

# What was wrong once: a test for each.
faults: $(VENV)/.dev
	$(BIN)/python -m pytest $(PYTEST_ARGS) -m faults tests/faults

# Long: every operator of torch in every composition, and thousands of random programs.
proof: $(VENV)/.dev
	$(BIN)/python -m pytest $(PYTEST_ARGS) -m proof -o faulthandler_timeout=0

# Long: 2,000 generated libraries, built and run with AddressSanitizer and UBSan. `make proof` does this too.
sanitize: $(VENV)/.dev
	$(BIN)/python -m pytest $(PYTEST_ARGS) -m proof -o faulthandler_timeout=0 tests/jit/native/test_sanitized.py

operators: $(VENV)/.dev
	$(BIN)/python -W ignore tests/compositions/table.py

borders: $(VENV)/.dev
	$(BIN)/python -W ignore tests/compositions/table_of_borders.py

# The site, in site/. A warning is an error.
docs: $(VENV)/.dev
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet
	@echo "torchpure: the site is in site/; to read it: $(BIN)/python -m http.server --directory site"

# Each page in a headless Chromium: no error, no request to another host, search, axe, dark, a telephone's width.
# --no-deps: the package brings axe's script, and playwright, which brings a browser of its own.
docs-browser: $(VENV)/.dev
	$(PIP) --no-deps axe-playwright-python
	$(BIN)/python -m pytest -n 0 -m proof -o faulthandler_timeout=0 tests/docs/test_browser.py

# The tables of docs/optimizers.md. `make operators` writes docs/operators.md, which takes long.
docs-tables: $(VENV)/.dev
	$(BIN)/python docs/generate.py

# The manual page, docs/torchpure.1, from what the commands say of themselves.
man: $(VENV)/.dev
	$(BIN)/python docs/man.py

# The notebooks of docs/notebooks, run from the first cell to the last: pages with their output, and pictures. Some minutes.
notebooks: $(VENV)/.dev
	$(PIP) -e '.[notebooks]'
	$(BIN)/python docs/run_notebooks.py $(NOTEBOOKS)

# The source distribution and the wheel, in dist/.
dist: $(VENV)/.project
	$(PIP) -e '.[release]'
	rm -rf dist
	$(BIN)/python -m build --outdir dist
	$(BIN)/twine check --strict dist/*
	$(BIN)/check-wheel-contents dist/*.whl

# The wheel in an environment of its own, with the lowest versions that are declared. `make test-wheel TORCH=2.15.0`: with another torch.
WHEEL := .venv-wheel$(TORCH)
test-wheel: dist
	rm -rf $(WHEEL) && python3 -m venv $(WHEEL)
	python3 tests/release/lowest.py $(TORCH) > $(WHEEL)/lowest.txt
	PIP_CONSTRAINT=/dev/null $(WHEEL)/$(INSTALL) -c $(WHEEL)/lowest.txt dist/*.whl
	mkdir $(WHEEL)/try
	cd $(WHEEL)/try && OMP_NUM_THREADS=1 ../bin/torchpure fit "$(TARGET)"
	cd $(WHEEL)/try && OMP_NUM_THREADS=1 ../bin/python -I ../../tests/release/smoke.py

check: $(VENV)/.dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/codespell README.md CONTRIBUTING.md CODE_OF_CONDUCT.md SECURITY.md Makefile mkdocs.yml docs torchpure tests benchmarks examples
	$(BIN)/pyrefly check
	$(BIN)/lint-imports

format: $(VENV)/.dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(VENV)/.bench
	$(BIN)/python -m benchmarks

clean:
	rm -rf $(VENV) site dist .venv-py* .venv-torch* .venv-wheel* .ruff_cache .hypothesis .import_linter_cache

# Everything runs in .venv, which each target makes or mends for itself; a second run installs nothing.
PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/.installed

.PHONY: setup serve fmt test test-slow test-process fuzz lint type check load soak deploy-check verify lock settings clean

setup: $(INSTALLED)

$(INSTALLED): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Packlight needs Python 3.11 or later (set PYTHON=...)")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	@touch $@

serve: $(INSTALLED)
	$(BIN)/packlight serve

fmt: $(INSTALLED)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# Files side by side, as what they set up is shared in a file; more than four at once would want much memory.
SIDE_BY_SIDE := -n auto --maxprocesses 4 --dist loadfile

test: $(INSTALLED)
	$(BIN)/python -m pytest $(SIDE_BY_SIDE) -m "not slow"

# What make test leaves out: thousands of sizes against the reference, the OpenAPI page by the hundred.
test-slow: $(INSTALLED)
	$(BIN)/python -m pytest $(SIDE_BY_SIDE) -m slow

# Broken image files, many more than in the tests: some minutes.
fuzz: $(INSTALLED)
	FUZZ_CASES=10000 $(BIN)/python -m pytest tests/model/images/test_image_fuzz.py \
		tests/service/http/routes/test_openapi_fuzz.py tests/process/test_hostile_input.py

# Servers of several processes that are killed, hung, flooded and stopped.
test-process: $(INSTALLED)
	$(BIN)/python -m pytest tests/process

lint: $(INSTALLED)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

type: $(INSTALLED)
	$(BIN)/mypy

check: lint type test test-slow test-process

# A load test of whatever serves at URL: make load URL=http://127.0.0.1:8000 RATE=20
load: $(INSTALLED)
	$(BIN)/python -m loadtest run --url $(or $(URL),http://127.0.0.1:8000) --rate $(or $(RATE),20) \
		--mix mixed --slo-ms 500 --html report.html

# Twenty minutes of mixed load on a server of its own: memory, files and latency that stay as they are. MINUTES=2 is a try.
soak: $(INSTALLED)
	$(BIN)/python -m loadtest.bench soak --minutes $(or $(MINUTES),20)

# The deployment's files, and its board against a real Prometheus, which is installed where it can be.
deploy-check: $(INSTALLED)
	deploy/check.sh

# The image and the compose file on a container engine of its own: Debian 12, root, four minutes.
verify:
	deploy/verify.sh

# deploy/requirements/*.txt from pyproject.toml; needs uv.
lock:
	deploy/lock.sh

settings: $(INSTALLED)
	$(BIN)/python -m service.settings docs/settings.md

clean:
	rm -rf .venv

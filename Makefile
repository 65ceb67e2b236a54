# Everything runs in .venv. Each target installs there what it needs; a second run installs nothing.
PYTHON ?= python3
BIN := .venv/bin
# Stamps of what is installed: what serving needs, and with it what tests and tools need, releases, the site of documents,
# the tests of the page. The last is all of them.
SERVING := .venv/.serving
EVERYTHING := .venv/.everything
RELEASING := .venv/.releasing
DOCUMENTING := .venv/.documenting
BROWSING := .venv/.browsing
READY := .venv/.ready

# What is compiled is kept, whoever runs this: programs that tests start would compile all their modules each time.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: setup serve fmt test test-all test-slow test-process test-clients test-ray test-browser test-release pictures fuzz \
	lint type check load soak peers deploy-check verify lock settings images docs dist image release ready beside ci clean

setup: $(EVERYTHING)

# Where PyTorch keeps its builds for CPUs. They take a tenth of the space, and serve a Linux machine without an NVIDIA GPU.
# If nothing answers there within 5 s, torch comes from pip's own index.
TORCH_CPU_INDEX ?= https://download.pytorch.org/whl/cpu
ANSWERS := import os, sys, threading, urllib.request as u; t = threading.Timer(5, os._exit, [1]); t.daemon = True; \
	t.start(); u.urlopen(sys.argv[1])
FIND_TORCH := links=; if [ "$$(uname)" = Linux ] && ! command -v nvidia-smi >/dev/null && \
	$(PYTHON) -c '$(ANSWERS)' $(TORCH_CPU_INDEX)/torch/ 2>/dev/null; then links="--find-links $(TORCH_CPU_INDEX)/torch/"; fi

define NEW_VENV
@command -v $(PYTHON) >/dev/null || { echo "Packlight needs Python 3.11 or later: there is no $(PYTHON) (set PYTHON=...)"; exit 1; }
@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Packlight needs Python 3.11 or later (set PYTHON=...)")'
@echo "Installing into .venv; this takes a minute or more."
$(PYTHON) -m venv .venv
endef

# For CLIP's published vocabulary and its tokenizer alone: what the package depends on is large, and not needed.
OPEN_CLIP := --no-deps 'open_clip_torch>=3.3,<4'

$(SERVING): pyproject.toml
	$(NEW_VENV)
	@$(FIND_TORCH); set -x; $(BIN)/python -m pip install --quiet $$links --editable .
	@touch $@

$(EVERYTHING): $(SERVING)
	@echo "Installing what tests and tools need; this takes some minutes."
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	$(BIN)/python -m pip install --quiet $(OPEN_CLIP)
	@touch $@

$(RELEASING): $(EVERYTHING)
	$(BIN)/python -m pip install --quiet --editable '.[release]'
	@touch $@

$(DOCUMENTING): $(SERVING)
	$(BIN)/python -m pip install --quiet --editable '.[docs]'
	@touch $@

$(BROWSING): $(EVERYTHING)
	$(BIN)/python -m pip install --quiet --editable '.[browser]'
	@touch $@

# All of the above for CI. pip starts and resolves once, and compiles nothing: most modules are imported by nobody.
$(READY): pyproject.toml
	$(NEW_VENV)
	@$(FIND_TORCH); set -x; $(BIN)/python -m pip install --quiet --no-compile $$links --editable '.[dev,release,docs,browser]'
	$(BIN)/python -m pip install --quiet --no-compile $(OPEN_CLIP)
	@for stamp in $(SERVING) $(EVERYTHING) $(RELEASING) $(DOCUMENTING) $(BROWSING) $@; do touch $$stamp; done

serve: $(SERVING)
	$(BIN)/packlight serve

fmt: $(EVERYTHING)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# Files run side by side, because tests of a file share what they set up. In this order the longest come early.
# One more than there are cores, since tests of servers wait; more than four at once would need much memory.
CORES := $(shell getconf _NPROCESSORS_ONLN)
SIDE_BY_SIDE := --dist loadfile --no-loadscope-reorder -n $(shell expr $(CORES) + 1) --maxprocesses 4
# Tests of whole servers wait most of the time for one to start. The longest files come first.
LONGEST := $(addprefix tests/process/,endings test_soak.py test_faults.py)
SERVERS := --dist loadfile --no-loadscope-reorder -n 3 $(LONGEST) \
	$(filter-out $(LONGEST),$(wildcard tests/process/test_*.py))

# Within three minutes on two quiet cores: without what is slow, and with a quarter of hypothesis' examples.
test: $(EVERYTHING)
	QUICK_TESTS=1 $(BIN)/python -m pytest $(SIDE_BY_SIDE) -m "not slow"

# make test and make test-slow in one go, because each takes 10 s to load what it tests.
test-all: $(EVERYTHING)
	$(BIN)/python -m pytest $(SIDE_BY_SIDE)

# What make test leaves out: thousands of sizes against the reference, the OpenAPI page by the hundred.
test-slow: $(EVERYTHING)
	$(BIN)/python -m pytest $(SIDE_BY_SIDE) -m slow

# Many more broken image files and requests than in the tests: a quarter of an hour.
fuzz: $(EVERYTHING)
	FUZZ_CASES=10000 $(BIN)/python -m pytest tests/model/images/test_image_fuzz.py \
		tests/service/http/routes/test_openapi_fuzz.py tests/process/test_hostile_input.py

# Servers of several processes that are killed, hung, flooded and stopped.
test-process: $(EVERYTHING)
	$(BIN)/python -m pytest $(SERVERS)

# Real clients, and the programs of docs/clients/, against a real server. What they need is installed where it can be: a JDK,
# Go, Node, and 900 MB of Python packages in a virtual environment of their own. What needs none of it is in `make test`.
test-clients: $(EVERYTHING)
	tests/clients/install.sh
	$(BIN)/python -m pytest tests/clients/test_foreign.py tests/clients/test_recipes.py

# Packlight on a cluster of Ray on this machine, with Prometheus, which is installed where it can be. Ray is 500 MB of Python
# packages, in a virtual environment of their own.
test-ray: $(EVERYTHING)
	command -v prometheus >/dev/null || tests/apt_install.sh prometheus
	@test build/ray/.installed -nt pyproject.toml || { $(FIND_TORCH); set -x; $(PYTHON) -m venv build/ray && \
		build/ray/bin/python -m pip install --quiet $$links --editable '.[loadtest,ray]' \
			hypothesis httpx pytest pytest-timeout && touch build/ray/.installed; }
	build/ray/bin/python -m pytest -s tests/ray

# The page in a real browser, which is installed where it can be: chromium, Playwright, axe-core. Two browsers run side by
# side, each with a server of its own.
test-browser: $(BROWSING)
	tests/browser/install.sh
	$(BIN)/python -m pytest --dist loadfile --no-loadscope-reorder -n 2 tests/browser

# The pictures of README and docs, taken from the page in chromium. Look at them before you commit them.
pictures: $(BROWSING)
	tests/browser/install.sh
	$(BIN)/python -m tests.browser.pictures docs/pictures

# Wheel and sdist: what they hold, and that the wheel serves and embeds in an environment of its own. A minute and a half.
test-release: $(RELEASING)
	@$(FIND_TORCH); set -x; PIP_OPTIONS="$$links" $(BIN)/python -m pytest tests/release

lint: $(EVERYTHING)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

type: $(EVERYTHING)
	$(BIN)/mypy

# What must pass.
check: lint type test-all test-process

# Installs what `make ci` needs. What goes into .venv and what goes elsewhere is fetched and unpacked side by side.
ready:
	$(MAKE) --jobs 2 $(READY) beside

# One after another, since apt-get does not work beside itself.
beside:
	tests/clients/install.sh
	tests/browser/install.sh

# All of continuous integration, after `make ready`. Of what checks and builds, most waits or takes one core, so two of them
# run at a time. The rest comes one after another: beside others, chromium and servers that are killed and started again
# take longer than their tests wait.
ci: $(READY)
	$(MAKE) lint
	$(MAKE) --jobs 2 --output-sync deploy-check test-release type test-clients docs
	$(MAKE) test-all test-browser test-process

# A load test of whatever serves at URL: make load URL=http://127.0.0.1:8000 RATE=20
load: $(EVERYTHING)
	$(BIN)/python -m loadtest run --url $(or $(URL),http://127.0.0.1:8000) --rate $(or $(RATE),20) \
		--mix mixed --slo-ms 500 --html report.html

# Load with faults on a server of its own, for as long as wanted: MINUTES=600 is a night, 13 has most faults once. The page
# with the curves is soak.html. SOAK='--faults engine-killed' says more: `python -m loadtest.bench soak --help`.
soak: $(EVERYTHING)
	$(BIN)/python -m loadtest.bench soak --minutes $(or $(MINUTES),20) --html soak.html --json soak.json $(SOAK)

# The engines and servers that others would take, for `bench forward` and `bench serve`: 6 GB in build/peers, each in a
# virtual environment of its own.
peers: $(EVERYTHING)
	@$(FIND_TORCH); set -x; PIP_OPTIONS="$$links" $(BIN)/python -m loadtest.bench peers --install

# The deployment's files, its chart and balancer, and its board against a real Prometheus. What they need is installed
# where it can be.
deploy-check: $(EVERYTHING)
	deploy/check.sh

# The image and the compose file on a container engine of its own: Debian 12, root, four minutes.
verify:
	deploy/verify.sh

# deploy/requirements/*.txt from pyproject.toml; needs uv.
lock:
	deploy/lock.sh

settings: $(EVERYTHING)
	$(BIN)/python -m service.settings.table docs/settings.md

# The table of docs/images.md from the matrix of tests/model/images/matrix/.
images: $(EVERYTHING)
	$(BIN)/python -m tests.model.images.matrix.table docs/images.md

# The documents as a site in build/site: search and dark mode, nothing from another host, no broken link.
docs: $(DOCUMENTING)
	rm -rf build/site
	$(BIN)/python -P -m sphinx -W --keep-going -q -c docs -d build/doctrees . build/site
	$(BIN)/python -m deploy.check_site build/site

# Wheel and sdist of the working tree, in dist/.
dist: $(RELEASING)
	rm -rf dist
	deploy/build.sh dist

# An image with its labels; VARIANT=cpu or cuda.
image:
	deploy/image.sh

# All that comes before a release is published, and then the commands that publish it, which it does not run.
release:
	deploy/release.sh

clean:
	rm -rf .venv

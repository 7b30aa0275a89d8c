# perfbench: `make demo` shows the whole job on a real model; `make test` runs every test tier. Both set up .venv first.

SHELL := /bin/bash
VENV := .venv
BIN := $(VENV)/bin
TORCH := torch==2.13.0+cpu
PYTHON ?= python3

# Everything that perfbench makes for itself (the demo's model, merged models) stays in this checkout.
export PERFBENCH_CACHE ?= $(CURDIR)/.perfbench
# Byte code is kept: without it every vLLM process compiles 10,000 modules at each start.
export PYTHONDONTWRITEBYTECODE :=
export HF_HUB_OFFLINE := 1

.PHONY: demo test unit truth live browser check lock clean setup parts peers

setup: $(VENV)/.ready

# One lock of exact versions, installed without resolving. Torch's CPU build is not where the other packages are: pip is asked
# first (it knows local wheel folders), then uv, which knows the CPU index by name.
$(VENV)/.ready: requirements.lock pyproject.toml
	@echo "setting up $(VENV) (once, about two minutes)"
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/pip install -q --disable-pip-version-check uv==0.13.9
	@$(BIN)/pip install -q --disable-pip-version-check --no-deps --no-compile "$(TORCH)" 2>/dev/null \
	    || VIRTUAL_ENV=$(VENV) $(BIN)/uv pip install -q --no-deps --torch-backend=cpu "$(TORCH)"
	@VIRTUAL_ENV=$(VENV) $(BIN)/uv pip install -q --no-deps -r <(grep -v '^torch==' requirements.lock)
	@VIRTUAL_ENV=$(VENV) $(BIN)/uv pip install -q --no-deps --no-build-isolation -e .
	@touch $@

demo: setup
	@$(BIN)/perfbench demo $(if $(QUICK),--quick)

# One command for all tiers; a tier whose part is missing skips itself and says so (-ra). Tests mostly wait, so two go side by side; those that are timed
# (truth, browser) have no vLLM beside them. Whatever failed runs once more alone: another guest of the machine may have held a clock up; a fault fails twice.
BESIDE := -n 2 --no-loadscope-reorder
test: setup parts
	@$(BIN)/perfbench demo --prepare --quiet > /dev/null
	@failed=0; for tiers in "tests/live tests/unit" "tests/truth tests/browser"; do \
	    $(BIN)/pytest $(BESIDE) $$tiers; code=$$?; [ $$code -le 1 ] || exit $$code; failed=$$((failed + code)); \
	done; [ $$failed = 0 ] || $(BIN)/pytest --last-failed --last-failed-no-failures=none

unit truth live browser: setup
	@$(BIN)/pytest tests/$@

# Debian's packages that some tests need: Chromium (browser), bubblewrap (the code sandbox's first level), iproute2 (two machines in network
# namespaces). Where one cannot be installed, its tests skip themselves, aloud.
PARTS := chromium:chromium bwrap:bubblewrap ip:iproute2
parts:
	@for part in $(PARTS); do \
	    command -v "$${part%%:*}" >/dev/null && continue; \
	    package="$${part##*:}"; echo "installing $$package for the tests that need it"; \
	    { [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null && { apt-get install -y -qq --no-install-recommends "$$package" >/dev/null 2>&1 \
	        || { apt-get update -qq >/dev/null 2>&1 && apt-get install -y -qq --no-install-recommends "$$package" >/dev/null 2>&1; }; }; } \
	        || echo "no $$package: its tests will be skipped"; \
	done

check: setup
	@$(BIN)/ruff check . && $(BIN)/mypy && $(BIN)/lint-imports

# The load generators that benchmarks/load compares with, each in an environment of its own under PEERS.
PEERS ?= $(CURDIR)/.perfbench/peers
peers: setup
	@$(BIN)/python -m benchmarks.load.install $(PEERS)

# Renew the lock. uv resolves in seconds where pip took nine minutes.
lock: setup
	@$(BIN)/uv pip compile pyproject.toml --extra cpu --extra demo --extra quality --extra lm-eval --extra prices --group dev --upgrade --no-annotate --no-header -q \
	    $(addprefix --find-links=,$(shell $(BIN)/pip config get global.find-links 2>/dev/null || echo)) -o requirements.lock

clean:
	@rm -rf $(VENV) .perfbench

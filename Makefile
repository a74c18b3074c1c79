# `make serve` runs tierwise, `make test` tests it; each sets up what it needs first.
SHELL := /bin/bash
BIN := .venv/bin
CONFIG ?= deployments.yaml
# What was set up last stays: `make setup EXTRA=gpu` once, then `make serve`.
EXTRA ?= $(shell cat .venv/.extra 2>/dev/null || echo cpu)
TRANSPORT ?= default

ifeq ($(TRANSPORT),throughput)
export RAY_SERVE_THROUGHPUT_OPTIMIZED := 1
endif
export RAY_ENABLE_UV_RUN_RUNTIME_ENV := 0
export RAY_USAGE_STATS_ENABLED := 0
# Serve's own listeners pass every request through our filter of headers first.
export RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH := serve_app.deployments.proxy:middlewares

.PHONY: setup serve status test test-core chaos quality scaling bench monitoring lint lock

setup:
	@requirements/setup.sh $(EXTRA)

serve: setup
	@$(BIN)/tierwise validate $(CONFIG)
	@echo "serve: starting the graph of $(CONFIG); the first start takes one to three minutes"
	@$(BIN)/tierwise status --wait --config $(CONFIG) & exec $(BIN)/serve run $(CONFIG)

# `serve run` switches Ray's token authentication on; its other commands must be told.
status: setup
	@RAY_AUTH_MODE=token $(BIN)/serve status

# Debian packages that tests use (tests/apt.txt) are installed where that needs no password.
test: setup lint
	@tests/packages.sh
	@$(BIN)/python -m pytest

# Without vLLM's engines, and without installing any Debian package: what was skipped for that is listed at the end.
test-core: setup lint
	@$(BIN)/python -m pytest -m "not vllm"

# Faults under traffic, and a cluster of logical nodes, three quarters of an hour: `make chaos ONLY=test_name` runs one; `make chaos REPORT=file.jsonl` keeps the figures.
chaos: setup
	@TIERWISE_CHAOS_REPORT=$(REPORT) $(BIN)/python -m pytest tests/chaos tests/cluster -m chaos -s $(if $(ONLY),-k '$(ONLY)')

# Routing quality on the development data, twenty to thirty minutes on two cores: `make quality QUICK=1` measures two studies in two.
quality: setup
	@OMP_NUM_THREADS=1 $(BIN)/python -m serve_app.evaluate.quality --out docs/routing-quality.md --ways docs/routing-quality-ways.md \
		$(if $(QUICK),--quick) $(if $(RESULTS),--results $(RESULTS))

# Prometheus with our rules and the cost exporter beside a running `make serve`: http://127.0.0.1:9090.
monitoring: setup
	@CONFIG=$(CONFIG) exec cluster/monitoring/run.sh

# Our scaling policies against Ray's own on one trace, eight minutes: `make scaling TRACE=step` runs one of step, bursty and flat.
scaling: setup
	@$(BIN)/python -m tests.scaling.experiment $(TRACE) --images docs/images

# Beside the engine called directly, a bare Ray hop, ray.serve.llm and LiteLLM (in an environment of its own), half an hour:
# `make bench ONLY=decisions` measures one part, `make bench QUICK=1 REPEATS=1` all of them in a rough form. An idle machine measures best.
bench: setup
	@requirements/litellm.sh
	@OMP_NUM_THREADS=1 $(BIN)/tierwise bench $(if $(ONLY),--only $(ONLY)) $(if $(QUICK),--quick) $(if $(REPEATS),--repeats $(REPEATS))

lint: setup
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

lock: setup
	@requirements/lock.sh

#!/usr/bin/env bash
# LiteLLM for `make bench`, in an environment of its own.
set -euo pipefail
cd "$(dirname "$0")/.."
[ -n "${TIERWISE_BENCH_LITELLM:-}" ] && exit 0
lock=requirements/bench-litellm.lock
cmp -s "$lock" .bench/litellm/installed.lock && exit 0
echo "bench: installing LiteLLM into .bench/litellm"
.venv/bin/uv venv --quiet --clear --python 3.11 .bench/litellm
.venv/bin/uv pip install --quiet --require-hashes --python .bench/litellm/bin/python -r "$lock"
cp "$lock" .bench/litellm/installed.lock

#!/usr/bin/env bash
# Make the locks anew from pyproject.toml.
set -euo pipefail
cd "$(dirname "$0")/.."
links=$(.venv/bin/python -m pip config get global.find-links 2>/dev/null || true)
[ -n "$links" ] && export UV_FIND_LINKS="${links// /,}"
compile() { .venv/bin/uv pip compile pyproject.toml --quiet --universal --python-version 3.11 --generate-hashes --custom-compile-command "make lock" "$@"; }
torch_index=()
[ -n "$links" ] || torch_index=(--extra-index-url https://download.pytorch.org/whl/cpu)
compile --extra cpu --group dev --override requirements/cpu.overrides.txt "${torch_index[@]}" --output-file requirements/cpu.lock
unset UV_FIND_LINKS # a CPU build of torch found there would end up in the GPU lock
compile --extra gpu --group dev --output-file requirements/gpu.lock
# See requirements/README.md for why torch goes without a hash.
sed -i '/^torch==.*+cpu \\$/{s/ \\$//;n;d}' requirements/cpu.lock
# LiteLLM is a contender of `make bench`, not a part of tierwise.
echo 'litellm[proxy]==1.100.0' | .venv/bin/uv pip compile - --quiet --universal --python-version 3.11 --generate-hashes --no-annotate \
  --custom-compile-command "make lock" --output-file requirements/bench-litellm.lock

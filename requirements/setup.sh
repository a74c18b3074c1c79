#!/usr/bin/env bash
# Create .venv and install exactly what the lock says. A second run installs nothing.
#   requirements/setup.sh [cpu|gpu]
set -euo pipefail
cd "$(dirname "$0")/.."

extra=${1:-cpu}
lock="requirements/$extra.lock"
uv_version=0.13.9
say() { printf 'setup: %s\n' "$*"; }
stop() { printf 'setup: %s\n' "$*" >&2; exit 2; }

[ -f "$lock" ] || stop "there is no $lock: choose cpu or gpu"

# The first of these that the pinned wheels exist for; PYTHON overrides.
find_python() {
  local candidate
  for candidate in ${PYTHON:-python3 python3.13 python3.12 python3.11}; do
    if "$candidate" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))' 2>/dev/null; then
      command -v "$candidate"
      return
    fi
  done
  return 1
}

if [ -x .venv/bin/python ]; then
  python=.venv/bin/python
else
  python=$(find_python) || stop "needs Python 3.11 to 3.13, but ${PYTHON:-python3} is $(${PYTHON:-python3} --version 2>&1 || echo missing): set PYTHON to one"
fi

stamp="$(cat "$lock" pyproject.toml requirements/setup.sh | sha256sum | cut -d' ' -f1)-$("$python" -c 'import sys; print(sys.version.split()[0])')"
if [ "$(cat .venv/.installed 2>/dev/null || true)" = "$stamp" ]; then
  say "everything is installed"
  exit 0
fi

say "installing into .venv from $lock with $("$python" --version)"
if [ ! -x .venv/bin/python ]; then
  "$python" -m venv .venv || stop "could not create .venv (on Debian and Ubuntu: apt install python3-venv)"
fi
.venv/bin/python -m pip install --quiet --disable-pip-version-check "uv==$uv_version" || stop "could not install uv: is a package registry reachable?"

# uv does not read pip's configuration. The CPU build of torch may lie where only pip's find-links says;
# elsewhere it comes from PyTorch's own index.
options=()
if [ "$extra" = cpu ]; then
  links=${UV_FIND_LINKS:-${PIP_FIND_LINKS:-$(.venv/bin/python -m pip config get global.find-links 2>/dev/null || true)}}
  torch=$(sed -n 's/^torch==\([^ ;]*\).*/\1/p' "$lock")-$(.venv/bin/python -c 'import sys; print("cp%d%d" % sys.version_info[:2])')
  options=(--torch-backend=cpu)
  for link in ${links//,/ }; do
    if compgen -G "$link/torch-$torch-*.whl" >/dev/null; then
      export UV_FIND_LINKS=$link
      options=()
    fi
  done
fi
export UV_CONCURRENT_INSTALLS=4
# Compiled once here: a dozen processes import torch, vLLM and transformers at every start, some where nothing may be written.
.venv/bin/uv pip sync --quiet --compile-bytecode --python .venv/bin/python "${options[@]}" "$lock" || stop "the installation failed: see above"
.venv/bin/uv pip install --quiet --python .venv/bin/python --no-deps --no-build-isolation --editable . || stop "could not install tierwise itself"
echo "$extra" > .venv/.extra
echo "$stamp" > .venv/.installed
say "done"

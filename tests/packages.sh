#!/usr/bin/env bash
# Install the Debian packages that tests use, when root or by sudo without a password; otherwise one line says what is missing.
# Their tests skip themselves without them, so that this never fails.
set -euo pipefail
cd "$(dirname "$0")"

say() { printf 'packages: %s\n' "$*"; }
missing=()
while read -r package; do
  dpkg-query -W -f '${Status}\n' "$package" 2>/dev/null | grep -q '^install ok installed$' || missing+=("$package")
done < apt.txt
[ ${#missing[@]} -gt 0 ] || exit 0

run=()
if ! command -v apt-get >/dev/null; then
  say "not installed, and no apt-get to install them: ${missing[*]}; their tests are skipped"
  exit 0
elif [ "$(id -u)" -ne 0 ]; then
  run=(sudo -n)
  if ! sudo -n true 2>/dev/null; then
    say "not installed: ${missing[*]}; their tests are skipped (sudo apt-get install ${missing[*]})"
    exit 0
  fi
fi
say "installing ${missing[*]}"
run+=(env DEBIAN_FRONTEND=noninteractive timeout) # `env` behind sudo, which drops variables
install() { "${run[@]}" 600 apt-get install -y -qq --no-install-recommends -o DPkg::Lock::Timeout=60 "$@" </dev/null >/dev/null 2>&1; }
install "${missing[@]}" && exit 0
"${run[@]}" 120 apt-get update -qq </dev/null >/dev/null 2>&1 || true
failed=()
for package in "${missing[@]}"; do # one by one: a name that this distribution does not know keeps none of the others out
  install "$package" || failed+=("$package")
done
[ ${#failed[@]} -eq 0 ] || say "could not install ${failed[*]}: is a package mirror reachable? Their tests are skipped"
